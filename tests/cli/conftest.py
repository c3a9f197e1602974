import pytest
import torch
from typer.testing import CliRunner

from vdiff_kernels.cli.app import app
from vdiff_kernels.data.moving_digits import VOCABULARY
from vdiff_kernels.diffusion import VideoDiffusion
from vdiff_kernels.diffusion.trainer import TrainSettings


def tiny(num_frames: int = 4) -> VideoDiffusion:
    """A model of 16 x 16 pixels with random weights, so that no zero of its initialisation hides a mistake."""
    model = TrainSettings(num_frames=num_frames, size=16, widths=(16,), head_dim=8, patch=4, blocks=1).pipeline(VOCABULARY)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.modules.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    return model


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file of it."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    tiny().save(path)
    return path


def run_vdiff(*arguments):
    """The command line in this process: run_vdiff("sample", "a seven", ...)."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="vdiff")


@pytest.fixture
def vdiff():
    return run_vdiff


@pytest.fixture
def refused(vdiff):
    """Runs what must be refused: exit code 2 and one line on stderr, which it returns, and nothing else."""

    def run(*arguments) -> str:
        result = vdiff(*arguments)
        assert result.exit_code == 2, (result.output, result.exception)
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        return line

    return run
