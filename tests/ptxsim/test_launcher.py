"""C++ launchers on the stand-in for the CUDA runtime: what they launch is simulated, what a GPU refuses is refused."""

from pathlib import Path

import pytest
import torch

from tests.ptxsim import Struct, empty
from tests.ptxsim.fixtures import compiled_launchers

COUNT = 100


@pytest.fixture(scope="module")
def launchers():
    return compiled_launchers(Path(__file__).parent / "kernels" / "launchers.cu")


def params(out, value=1.5):
    return Struct("<Qqf4x", out, COUNT, value)


def call(launchers, function, *arguments, memory=(), **options):
    """The reports of the launches that the function makes."""
    reports = []

    def run(kernel, grid, block, args, shared_bytes):
        reports.append(kernel.launch(grid, block, args, shared_bytes, memory=memory, **options))

    with launchers.simulated(run):
        launchers.call(function, *arguments)
    return reports


def test_every_launch_runs_in_order_with_its_own_arguments(launchers):
    out = empty(COUNT)
    reports = call(launchers, "launch_fill", params(out), 32, memory=(out,))
    assert [report.kernel for report in reports] == ["_ZN9launchers4fillENS_6ParamsEf"] * 2
    assert torch.equal(out, torch.full((COUNT,), 3.5))


def test_an_integer_comes_back(launchers):
    assert launchers.call("blocks_of", params(empty(COUNT)), 32) == 4


def test_simulate_holds_each_launch(simulate, launchers):
    out = empty(COUNT)
    assert len(simulate.launcher(launchers, "launch_fill", params(out), 64)) == 2


def test_a_slice_of_the_grid(launchers):
    out = empty(COUNT)
    call(launchers, "launch_fill", params(out), 32, memory=(out,), blocks=(1, 2))
    assert out.isnan().tolist() == [True] * 32 + [False] * 64 + [True] * 4


def test_a_finding_comes_through_the_launcher(launchers):
    short = torch.zeros(COUNT - 1)

    def run(kernel, grid, block, args, shared_bytes):
        kernel.launch(grid, block, args, shared_bytes, memory=(short,)).assert_clean()

    with pytest.raises(AssertionError, match="out of bounds"), launchers.simulated(run):
        launchers.call("launch_fill", params(short), 32)


@pytest.mark.parametrize(
    "bytes_, asked, answer",
    [
        (48 << 10, 0, None),
        ((48 << 10) + 4, 0, "cudaErrorInvalidValue"),
        (80 << 10, 80 << 10, None),
        ((80 << 10) + 4, 80 << 10, "cudaErrorInvalidValue"),
        (99 << 10, 100 << 10, "cudaErrorInvalidValue"),
    ],
)
def test_shared_memory_must_be_asked_for_and_be_there(launchers, bytes_, asked, answer):
    launchers = type(launchers)([launchers.units[0].source])  # what a kernel was allowed stays with it
    out = empty(COUNT)
    if answer is None:
        call(launchers, "launch_with_shared", params(out), bytes_, asked, memory=(out,))
    else:
        with pytest.raises(RuntimeError, match=answer):
            call(launchers, "launch_with_shared", params(out), bytes_, asked, memory=(out,))


@pytest.mark.parametrize("blocks, threads", [(0, 32), (1 << 31, 32), (1, 0), (1, 1025)])
def test_no_grid_that_a_gpu_has_not(launchers, blocks, threads):
    with pytest.raises(RuntimeError, match="cudaErrorInvalidConfiguration"):
        call(launchers, "launch_grid", torch.zeros(64), blocks, threads)


def test_no_more_threads_than_the_kernel_was_made_for(launchers):
    with pytest.raises(ValueError, match="expected at most 64 threads"):
        call(launchers, "launch_grid", torch.zeros(64), 1, 96)


@pytest.mark.parametrize("name, count", [("twin", 2), ("absent", 0)])
def test_a_name_must_be_of_one_function(launchers, name, count):
    with pytest.raises(KeyError, match=f"{count} functions are called '{name}'"):
        launchers.call(name)
