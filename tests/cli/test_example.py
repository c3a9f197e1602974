"""The example does what it says, on a model small enough for a test."""

import functools
import os
import runpy
from pathlib import Path

import imageio.v3 as iio

from vdiff_kernels.diffusion import trainer

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_moving_digits.py"


def test_train_moving_digits(tmp_path, monkeypatch, capsys):
    small = dict(batch=1, num_frames=2, size=24, widths=(16,), head_dim=8, patch=4, blocks=1)
    settings = functools.partial(trainer.TrainSettings, **small)
    monkeypatch.setattr(trainer, "TrainSettings", lambda steps: settings(steps=10))
    monkeypatch.setattr("sys.argv", [str(EXAMPLE), str(tmp_path / "run")])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert sorted(os.listdir(tmp_path / "run")) == ["clips.gif", "loss.csv", "state.safetensors", "weights.safetensors"]
    assert iio.imread(tmp_path / "run" / "clips.gif", mode="L").shape == (2, 49 * 4, 49 * 4)
    assert capsys.readouterr().out.startswith("step 10: loss 0.")
