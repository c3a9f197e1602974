"""`vdiff train`: every setting reaches the Trainer, a run goes on where it was, and a kill or a full disk leaves it whole."""

import csv
import dataclasses
import errno
import os
import resource
import shutil
import sys

import imageio.v3 as iio
import pytest
import torch

from vdiff_kernels.cli import train as command
from vdiff_kernels.diffusion import VideoDiffusion
from vdiff_kernels.diffusion.trainer import LOG, STATE, WEIGHTS, Trainer, TrainSettings

from .conftest import run_vdiff

SMALL = (
    "--widths",
    "16,16",
    "--head-dim",
    "8",
    "--patch",
    4,
    "--blocks",
    1,
    "--num-frames",
    2,
    "--size",
    24,
    "--batch",
    2,
    "--warmup",
    2,
    "--images",
    1,
)
QUICK = (*SMALL, "--sample-every", 0)
# A value of each setting that is not its default, as an option and as it is.
OTHER = {
    "steps": ("7", 7), "batch": ("6", 6), "images": ("3", 3), "lr": ("1e-3", 1e-3), "warmup": ("0", 0), "decay": ("0.5", 0.5),
    "ema": ("0.9", 0.9), "time_power": ("0.5", 0.5), "weighting": ("x", "x"), "null_rate": ("0.25", 0.25), "seed": ("5", 5),
    "num_frames": ("8", 8), "size": ("64", 64), "widths": ("64,64", (64, 64)), "blocks": ("1", 1), "patch": ("4", 4),
    "head_dim": ("8", 8),
}  # fmt: skip


def contents(folder) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in os.listdir(folder)}


def losses_of(folder) -> dict[int, float]:
    with open(folder / LOG, newline="") as file:
        return {int(step): float(loss) for step, loss in list(csv.reader(file))[1:]}


@pytest.fixture
def taken(monkeypatch):
    """The settings and backend with which the command made its Trainer; nothing is trained."""
    calls = []

    def trainer(settings, folder, data, backend, init):
        calls.append((settings, backend))
        raise ValueError("enough")

    monkeypatch.setattr(command, "Trainer", trainer)
    return calls


class TestSettings:
    def test_defaults(self, vdiff, taken, tmp_path):
        vdiff("train", tmp_path)
        assert taken == [(TrainSettings(), None)]

    @pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TrainSettings)])
    def test_every_field_has_its_option(self, vdiff, taken, tmp_path, name):
        text, value = OTHER[name]
        vdiff("train", tmp_path, f"--{name.replace('_', '-')}", text)
        assert taken == [(dataclasses.replace(TrainSettings(), **{name: value}), None)]
        assert value != getattr(TrainSettings, name)

    def test_backend(self, vdiff, taken, tmp_path):
        vdiff("train", tmp_path, "--backend", "reference")
        assert taken[0][1] == "reference"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder and the output of a run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    return folder, run_vdiff("train", folder, *QUICK, "--steps", 2, "--checkpoint-seconds", 0)


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of it."""
    return shutil.copytree(finished[0], tmp_path / "digits")


def test_a_run(finished):
    folder, result = finished
    assert (result.exit_code, result.stderr) == (0, "")
    first, *_, last, end = result.stdout.splitlines()
    assert first == f"{folder}: step 0 of 2, by cpu (the compiled library)"
    assert last.startswith("step 2/2  loss ") and last.endswith(" clips/s  0 min left")
    assert end == f"{folder / WEIGHTS}: the model after 2 steps"
    assert sorted(os.listdir(folder)) == sorted([STATE, LOG, WEIGHTS])
    assert VideoDiffusion.load(folder / WEIGHTS).size == (24, 24)


class TestResumed:
    def test_with_its_own_settings(self, vdiff, folder):
        """Without them, and to more steps where those are given. The loss is the mean of the last steps."""
        result = vdiff("train", folder, "--steps", 4, "--sample-every", 0)
        assert result.exit_code == 0 and "step 2 of 4" in result.stdout.splitlines()[0]
        losses = losses_of(folder)
        assert list(losses) == [1, 2, 3, 4]
        assert f"step 4/4  loss {sum(losses.values()) / 4:.4f}  " in result.stdout
        assert VideoDiffusion.load(folder / WEIGHTS).num_frames == 2

    def test_at_its_end(self, vdiff, folder):
        before = contents(folder)
        assert vdiff("train", folder).stdout.endswith(": the model after 2 steps\n")
        assert contents(folder) == before

    def test_another_setting_is_refused(self, refused, folder):
        before = contents(folder)
        assert f"{STATE}' is of another run (lr 0.0006, now 0.001)" in refused("train", folder, "--lr", "1e-3")
        assert contents(folder) == before

    def test_fewer_steps_than_done(self, refused, folder):
        line = f"vdiff: --steps is 1; expected at least 2, which the run in {folder} has done"
        assert refused("train", folder, "--steps", 1) == line

    def test_a_missing_log(self, refused, folder):
        (folder / LOG).unlink()
        assert refused("train", folder) == f"vdiff: '{folder / LOG}': No such file or directory"

    @pytest.mark.parametrize("broken", ["cut off", "foreign", "empty"])
    def test_a_broken_state_is_refused(self, refused, folder, broken):
        contents = {"cut off": (folder / STATE).read_bytes()[:-1000], "foreign": (folder / WEIGHTS).read_bytes(), "empty": b""}
        (folder / STATE).write_bytes(contents[broken])
        assert f"{STATE}'" in refused("train", folder)
        assert (folder / STATE).read_bytes() == contents[broken]


class TestInit:
    """A new run from the weights of a model, whose shape is the run's."""

    def test_begins_from_its_weights(self, finished, vdiff, tmp_path):
        weights = finished[0] / WEIGHTS
        arguments = ("--init", weights, "--steps", 1, "--batch", 2, "--lr", 1e-8, "--sample-every", 0)
        result = vdiff("train", tmp_path / "more", *arguments, "--patch", 4)
        assert (result.exit_code, result.stderr) == (0, "")
        first, after = (VideoDiffusion.load(path).modules.state_dict() for path in (weights, tmp_path / "more" / WEIGHTS))
        for name, value in first.items():
            torch.testing.assert_close(after[name], value, rtol=2**-9, atol=1e-6)
        (loss,) = losses_of(tmp_path / "more").values()
        vdiff("train", tmp_path / "untrained", *QUICK, "--steps", 1)
        assert loss != losses_of(tmp_path / "untrained")[1]

    def test_goes_on_without_it(self, finished, vdiff, refused, tmp_path):
        arguments = ("--init", finished[0] / WEIGHTS, "--batch", 2, "--sample-every", 0)
        vdiff("train", tmp_path / "more", *arguments, "--steps", 1)
        line = refused("train", tmp_path / "more", *arguments, "--steps", 2)
        given = f"vdiff: --init is given, and the run in {tmp_path / 'more'} has begun"
        assert line == f"{given}; expected a new folder, or no --init to go on"
        assert vdiff("train", tmp_path / "more", "--steps", 2, "--sample-every", 0).exit_code == 0

    def test_another_shape_is_refused(self, finished, refused, tmp_path):
        line = refused("train", tmp_path / "more", "--init", finished[0] / WEIGHTS, "--num-frames", 3)
        assert line == "vdiff: --num-frames is 3; expected 2, as the model of --init has, or none"
        assert os.listdir(tmp_path) == []

    def test_another_kind_of_model(self, finished, refused, tmp_path):
        model = VideoDiffusion.load(finished[0] / WEIGHTS)
        model.space.scale = 2.0
        model.save(tmp_path / "other.safetensors")
        line = refused("train", tmp_path / "more", "--init", tmp_path / "other.safetensors")
        assert line.startswith("vdiff: --init: the weights to begin from are of another kind of model (pixel_scale); expected")

    @pytest.mark.parametrize("content, line", [(None, "no such file"), (b"", "not a whole safetensors file")])
    def test_no_weights(self, refused, tmp_path, content, line):
        file = tmp_path / "weights.safetensors"
        if content is not None:
            file.write_bytes(content)
        assert refused("train", tmp_path / "more", "--init", file).startswith(f"vdiff: --init: weights {str(file)!r}: {line}")
        assert not (tmp_path / "more").exists()


def test_samples_are_a_grid_of_the_averaged_model(tmp_path, monkeypatch):
    settings = TrainSettings(num_frames=2, size=24, widths=(16,), head_dim=8, patch=4, blocks=1)
    trainer = Trainer(settings, tmp_path, command.digits(settings))
    models, clips = [], torch.rand(8, 1, 2, 24, 24)
    monkeypatch.setattr(VideoDiffusion, "sample", lambda self, prompts, generator: (models.append(self.modules), clips)[1])
    command.write_samples(trainer)
    assert models == [trainer.average]
    frames = iio.imread(tmp_path / "samples.gif", mode="L")
    assert frames.shape == (2, 49 * 5, 99 * 5)  # two rows of four clips, 24 pixels to 120
    assert abs(frames[1, 25 * 5, 75 * 5] - clips[7, 0, 1, 0, 0] * 255) <= 1


@pytest.mark.parametrize("every, written", [(0, []), (2, [2, 3]), (1, [1, 2, 3])])
def test_samples_at_every_nth_checkpoint_and_the_last(vdiff, tmp_path, monkeypatch, every, written):
    steps = []
    monkeypatch.setattr(command, "write_samples", lambda trainer: steps.append(trainer.step))
    vdiff("train", tmp_path, *SMALL, "--steps", 3, "--checkpoint-seconds", 0, "--sample-every", every)
    assert steps == written


REFUSED = {
    "steps": (["--steps", "0"], "--steps is '0'; expected a whole number from 1 to"),
    "batch": (["--batch", "many"], "--batch is 'many'; expected a whole number from 1"),
    "lr nan": (["--lr", "nan"], "--lr is 'nan'; expected a number from 1e-08 to 1.0"),
    "lr": (["--lr", "0"], "--lr is '0'; expected a number from 1e-08"),
    "seed": (["--seed=-1"], "--seed is '-1'; expected a whole number from 0"),
    "null rate": (["--null-rate", "1.5"], "--null-rate is '1.5'; expected a number from 0.0 to 1.0"),
    "weighting": (["--weighting", "l2"], "--weighting is 'l2'; expected one of 'v', 'x', 'noise', 'min_snr'"),
    "no width": (["--widths", "64,"], "--widths is '64,'; expected channels of each level with commas between, such as 64,128"),
    "width of half a head": (["--widths", "64,30"], "--widths is 64,30; expected multiples of 32, the --head-dim"),
    "width of the group norms": (["--widths", "12", "--head-dim", "4"], ""),
    "size": (["--size", "36"], "--size is 36; expected a multiple of 8, for --patch 2 and 3 --widths"),
    "size for the digits": (["--size", "16"], "MovingDigits: num_frames is 16, size 16"),
    "backend": (["--backend", "gpu"], "--backend is 'gpu'; expected one of"),
    "checkpoints": (["--checkpoint-seconds", "nan"], "--checkpoint-seconds is 'nan'; expected a number from 0.0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(refused, tmp_path, case):
    arguments, line = REFUSED[case]
    assert refused("train", tmp_path / "new", *arguments).startswith(f"vdiff: {line}")
    assert os.listdir(tmp_path) == []


class TestFolder:
    def test_a_file(self, refused, tmp_path):
        (tmp_path / "a").write_bytes(b"old")
        assert refused("train", tmp_path / "a") == f"vdiff: FOLDER: '{tmp_path}/a' is a file; expected a folder, or a new name"
        assert (tmp_path / "a").read_bytes() == b"old"

    def test_nowhere(self, refused, tmp_path):
        line = refused("train", tmp_path / "nowhere" / "new")
        assert line.startswith(f"vdiff: FOLDER: '{tmp_path}/nowhere/new': no folder '{tmp_path}/nowhere'; expected one in which")

    def test_read_only(self, refused, tmp_path, monkeypatch):
        def refuse(*args, **kwargs):
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr("tempfile.TemporaryFile", refuse)
        line = refused("train", tmp_path)
        assert line == f"vdiff: FOLDER: '{tmp_path}' cannot be written (Read-only file system); expected a writable folder"


def test_a_full_disk(vdiff, folder):
    """The weights still fit, the state does not: what stood before stays, and goes on."""
    before = contents(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * len(before[WEIGHTS]), limits[1]))  # Python ignores the signal of it
    try:
        result = vdiff("train", folder, "--steps", 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"vdiff: FOLDER {str(folder)!r} cannot be written (") and line.endswith("; it has step 2")
    after = contents(folder)
    assert after.keys() == before.keys() and after[STATE] == before[STATE]
    assert vdiff("train", folder, "--steps", 3, "--sample-every", 0).exit_code == 0


def test_a_reader_that_has_gone(vdiff, folder, monkeypatch):
    """`vdiff train | head` is not a folder that cannot be written."""

    def gone(*args, **options):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(command.typer, "echo", gone)
    result = vdiff("train", folder, "--steps", 3, "--sample-every", 0)
    assert (result.exit_code, result.stderr) == (1, "")


def test_a_loss_that_is_no_number(vdiff, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "_take_step", lambda self: torch.nan)
    result = vdiff("train", tmp_path, *QUICK, "--lr", 1)
    assert (result.exit_code, os.listdir(tmp_path)) == (2, [])
    assert result.stderr == "vdiff: --lr is 1.0, and the loss nan at step 0; expected a lower one\n"


def test_the_line_on_a_terminal_is_written_over(capsys, monkeypatch):
    trainer = type("", (), dict(step=0, settings=TrainSettings(steps=2, batch=8), losses=[(1, 0.5)]))()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    progress = command.Progress(trainer)
    progress.shown -= 1
    progress(1, 0.5)
    assert progress.line == ""
    progress.end()
    text = capsys.readouterr().out
    assert text.startswith("\rstep 1/2  loss 0.5000  ") and text.count("\r") == 1 and text.endswith(" min left\033[K\n")


def test_without_the_digits(refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert refused("train", tmp_path) == "vdiff: MovingDigits needs scikit-learn, for its digits: pip install scikit-learn"
