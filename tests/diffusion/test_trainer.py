"""Training: a run that is killed and resumed is the unbroken one, two processes are one, and what a checkpoint holds."""

import copy
import csv
import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vdiff_kernels.diffusion import VideoDiffusion, trainer
from vdiff_kernels.diffusion.trainer import LOG, STATE, WEIGHTS, Trainer, TrainSettings
from vdiff_kernels.diffusion.weights import named_tensors

from .train_processes import SETTINGS, trainer_of

FILES = (WEIGHTS, LOG, STATE)


def run(settings: TrainSettings, folder: Path, **arguments) -> Trainer:
    folder.mkdir(exist_ok=True)
    made = trainer_of(settings, folder)
    made.run(**arguments)
    return made


def losses(folder: Path) -> list[float]:
    with open(folder / LOG, newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "loss"] and [int(step) for step, _ in rows[1:]] == list(range(1, len(rows)))
    return [float(loss) for _, loss in rows[1:]]


def assert_equal_runs(folder: Path, other: Path):
    for file in FILES:
        assert (folder / file).read_bytes() == (other / file).read_bytes(), file


def processes(mode: str, folder: Path) -> dict:
    script = Path(__file__).with_name("train_processes.py")
    done = subprocess.run([sys.executable, script, mode, folder], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_killed_at_any_moment_and_resumed_is_bit_equal(tmp_path):
    ends = processes("killed", tmp_path)
    assert ends["whole"] == [0] and ends["writing"] == [-signal.SIGKILL] * 6 + [0]
    assert set(ends["anywhere"][:-1]) == {-signal.SIGALRM} and ends["anywhere"][-1] == 0
    assert_equal_runs(tmp_path / "writing", tmp_path / "whole")
    assert_equal_runs(tmp_path / "anywhere", tmp_path / "whole")


def test_two_processes_are_one(tmp_path):
    single = run(SETTINGS, tmp_path / "single")
    assert processes("pair", tmp_path) == {"pair": [0, 0]}
    # Means of halves in another order: some 1e-7 a step, and AdamW turns that of a gradient near zero into as much of its step.
    assert losses(tmp_path) == pytest.approx(losses(tmp_path / "single"), rel=1e-5)
    pair, one = load_file(tmp_path / STATE), load_file(tmp_path / "single" / STATE)
    moved = one["model.head.conv.weight"].abs().max()  # it began at zero
    assert (pair["model.head.conv.weight"] - one["model.head.conv.weight"]).abs().max() < 1e-3 * moved
    assert single.step == len(single.losses) == 3


def test_an_ended_run_stays_as_it_is_and_a_longer_one_goes_on(tmp_path):
    settings = dataclasses.replace(SETTINGS, decay=0.2)  # the rate falls in the last 20% alone: no step of 3
    run(settings, tmp_path / "run")
    before = [(tmp_path / "run" / file).read_bytes() for file in FILES]
    run(settings, tmp_path / "run")
    assert before == [(tmp_path / "run" / file).read_bytes() for file in FILES]
    longer = dataclasses.replace(settings, steps=5)
    run(longer, tmp_path / "run")
    run(longer, tmp_path / "whole")
    assert_equal_runs(tmp_path / "run", tmp_path / "whole")


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A run of three steps: its folder, the trainer, and the parameters before it and after every step."""
    folder, parameters = tmp_path_factory.mktemp("ended"), []
    made = trainer_of(SETTINGS, folder)
    parameters.append(copy.deepcopy(named_tensors(made.pipeline.modules)))
    made.run(on_step=lambda *_: parameters.append(copy.deepcopy(named_tensors(made.pipeline.modules))))
    return folder, made, parameters


def test_other_settings_are_named(ended):
    folder, _, _ = ended
    for changes, message in [
        (dict(lr=1e-3), r"is of another run \(lr 0.0006, now 0.001\); give its settings or another folder"),
        (dict(widths=(8, 24), seed=4), r"\(seed 3, now 4; widths \[8, 16\], now \[8, 24\]\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            trainer_of(dataclasses.replace(SETTINGS, **changes), folder)


def test_a_broken_state_is_one_clear_error(ended, tmp_path):
    whole = (ended[0] / STATE).read_bytes()
    for content in (whole[: len(whole) // 2], whole[:100], b"", b"nothing of this kind"):
        (tmp_path / STATE).write_bytes(content)
        with pytest.raises(ValueError, match="state.safetensors': not a whole training state .*; remove it to begin anew"):
            trainer_of(SETTINGS, tmp_path)
    save_file({"a": torch.zeros(2)}, tmp_path / STATE)
    with pytest.raises(ValueError, match="state.safetensors' is of another run"):
        trainer_of(SETTINGS, tmp_path)


def test_the_average_and_what_ships(ended):
    folder, made, parameters = ended
    state, weights = load_file(folder / STATE), load_file(folder / WEIGHTS)
    for name, value in parameters[0].items():
        average = value.double()
        for step, after in enumerate(parameters[1:], start=1):
            decay = min(0.999, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * after[name].double()
        # Three float32 updates, each within an ulp or two of the largest value that it adds.
        torch.testing.assert_close(state[f"average.{name}"].double(), average, rtol=1e-6, atol=1e-6 * average.abs().max().item())
        assert torch.equal(weights[name], state[f"average.{name}"].half())
        assert torch.equal(state[f"model.{name}"], parameters[-1][name])
        assert not torch.equal(parameters[0][name], parameters[-1][name]), f"{name} was not trained"
    loaded = VideoDiffusion.load(folder / WEIGHTS)
    assert (loaded.num_frames, loaded.size, loaded.config) == (2, (24, 24), made.pipeline.config)
    assert made.averaged().modules is made.average and made.pipeline.modules is not made.average


def test_the_rate_rises_stays_and_falls(tmp_path):
    settings = dataclasses.replace(SETTINGS, steps=8, warmup=2, decay=0.5, lr=1e-3)
    rates, made = [], trainer_of(settings, tmp_path)
    made.run(checkpoint_seconds=1e9, on_step=lambda *_: rates.append(made.optimizer.param_groups[0]["lr"]))
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 1e-3, 1e-3, 7.5e-4, 5e-4, 2.5e-4])


def test_steps_and_checkpoints_are_reported(tmp_path):
    steps, checkpoints = [], []
    made = trainer_of(SETTINGS, tmp_path)
    made.run(
        checkpoint_seconds=0, on_step=lambda step, loss: steps.append((step, loss)),
        on_checkpoint=lambda trainer: checkpoints.append((trainer.step, (tmp_path / STATE).exists())),
    )  # fmt: skip
    assert steps == made.losses and [loss for _, loss in steps] == losses(tmp_path)
    assert checkpoints == [(1, True), (2, True), (3, True)]
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)  # no drafts


def test_the_untrained_model_follows_from_the_seed():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, same = (SETTINGS.pipeline(("a", "seven")).unet for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    other = dataclasses.replace(SETTINGS, seed=4).pipeline(("a", "seven")).unet
    assert torch.equal(one.stem.weight, same.stem.weight) and not torch.equal(one.stem.weight, other.stem.weight)


def test_the_batch_is_shared_evenly(monkeypatch, tmp_path):
    monkeypatch.setattr(trainer.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(trainer.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(trainer.dist, "get_world_size", lambda: 3)
    with pytest.raises(ValueError, match="batch is 2; expected a multiple of the 3 processes"):
        trainer_of(SETTINGS, tmp_path)
