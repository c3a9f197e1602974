"""`vdiff doctor`: which backend serves what and why not another, as text and as data, with nobody's path in it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vdiff_kernels
from vdiff_kernels import library
from vdiff_kernels.backends import registry
from vdiff_kernels.backends.backend import Availability
from vdiff_kernels.bench.presets import PRESETS
from vdiff_kernels.cli.app import app
from vdiff_kernels.verify import verdicts


def doctor(*arguments):
    return CliRunner().invoke(app, ["doctor", *arguments])


def test_it_fits_a_screen_and_says_who_serves_what():
    done = doctor()
    assert done.exit_code == 0 and len(done.output.splitlines()) < 45
    assert f"vdiff_kernels {vdiff_kernels.__version__}" in done.output and f"{library.instruction_set()} kernels" in done.output
    for preset in PRESETS:
        assert any(line.split() == [preset, "cpu:", "everything"] for line in done.output.splitlines())
    assert str(Path.home()) not in done.output and str(Path(vdiff_kernels.__file__).parent) not in done.output


def test_a_backend_that_is_not_here_says_why(monkeypatch):
    monkeypatch.setattr(
        type(registry.BACKENDS["cpu"]), "availability", lambda self: Availability("cpu", False, "it was taken away")
    )
    monkeypatch.setattr(registry.BACKENDS["cpu"], "kernels", {})
    registry.forget()
    try:
        found = json.loads(doctor("--json").output)
    finally:
        monkeypatch.undo()
        registry.forget()
    assert found["backends"]["cpu"] == {"works": False, "reason": "it was taken away"}
    one = found["auto"]["presets"]["tiny"]["temporal_attention"]
    assert one["backend"] == "composed" and one["not"]["cpu"] == "it was taken away"


def test_for_a_gpu_that_is_not_here():
    found = json.loads(doctor("--json", "--device", "sm_90").output)["auto"]
    assert found["device"] == "sm_90" and found["dtype"] == "bfloat16"
    assert {one["backend"] for own in found["presets"].values() for one in own.values()} <= {"composed", "cuda", "triton"}
    wrong = doctor("--device", "tpu")
    assert wrong.exit_code == 2 and "device is 'tpu'; expected" in wrong.output and wrong.output.count("\n") == 1


@pytest.mark.parametrize("clear", [False, True])
def test_the_cache_is_told_and_cleared(monkeypatch, tmp_path, clear):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = verdicts.cache_file()
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cuda short": verdicts.RIGHT, "cuda long": "out: maximum error 3"}))
    done = doctor(*["--clear-cache"] * clear)
    assert done.exit_code == 0 and path.exists() is not clear
    assert ("0 of 0" if clear else "1 of 2") + " kernel variants right" in done.output
    assert ("wrong: cuda long: out: maximum error 3" in done.output) is not clear
