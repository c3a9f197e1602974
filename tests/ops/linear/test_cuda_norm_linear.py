"""The CUDA kernels of norm_linear as nvcc compiles them, simulated: forward and every gradient of the hostile cases within the
budget, clean, the same for every interleaving, and no worse than their golden counts."""

import pytest
import torch

from tests.ops.far import far, last_block_of, nearly, zeros
from tests.ptxsim.fixtures import clean_run
from tests.ptxsim.golden import Golden, owner_of
from tests.ptxsim.launcher import plain_name
from vdiff_kernels.ops.linear.reference import norm_linear
from vdiff_kernels.ops.norm.call import Norm
from vdiff_kernels.verify.cases import LINEAR_CASES
from vdiff_kernels.verify.check import check
from vdiff_kernels.verify.inputs import LinearCase

from .simulated import SimulatedLinear, launchers, simulated_by_default

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CASES = [
    *LINEAR_CASES,
    # Rows of whole 16 bytes, of everything there is: a tile that two clips share, several of outputs, and parts of k of dh.
    LinearCase("wide", norm="layer", B=2, T=2, H=3, W=7, C=136, Co=520, modulated=True, pos_emb=True, gate=True, residual=True),
    # Parts of k of each clip; the runs of a frame's sums.
    LinearCase("parts", B=2, T=1, H=33, W=16, C=32, Co=8, groups=4, pos_emb=True, gate=True),
    LinearCase("parts-of-clips", norm="rms", B=2, T=3, H=15, W=16, C=40, Co=8, bias=False),
    LinearCase("odd-plain", norm=None, C=9, Co=5, W=2),
    LinearCase("odd-group", C=6, groups=2, Co=5, W=2),
    LinearCase("wide-plain", norm=None, B=2, T=2, H=3, W=7, C=72, Co=40),
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
    """By a test of this file, norms aside, which have their own: but for the moments of pixels, which are for this family."""
    units = [unit for unit in launchers().units if "linear" in unit.source.parts or "numbers" in unit.source.stem]
    shipped = {plain_name(name) for unit in units for name in unit.kernel_names}
    ran = {case.removeprefix(owner_of(case)).strip() for case in Golden("cuda_norm_linear").cases}
    assert shipped <= ran, f"never run: {sorted(shipped - ran)}"


# ------------------------------------------------------------------------------------------------------------------- by hand

NONE = ("none", None, None, 0, 0.0, "frame", None, None, "none", None)
LAYER = ("layer", None, None, 0, 1e-5, "frame", None, None, "none", None)
GROUP = ("group", None, None, 4, 1e-5, "frame", None, None, "none", None)
NORMS = pytest.mark.parametrize("norm", [NONE, LAYER, GROUP], ids=["none", "layer", "group"])


def test_what_is_not_there_is_not_launched():
    x, weight, grad_out = torch.randn(1, 2, 3, 4, 8), torch.randn(16, 8), torch.randn(1, 2, 3, 4, 16)
    assert kernels_of(clean_run(0), NONE, x, weight, grad_out, need=(True, True)) == [
        "norm_linear_fwd_kernel", "norm_linear_dweight_kernel", "norm_linear_dh_kernel",
    ]  # fmt: skip
    assert kernels_of(clean_run(0), LAYER, x, weight, grad_out, need=(False, True)) == [
        "norm_table_kernel", "pixel_moments_kernel", "norm_linear_fwd_kernel",
        "norm_table_kernel", "pixel_moments_kernel", "norm_linear_dweight_kernel",
    ]  # fmt: skip
    assert kernels_of(clean_run(0), NONE, x, weight, grad_out, need=(True, False)) == [
        "norm_linear_fwd_kernel", "norm_linear_dh_kernel",
    ]  # fmt: skip


def kernels_of(run, norm, x, weight, grad_out, need):
    kernels = SimulatedLinear(run)
    kernels.forward(x, weight, None, *norm, None, None, None)
    reports = list(kernels.reports)
    kernels.backward(grad_out, x, weight, None, *norm, None, None, *need)
    return [plain_name(report.kernel).partition("<")[0] for report in (*reports, *kernels.reports)]


@pytest.mark.parametrize("kind", ["layer", "group"])
def test_memory_is_touched_once(kind):
    """Unique sectors and wavefronts of a projection of Stable Diffusion's, beside their floors."""
    M, C, Co = 512, 320, 960
    x, weight, bias = torch.randn(1, 1, 16, 32, C).bfloat16(), (torch.randn(Co, C) / C**0.5).bfloat16(), torch.randn(Co)
    norm, reference = (kind, *LAYER[1:]), Norm(kind)
    if kind == "group":
        norm, reference = ("group", None, None, 32, *LAYER[4:]), Norm("group", groups=32)
    kernels = SimulatedLinear(clean_run(0))
    out = kernels.forward(x, weight, bias, *norm, None, None, None)
    expected = norm_linear(x.double(), weight.double(), bias.double(), norm=reference)
    torch.testing.assert_close(out.double(), expected, rtol=0.02, atol=0.02)
    counts = kernels.reports[-1].counts
    of_norm = 4 * (3 * C + (2 * M if kind == "layer" else 0))
    assert counts.unique_read_sectors * 32 <= 1.1 * (2 * (x.numel() + weight.numel()) + 4 * bias.numel() + of_norm)
    assert counts.unique_written_sectors * 32 <= 1.1 * 2 * M * Co
    assert counts.total.wavefronts <= 1.1 * counts.total.ideal_wavefronts


@NORMS
@pytest.mark.parametrize("shift", [1, 2, 8])
@pytest.mark.parametrize("name", ["x", "weight", "residual", "grad_out"])
def test_operands_that_begin_anywhere(name, shift, norm):
    """What one copy moves follows from where each operand lies: 2, 4 or 16 bytes."""
    shapes = {"x": (2, 1, 3, 3, 40), "weight": (24, 40), "residual": (2, 1, 3, 3, 24), "grad_out": (2, 1, 3, 3, 24)}
    tensors = {name: (torch.randn(shape) / 3).bfloat16() for name, shape in shapes.items()}
    vectors = dict(gate=torch.randn(2, 24), pos_emb=torch.randn(1, 40))
    expected = both(clean_run(), norm, **tensors, **vectors)
    *outer, columns = shapes[name]
    whole = torch.full((*outer, columns + 16), torch.nan).bfloat16()
    whole[..., shift : shift + columns] = tensors[name]
    actual = both(clean_run(), norm, **tensors | {name: whole[..., shift : shift + columns]}, **vectors)
    assert all(torch.equal(a, b) for a, b in zip(actual, expected))


@NORMS
@pytest.mark.parametrize("B, T, H, C, Co", [(0, 2, 2, 8, 4), (2, 0, 2, 8, 4), (2, 2, 0, 8, 4), (2, 2, 2, 8, 0)])
def test_nothing_of_a_dimension(B, T, H, C, Co, norm):
    x, residual, grad_out = (torch.randn(B, T, H, 3, channels) for channels in (C, Co, Co))
    weight, bias, pos_emb, gate = torch.randn(Co, C), torch.randn(Co), torch.randn(T, C), torch.randn(B, Co)
    results = both(clean_run(), norm, grad_out, x, weight, bias, pos_emb=pos_emb, gate=gate, residual=residual)
    leaves = [t.double().requires_grad_() for t in (x, weight, bias, gate, pos_emb)]
    kind, groups = norm[0], norm[3] or None
    expected = norm_linear(
        *leaves[:3], norm=None if kind == "none" or x.numel() == 0 else Norm(kind, groups=groups),
        gate=leaves[3], pos_emb=leaves[4], residual=residual.double(),
    )  # fmt: skip
    gradients = torch.autograd.grad(expected, leaves, grad_out.double(), allow_unused=True)
    for actual, right, leaf in zip(results, (expected, *gradients), (expected, *leaves)):
        right = torch.zeros_like(leaf) if right is None else right
        torch.testing.assert_close(actual.double().reshape(right.shape), right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", [NONE, LAYER], ids=["none", "layer"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_in_its_pixel(dtype, norm):
    x, weight, bias = torch.randn(1, 1, 1, 40, 24).to(DTYPES[dtype]), torch.randn(48, 24).to(DTYPES[dtype]), torch.randn(48)
    kernels = SimulatedLinear(clean_run())
    clean = kernels.forward(x, weight, bias, *norm, None, None, None)[0, 0, 0]
    x[..., 17, :] = torch.nan
    spoiled = kernels.forward(x, weight, bias, *norm, None, None, None)[0, 0, 0]
    assert spoiled[17].isnan().all()
    assert torch.equal(spoiled[torch.arange(40) != 17], clean[torch.arange(40) != 17])


# -------------------------------------------------------------------------------------------------------------- far out


@pytest.mark.parametrize("norm", [NONE, LAYER], ids=["none", "layer"])
def test_rows_and_results_past_2_to_the_31(norm):
    """All operands, out and dx end that far from where they begin; all but their last rows are zeros."""
    M, C, Co = 33_600_000, 72, 80
    x, residual, grad_out, weight = images(M, C), images(M, Co), images(M, Co), far(Co, C)
    last = (slice(None),) * 3 + (slice(-8, None),)
    x[last], residual[last], grad_out[last] = torch.randn(8, C), torch.randn(8, Co), torch.randn(8, Co)
    weight[:] = torch.randn(Co, C) / C**0.5
    run = last_block_of("moments", "norm_linear_fwd", "norm_linear_dh", "norm_table")
    kernels = SimulatedLinear(run, zeros)
    out = kernels.forward(x, weight, None, *norm, None, None, residual)
    leaf = x[last].double().requires_grad_()
    expected = norm_linear(leaf, weight.double(), norm=None if norm is NONE else Norm("layer"), residual=residual[last].double())
    nearly(out[last], expected.detach())
    if norm is NONE:
        dx, *_ = kernels.backward(grad_out, x, weight, None, *norm, None, None, True, False)
        nearly(dx[last], torch.autograd.grad(expected, leaf, grad_out[last].double())[0])


@pytest.mark.parametrize("with_gate", [False, True])
@pytest.mark.parametrize("M, C, Co", [(16_400, 8, 131_072), (8, 8_256, 262_200)])
def test_dweight_past_2_to_the_31(M, C, Co, with_gate):
    """grad and x, or dweight and its parts, end that far from where they begin."""
    x, grad_out, weight = images(M, C), images(M, Co), zeros(Co, C, dtype=torch.bfloat16)
    last = (slice(None),) * 3 + (slice(-8, None),)
    x[last], grad_out[last][..., -8:] = torch.randn(8, C), torch.randn(8, 8)
    gate = None
    if with_gate:
        gate = torch.zeros(1, Co)
        gate[:, -8:] = torch.randn(8)
    kernels = SimulatedLinear(last_block_of("norm_linear_dweight", "norm_linear_gates"), zeros)
    dweight = kernels.backward(grad_out, x, weight, None, *NONE, None, gate, False, True)[1]
    expected = grad_out[last][..., -8:].double().flatten(0, 3).T @ x[last].double().flatten(0, 3)
    # Of channels those of the last tile alone have been summed; of a gate's outputs the last alone.
    rows, columns = (1 if with_gate else 8), C % 128 or C
    expected = expected if gate is None else gate[0, -8:, None].double() * expected
    nearly(dweight[-rows:, -columns:], expected[-rows:, -columns:])


def images(M, C):
    """(1, 1, 1, M, C)"""
    return far(M, C)[None, None, None]


def both(run, norm, grad_out, x, weight, bias=None, pos_emb=None, gate=None, residual=None):
    """(out, dx, dweight, dbias, dgate, dpos_emb, ...)"""
    kernels = SimulatedLinear(run)
    out = kernels.forward(x, weight, bias, *norm, pos_emb, gate, residual)
    return out, *kernels.backward(grad_out, x, weight, bias, *norm, pos_emb, gate, True, True)
