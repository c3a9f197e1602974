"""`vdiff bench`: rows of every operator, no ratio of what is wrong, files whole, refusals in one line."""

import json

import pytest
import torch
from typer.testing import CliRunner

from vdiff_kernels.bench import attention, counting, layers, plots, results, suite
from vdiff_kernels.bench.contest import Contest, Setting
from vdiff_kernels.bench.presets import PRESETS, AttentionShape
from vdiff_kernels.bench.rooflines import Roofline, Work
from vdiff_kernels.cli import bench as command
from vdiff_kernels.cli.app import app

HERE = Setting(torch.device("cpu"), torch.float32)
ROOFLINE = Roofline(1e10, 1e11)


def vdiff(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


@pytest.fixture
def machine(monkeypatch):
    """Not measured: a roofline of 10 GB/s and 100 GFLOP/s."""
    monkeypatch.setattr(results, "machine_of", lambda setting: ("a machine", ROOFLINE))


def test_every_operator_of_a_preset_has_a_row(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "ROUNDS", 2)
    files = {kind: tmp_path / f"b.{kind}" for kind in ("json", "md", "png")}
    done = vdiff("--json", files["json"], "--markdown", files["md"], "--plot", files["png"], "--direction", "fwd")
    assert done.exit_code == 0, done.output
    rows = json.loads(files["json"].read_text())["rows"]
    ran = {row["operator"] for row in rows if "us" in row}
    assert ran == set(suite.OPERATORS) - {"AnimateDiffTransformer3D", "UNetMotionModel"} and {row["preset"] for row in rows} == {
        "tiny"
    }
    assert all(row["ratio"] > 0 and not row["wrong"] and row["error"] < 1e-3 for row in rows if "us" in row)
    assert {row["rival"] for row in rows if row["operator"] == "temporal_attention"} == {
        "vdiff",
        "eager",
        "SDPA flash",
        "SDPA math",
    }
    assert files["md"].read_text().count("| norm_act_conv ") == 2
    assert files["png"].read_bytes().startswith(b"\x89PNG")


def contest(**rivals) -> Contest:
    def make(value):
        return lambda i: torch.full((4,), value)

    calls = {name: make(value) for name, value in rivals.items()}
    return Contest("a row", "row", False, calls, 1, lambda rival, out: (out - 1).abs().max().item(), Work(80, 8))


def plan(made: Contest) -> suite.Planned:
    return suite.Planned("tiny", "row", "a row", lambda: made)


def test_of_a_wrong_result_no_ratio_is_made():
    outcome = results.measured(plan(contest(vdiff=1.0, eager=1.1, SDPA=1.0)), HERE, ("eager", "sdpa"), 2)
    assert outcome.ratio("eager") is None and outcome.ratio("SDPA") > 0
    line = results.line(outcome, ROOFLINE)
    assert "wrong, eager" in line and "x SDPA" in line
    ours = results.measured(plan(contest(vdiff=float("nan"), eager=1.0)), HERE, ("eager",), 2)
    assert ours.ratio("eager") is None and ours.share(ROOFLINE) is None and "vdiff WRONG" in results.line(ours, ROOFLINE)


def test_what_is_wrong_of_ours_is_exit_code_1(machine, monkeypatch):
    monkeypatch.setattr(suite, "planned", lambda *_: [plan(contest(vdiff=2.0, eager=1.0))])
    done = vdiff("--op", "geglu")
    assert done.exit_code == 1 and "wrong: a row" in done.output


def test_whatever_a_rival_raises_is_its_own_row(machine, monkeypatch):
    made = contest(vdiff=1.0, eager=1.0)

    def raises(i):
        raise RuntimeError("no kernel\nand more")

    made.rivals["SDPA flash"] = raises
    monkeypatch.setattr(suite, "planned", lambda *_: [plan(made)])
    done = vdiff("--op", "geglu")
    assert done.exit_code == 0 and "not run: SDPA flash: RuntimeError: no kernel" in done.output and "x eager" in done.output


def test_a_rival_that_takes_more_memory_than_there_is_is_not_begun(monkeypatch):
    shape = AttentionShape("SVD", "spatial", 1, 2, 6, 8, 5, 8)
    made = attention.contest(shape, HERE, False)
    monkeypatch.setattr(counting, "free_memory", lambda device: 3 * 4 * 2 * 5 * 48 * 48)  # what its scores take
    with pytest.raises(MemoryError, match="it takes 0 GiB; 0 are free"):
        made.rivals["eager"](0)
    assert made.error("vdiff", made.rivals["vdiff"](0)) < 1e-3


def test_inputs_that_do_not_fit_are_a_row():
    def beyond():
        raise MemoryError("48 GiB")

    outcome = results.measured(suite.Planned("tiny", "row", "a row", beyond), HERE, ("eager",), 2)
    assert "not run: MemoryError: 48 GiB" in results.line(outcome, ROOFLINE)
    assert "not run" in results.markdown([outcome], "a machine", ROOFLINE)


@pytest.mark.parametrize("arguments, words", [
    (("--preset", "imagen"), "--preset is 'imagen'; expected one of 'tiny'"),
    (("--op", "softmax"), "--op is 'softmax'; expected one of 'temporal_attention'"),
    (("--backend", "cuda"), "--backend is 'cuda', which cannot run here"),
    (("--device", "cuda"), "--device is 'cuda'; expected 'cpu'"),
    (("--json", "nowhere/b.json"), "--json is 'nowhere/b.json'; expected a file in a folder that exists"),
    (("--plot", "b.gif"), "--plot is 'b.gif'; expected a file that ends in .png"),
    (("--preset", "latte-256", "--op", "norm_act_conv"), "which latte-256 has not"),
])  # fmt: skip
def test_a_refusal_is_one_line(arguments, words, monkeypatch):
    monkeypatch.setattr(command, "run", lambda *_: pytest.fail("it began"))
    done = vdiff(*arguments)
    assert done.exit_code == 2 and words in done.output and done.output.count("\n") == 1


def test_presets_are_of_shapes_that_every_kind_of_contest_takes():
    """Their labels, without a tensor made."""
    plans = list(suite.planned(list(PRESETS), list(suite.OPERATORS), HERE, [False, True]))
    assert len({(one.preset, one.operator, one.label) for one in plans}) == len(plans) > 100
    assert {one.preset for one in plans} == set(PRESETS)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("kernel", ["1x3x3", "3x1x1"])
def test_all_rivals_of_a_convolution_agree(kernel, backward):
    """Gradients too: what is timed beside ours is the same computation."""
    made = layers.conv(PRESETS["tiny"].convs[0], kernel, HERE, backward)
    found = {name: call(0) for name, call in made.rivals.items() if name != layers.COMPILED}
    for name, tensors in found.items():
        for t, expected in zip(tensors, found["eager"], strict=True):
            torch.testing.assert_close(t, expected, rtol=1e-3, atol=1e-2, msg=name)


def test_times_are_drawn_against_frames_where_there_are_several():
    outcomes = [results.measured(plan(contest(vdiff=1.0, eager=1.0)), HERE, ("eager",), 2) for _ in range(2)]
    for one, T in zip(outcomes, (8, 16)):
        one.label = f"temporal B1 T{T} fwd"
    assert list(plots.by_frames(outcomes)) == ["temporal B1 fwd"]
    drawn = plots.figure(outcomes, "a machine", ROOFLINE)
    assert [ax.get_xlabel() for ax in drawn.subfigs[1].axes] == ["FLOP for a byte that must move", "frames"]
