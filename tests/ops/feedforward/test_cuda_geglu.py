"""The CUDA GEGLU kernels as nvcc compiles them, simulated: forward and every gradient of the hostile cases within the budget,
clean, the same for every interleaving, and no worse than their golden counts."""

import pytest
import torch

from tests import ptxsim
from tests.ops.far import far, last_block_of, nearly, zeros
from tests.ptxsim.fixtures import clean_run
from tests.ptxsim.golden import Golden, owner_of
from tests.ptxsim.launcher import plain_name
from vdiff_kernels.ops.feedforward.reference import geglu
from vdiff_kernels.verify.cases import GEGLU_CASES
from vdiff_kernels.verify.check import check
from vdiff_kernels.verify.inputs import GegluCase

from .simulated import SimulatedKernels, launchers, simulated_by_default

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CASES = [
    *GEGLU_CASES,
    # Rows of whole 16 bytes: a second tile of each dimension, and more chunks than stages.
    GegluCase("wide", (132, 136), E=72, bias=False),
    # Of whole 4 bytes; k of dx in parts.
    GegluCase("even", (4, 70), E=258),
]


@pytest.fixture
def simulated(simulate):
    """The public operator runs the CUDA kernels in the simulator."""
    with simulated_by_default(simulate.launcher):
        yield


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_every_gradient(case, dtype, simulated):
    check(case, DTYPES[dtype])


def test_every_kernel_that_ships_was_run():
    shipped = {plain_name(name) for unit in launchers().units for name in unit.kernel_names}
    ran = {case.removeprefix(owner_of(case)).strip() for case in Golden("cuda_geglu").cases}
    assert shipped <= ran, f"never run: {sorted(shipped - ran)}"


def test_memory_is_touched_once(simulate):
    """Unique sectors and wavefronts of a layer of Stable Diffusion's, beside their floors."""
    M, C, E = 512, 320, 1280
    x, weight, bias = torch.randn(M, C).bfloat16(), (torch.randn(2 * E, C) / C**0.5).bfloat16(), torch.randn(2 * E)
    kernels = SimulatedKernels(lambda *arguments: simulate.launcher(*arguments, seeds=0))
    torch.testing.assert_close(kernels.geglu(x, weight, bias).double(), exact(x, weight, bias), rtol=0.01, atol=0.01)
    counts = kernels.reports[0].counts
    assert counts.unique_read_sectors * 32 <= 1.1 * (2 * (x.numel() + weight.numel()) + 4 * bias.numel())
    assert counts.unique_written_sectors * 32 <= 1.1 * 2 * M * E
    assert counts.total.wavefronts <= 1.1 * counts.total.ideal_wavefronts


@pytest.mark.parametrize("shift", [1, 2, 8])
@pytest.mark.parametrize("name", ["x", "weight", "grad_out"])
def test_operands_that_begin_anywhere(name, shift):
    """What one copy moves follows from where each operand lies: 2, 4 or 16 bytes."""
    M, C, E = 9, 40, 24
    tensors = {"grad_out": torch.randn(M, E), "x": torch.randn(M, C), "weight": torch.randn(2 * E, C) / 6}
    tensors = {name: t.bfloat16() for name, t in tensors.items()}
    expected = both(clean_run(), **tensors)
    whole = torch.full((tensors[name].shape[0], tensors[name].shape[1] + 16), torch.nan).bfloat16()
    whole[:, shift : shift + tensors[name].shape[1]] = tensors[name]
    actual = both(clean_run(), **tensors | {name: whole[:, shift : shift + tensors[name].shape[1]]})
    assert all(torch.equal(a, b) for a, b in zip(actual, expected))


def test_rows_of_any_strides():
    """An x whose rows are one, a weight that lies transposed."""
    row, weight = torch.randn(1, 40).bfloat16(), (torch.randn(40, 48) / 6).bfloat16().T
    grad_out = torch.randn(9, 24).bfloat16()
    operands = (row.expand(9, 40), weight), (row.repeat(9, 1), weight.contiguous())
    results = [both(clean_run(), grad_out, *both_operands) for both_operands in operands]
    assert all(torch.equal(a, b) for a, b in zip(*results))


@pytest.mark.parametrize("M, C, E", [(0, 8, 4), (3, 0, 4), (3, 8, 0)])
def test_nothing_of_a_dimension(M, C, E):
    tensors = torch.randn(M, E), torch.randn(M, C), torch.randn(2 * E, C), torch.randn(2 * E)
    leaves = [t.double().requires_grad_() for t in tensors[1:]]
    expected = geglu(*leaves)
    for a, b in zip(both(clean_run(), *tensors), (expected, *torch.autograd.grad(expected, leaves, tensors[0].double()))):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_in_its_row(dtype):
    x, weight, bias = torch.randn(40, 24), torch.randn(48, 24), torch.randn(48)
    x, weight = x.to(DTYPES[dtype]), weight.to(DTYPES[dtype])
    kernels = SimulatedKernels(clean_run())
    clean = kernels.geglu(x, weight, bias)
    x[17] = torch.nan
    spoiled = kernels.geglu(x, weight, bias)
    assert spoiled[17].isnan().all()
    assert torch.equal(spoiled[torch.arange(40) != 17], clean[torch.arange(40) != 17])


# -------------------------------------------------------------------------------------------------------------- far out


@pytest.mark.parametrize("M, C, E, result", [(33_600_000, 72, 32, "dx"), (16_400, 8, 65_536, "dweight")])
def test_rows_past_2_to_the_31(M, C, E, result):
    """x, weight, grad_out and [da | db] end that far from where they begin; all but their last rows and columns are zeros."""
    grad_out, x, weight = far(M, E), far(M, C), far(2 * E, C)
    x[-16:], grad_out[-16:, -32:] = torch.randn(16, C), torch.randn(16, 32)
    weight[E - 32 : E], weight[-32:] = torch.randn(2, 32, C) / C**0.5
    out, dx, dweight, _ = both(last_block_of("fwd", "gates", result), grad_out, x, weight, outputs=zeros)
    expected = gradients(x[-16:], torch.cat((weight[E - 32 : E], weight[-32:])), grad_out[-16:, -32:])
    nearly(out[-16:, -32:], expected[0])
    nearly(dx[-16:], expected[1]) if result == "dx" else nearly(dweight[-32:], expected[2][32:])


@pytest.mark.parametrize(
    "M, C, E, result", [(262_200, 8, 8_256, "fwd"), (262_200, 8_256, 4, "dx"), (8, 8_256, 131_100, "dweight")]
)
def test_results_past_2_to_the_31(M, C, E, result):
    x, weight, grad_out = (zeros(*shape, dtype=torch.bfloat16) for shape in ((M, C), (2 * E, C), (M, E)))
    x[-8:], grad_out[-8:, -4:] = torch.randn(8, C), torch.randn(8, 4)
    weight[E - 4 : E], weight[-4:] = torch.randn(2, 4, C) / C**0.5
    results = both(last_block_of("gates", result), grad_out, x, weight, outputs=zeros)
    expected = gradients(x[-8:], torch.cat((weight[E - 4 : E], weight[-4:])), grad_out[-8:, -4:])
    index = ("fwd", "dx", "dweight").index(result)
    rows, columns = (4, 64) if result == "dweight" else (8, 64 if result == "dx" else 4)
    nearly(results[index][-rows:, -columns:], expected[index][-rows:, -columns:])


def exact(x, weight, bias):
    return geglu(x.double(), weight.double(), None if bias is None else bias.double())


def gradients(x, weight, grad_out):
    leaves = [t.double().requires_grad_() for t in (x, weight)]
    out = geglu(*leaves, None)
    return out, *torch.autograd.grad(out, leaves, grad_out.double())


def both(run, grad_out, x, weight, bias=None, outputs=ptxsim.empty):
    """(out, dx, dweight, dbias)"""
    kernels = SimulatedKernels(run, outputs)
    return kernels.geglu(x, weight, bias), *kernels.geglu_backward(grad_out, x, weight, bias)
