"""The CUDA kernels of norm_act as nvcc compiles them, simulated: forward and every gradient of the hostile cases within the
budget, clean, the same for every interleaving, and no worse than their golden counts."""

import pytest
import torch

import vdiff_kernels as vdiff
from tests.ptxsim.fixtures import clean_run
from tests.ptxsim.golden import Golden, owner_of
from tests.ptxsim.launcher import plain_name
from vdiff_kernels.ops.norm import reference
from vdiff_kernels.ops.tensors import acc_dtype
from vdiff_kernels.verify.cases import NORM_CASES
from vdiff_kernels.verify.check import check
from vdiff_kernels.verify.inputs import NormCase

from .simulated import SimulatedNorms, launchers, simulated_by_default

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# Beyond a block in every direction that is cut: pixels and channels of a block, threads of a pixel's team, warps of a group's.
TILE_CASES = [
    NormCase("group-tiles", T=1, H=27, W=19, C=136, groups=17, residual=True),
    NormCase("clips-of-frames", B=3, T=2, H=2, W=3, modulated=True, residual=True),
    NormCase("clip-tiles", B=2, T=2, H=5, W=7, C=72, groups=1, scope="clip", modulated=True),
    NormCase("group-part-of-a-piece", T=1, H=18, W=15, C=130, groups=2, residual=True),
    NormCase("many-frames", T=37, H=1, W=1, C=8),
    NormCase("layer-runs", norm="layer", T=2, H=20, W=13, C=40, residual=True),
    NormCase("layer-warps", norm="layer", B=2, T=1, H=1, W=3, C=1288, modulated=True, residual=True),
    NormCase("rms-part-of-a-piece", norm="rms", T=1, H=1, W=3, C=1027, residual=True),
    NormCase("layer-most", norm="layer", T=1, H=1, W=2, C=4096),
    NormCase("rms-most", norm="rms", T=1, H=1, W=2, C=4095),
]


@pytest.fixture
def simulated(simulate):
    """The public operator runs the CUDA kernels in the simulator."""
    with simulated_by_default(simulate.launcher):
        yield


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [*NORM_CASES, NormCase("odd-channels", B=2, C=10, groups=2, residual=True)], ids=str)
def test_forward_and_every_gradient(case, dtype, simulated):
    check(case, DTYPES[dtype])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", TILE_CASES, ids=str)
def test_edges_of_tiles(case, dtype):
    with simulated_by_default(clean_run((0, 1))):
        check(case, DTYPES[dtype])


GOLDEN = "cuda_norm_act", "cuda_channel_stats", "cuda_norm_linear"  # the last of them of the moments of pixels


def test_every_kernel_that_ships_was_run():
    """By a test of this file, of the statistics or of linear layers: its golden counts are no others'."""
    shipped = {plain_name(name) for unit in launchers().units for name in unit.kernel_names}
    golden = [case for name in GOLDEN for case in Golden(name).cases]
    ran = {case.removeprefix(owner_of(case)).strip().partition(" (")[0] for case in golden}
    assert shipped <= ran, f"never run: {sorted(shipped - ran)}"


# ----------------------------------------------------------------------------------------------------------- where things lie

GROUP = ("group", None, None, 4, 1e-5, "frame", None, None, "silu")
LAYER = ("layer", None, None, 0, 1e-5, "frame", None, None, "silu")
NONE = ("none", None, None, 0, 0.0, "frame", None, None, "silu")
NORMS = pytest.mark.parametrize("norm", [GROUP, LAYER, NONE], ids=["group", "layer", "none"])
B, T, H, W, C = 2, 3, 4, 5, 24


# Images (B, T, H, W, C) of unit stride over C, each by its own outer strides, out of memory of a shape.
LAYOUTS = {
    "frames of longer clips": ((B, 2 * T, H, W, C), lambda whole: whole[:, ::2]),
    "part of the pixels": ((B, T, 2 * H, W + 3, C), lambda whole: whole[:, :, 1::2, 2:-1]),
    "part of the channels": ((B, T, H, W, 3 * C), lambda whole: whole[..., C : 2 * C]),
    "an odd number of channels": ((B, T, H, W, C + 1), lambda whole: whole[..., 1:]),
    "odd pixels": ((B, T, H, 128), lambda whole: whole.as_strided((B, T, H, W, C), (T * H * 128, H * 128, 128, C + 1, 1))),
    "an odd address": ((B * T * H * W * C + 1,), lambda whole: whole[1:].view(B, T, H, W, C)),
    "other order": ((H, W, T, B, C), lambda whole: whole.permute(3, 2, 0, 1, 4)),
    "one clip for all": ((1, T, H, W, C), lambda whole: whole.expand(B, T, H, W, C)),
    "one row for all": ((C,), lambda whole: whole.expand(B, T, H, W, C)),
}


@NORMS
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_image_has_its_own_strides(layout, norm, dtype):
    """The bits are those of contiguous images: what is computed does not depend on how it is moved."""
    norms = SimulatedNorms(clean_run())
    x, other = torch.randn(2, B, T, H, W, C).to(DTYPES[dtype])
    shape, of_whole = LAYOUTS[layout]
    strided = of_whole(torch.randn(shape).to(DTYPES[dtype]))
    dense = strided.clone(memory_format=torch.contiguous_format)
    stats = norms.channel_stats(dense) if norm is GROUP else None

    def results(image):
        yield norms.forward(image, *norm, None, other)
        yield norms.forward(x, *norm, None, image)
        yield norms.backward(image, x, *norm, None)[0]
        yield norms.backward(other, image, *norm, stats)[0]

    for of_strided, of_dense in zip(results(strided), results(dense)):
        assert torch.equal(of_strided, of_dense)


@NORMS
def test_rows_of_pieces_of_channels_that_are_none(norm):
    """Of x and the residual every pixel is aligned, of out and dx it is not."""
    norms = SimulatedNorms(clean_run())
    x, other = torch.randn(2, 1, 1, 2, 3, 32).half()[..., :20]
    near_x, near_other = x.contiguous(), other.contiguous()
    assert torch.equal(norms.forward(x, *norm, None, other), norms.forward(near_x, *norm, None, near_other))
    assert torch.equal(norms.backward(other, x, *norm, None)[0], norms.backward(near_other, near_x, *norm, None)[0])


def test_given_statistics_are_used():
    norms = SimulatedNorms(clean_run())
    x = torch.randn(1, 2, 3, 5, 8)
    stats = torch.stack((torch.randn(1, 2, 8), torch.rand(1, 2, 8) + 0.5), -1)
    norm = vdiff.Norm("group", groups=4)
    out = norms.forward(x, *GROUP[:-1], "none", stats, None)
    torch.testing.assert_close(out, reference.normalize(x, norm, stats), rtol=1e-5, atol=1e-5)
    assert [report.kernel for report in norms.reports if "stats" in report.kernel] == []


@pytest.mark.parametrize("shape", [(0, 2, 3, 5, 8), (2, 0, 3, 5, 8), (2, 3, 0, 5, 8), (2, 3, 5, 0, 8)], ids=str)
@NORMS
def test_nothing(norm, shape):
    """No pixels: the parameters' gradients are zeros all the same."""
    kind, _, _, *rest = norm
    given = (torch.ones(8), torch.ones(8)) if kind != "none" else (None, None)
    norms = SimulatedNorms(clean_run())
    x = torch.empty(shape)
    assert norms.forward(x, kind, *given, *rest, None, None).shape == shape
    dx, dweight, dbias, _, _ = norms.backward(x, x, kind, *given, *rest, None)
    assert dx.shape == shape and not dweight.any() and not dbias.any()


# ------------------------------------------------------------------------------------------------------------------- far out

LAST = 2  # blocks of each launch that are run
ONE_GROUP = (*GROUP[:3], 1, *GROUP[4:])


@pytest.mark.parametrize("norm", [ONE_GROUP, LAYER, NONE], ids=["group", "layer", "none"])
def test_many_frames_and_offsets_past_2_to_the_31(norm):
    """The last blocks alone, of more frames than a grid has along y, and of more elements than 32 bits count."""
    T, H, W, C = 131_073, 16, 16, 64
    x, residual = (torch.empty(1, T, H, W, C, dtype=torch.bfloat16) for _ in range(2))
    assert x.numel() > 2**31
    for image in (x, residual):
        image[:, -2:] = torch.randn(1, 2, H, W, C)
    norms = SimulatedNorms(clean_run(last_blocks=LAST), outputs=torch.empty)
    stats = torch.empty(1, T, C, 2)
    stats[:, -2:] = reference.channel_stats(x[:, -2:].movedim(-1, 1))
    given = stats if norm[0] == "group" else None
    last = slice(-1, None)  # pixels of the last frame
    x_last = x[:, last].float().requires_grad_()
    expected = expected_of(norm, x_last)
    out = norms.forward(x, *norm, given, residual)
    nearly(out[:, last, -1, -8:], (expected + residual[:, last].float())[:, :, -1, -8:])
    grad_out = torch.randn(1, 1, H, W, C).bfloat16()
    (dx_expected,) = torch.autograd.grad(expected, x_last, grad_out.float())
    dx = norms.backward(grad_out.expand(1, T, H, W, C), x, *norm, given)[0]
    nearly(dx[:, last], dx_expected)


@NORMS
@pytest.mark.parametrize("far", ["b", "t", "h", "w"])
def test_steps_past_2_to_the_31(norm, far):
    """From one clip, frame, row or pixel to the next."""
    shape = {"b": (2, 1, 1, 2), "t": (1, 2, 1, 2), "h": (1, 1, 2, 2), "w": (1, 1, 1, 2)}[far] + (8,)
    step = 2**31 + 8
    strides = tuple(step if name == far else 8 if name == "w" else 16 for name in "bthw") + (1,)
    x, other = (torch.empty(step + 32, dtype=torch.float16).as_strided(shape, strides) for _ in range(2))
    for image in (x, other):
        image.copy_(torch.randn(shape))
    norms = SimulatedNorms(clean_run())
    stats = norms.channel_stats(x) if norm is GROUP else None
    near_x, near_other = x.contiguous(), other.contiguous()
    assert torch.equal(norms.forward(x, *norm, stats, other), norms.forward(near_x, *norm, None, near_other))
    assert torch.equal(norms.backward(other, x, *norm, stats)[0], norms.backward(near_other, near_x, *norm, None)[0])


@pytest.mark.parametrize("norm", [ONE_GROUP, LAYER, NONE], ids=["group", "layer", "none"])
def test_a_frame_past_2_to_the_31(norm):
    """Its last pixels alone. Of a group norm forward alone: its gradient is of all of them."""
    shape = H, W, C = 32_784, 1024, 64
    x, residual = (torch.empty(1, 1, *shape, dtype=torch.bfloat16) for _ in range(2))
    assert x.numel() > 2**31
    for image in (x, residual):
        image[:, :, -1] = torch.randn(W, C)
    norms = SimulatedNorms(clean_run(last_blocks=LAST), outputs=torch.empty)
    given = torch.stack((torch.zeros(1, 1, C), torch.ones(1, 1, C)), -1) if norm is ONE_GROUP else None
    last = x[:, :, -1:, -8:].float().requires_grad_()  # of these at the least
    expected = reference.activate(last / (1 + norm[4]) ** 0.5, norm[8]) if norm is ONE_GROUP else expected_of(norm, last)
    out = norms.forward(x, *norm, given, residual)
    nearly(out[:, :, -1:, -8:], expected + residual[:, :, -1:, -8:].float())
    if norm is not ONE_GROUP:
        grad_out = torch.randn(C).bfloat16().expand(x.shape)
        dx = norms.backward(grad_out, x, *norm, given)[0]
        nearly(dx[:, :, -1:, -8:], torch.autograd.grad(expected, last, grad_out[:, :, -1:, -8:].float())[0])


def expected_of(norm, x):
    kind, _, _, groups, eps, scope, _, _, act = norm
    y = x if kind == "none" else reference.normalize(x, vdiff.Norm(kind, groups=groups or None, eps=eps, scope=scope))
    return reference.activate(y, act)


def nearly(actual, expected):
    torch.testing.assert_close(actual.float(), expected, rtol=2e-2, atol=2e-2)


# ----------------------------------------------------------------------------------------------------------------- the floor

SECTOR = 32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["group", "layer"])
def test_the_bytes_that_must_move(kind, dtype):
    """Of 32 x 32 pixels of 320 channels: every tensor once, a group's x and gradient twice backward; all by 16 bytes."""
    shape = (1, 1, 32, 32, 320)
    x, other = (torch.randn(shape).to(DTYPES[dtype]) for _ in range(2))
    vectors = torch.ones(320), torch.zeros(320)
    norm = kind, *vectors, 32 if kind == "group" else 0, 1e-5, "frame", None, None, "silu"
    stats = reference.channel_stats(x.movedim(-1, 1)).to(acc_dtype(x.dtype)) if kind == "group" else None

    def held(run, tensors):
        norms = SimulatedNorms(clean_run(0))
        run(norms)
        counts = [report.counts for report in norms.reports if "norm_act" in report.kernel and "parameters" not in report.kernel]
        unique = sum(count.unique_read_sectors + count.unique_written_sectors for count in counts)
        assert unique <= 1.02 * tensors * x.numel() * x.itemsize / SECTOR
        assert sum(count.wide_global for count in counts) > 0.99 * sum(count.total.requests for count in counts)

    held(lambda norms: norms.forward(x, *norm, stats, other), tensors=3)
    held(lambda norms: norms.backward(other, x, *norm, stats), tensors=5 if kind == "group" else 3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_statistics_are_read_by_16_bytes(dtype):
    x = torch.randn(1, 1, 32, 32, 320).to(DTYPES[dtype])
    norms = SimulatedNorms(clean_run(0))
    norms.channel_stats(x)
    (report,) = norms.reports
    assert report.counts.unique_read_sectors == x.numel() * x.itemsize / SECTOR
    assert report.counts.wide_global >= x.numel() * x.itemsize / 512
