"""The CUDA convolutions as nvcc compiles them, simulated: forward and every gradient of the hostile cases within the budget,
clean, the same for every interleaving, and no worse than their golden counts."""

import pytest
import torch

from tests import ptxsim
from tests.ops.far import last_block_of, nearly, zeros
from tests.ops.norm.simulated import launchers as norm_launchers
from tests.ptxsim.fixtures import clean_run
from tests.ptxsim.golden import Golden, owner_of
from tests.ptxsim.launcher import plain_name
from vdiff_kernels.ops.conv.reference import norm_act_conv
from vdiff_kernels.verify.cases import CONV_CASES
from vdiff_kernels.verify.check import check
from vdiff_kernels.verify.inputs import ConvCase

from .simulated import SimulatedConvolutions, launchers, simulated_by_default

# Of these the counts are held; of the others, which run the same kernels, only that they are clean.
COUNTED = (
    "several-tiles", "spatial-wide", "temporal-wide", "temporal-clip", "temporal-mix-scalar", "many-channels", "rms-adaptive",
    "layer-temporal",
)  # fmt: skip
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
TAPS = {"spatial": (1, 3, 3), "temporal": (3, 1, 1)}

WIDE = [
    ConvCase("spatial-wide", C=16, Co=24, residual=True),
    ConvCase("temporal-wide", C=16, Co=24, kernel="temporal", scope="clip", residual=True),
]
# Beyond a block in every direction that is cut: lines and columns of pixels, channels in and out, parts of the weight's pixels.
TILE_CASES = [
    ConvCase("tiles", C=40, Co=136, T=1, H=17, W=19, groups=8, temb="frame", residual=True),
    ConvCase("mixed-tiles", C=8, Co=136, T=6, H=9, W=17, temb="frame", residual=True, mix="frame"),
    ConvCase("narrow-tiles", C=37, Co=134, T=1, H=19, W=9, groups=1, residual=True),
    ConvCase("long-lines", C=8, Co=8, T=1, H=2, W=200, act=None),
    ConvCase("parts", C=8, Co=72, T=2, H=33, W=37, residual=True),
    ConvCase("parts-of-frames", C=8, Co=8, T=37, H=5, W=9, kernel="temporal", scope="clip", temb="frame"),
    ConvCase("many-frames", B=2, C=40, Co=24, T=131, H=1, W=1, kernel="temporal", groups=8, mix="frame", residual=True),
    ConvCase("temporal-tiles", C=72, Co=136, T=17, H=3, W=7, kernel="temporal", groups=8, residual=True, mix="frame"),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [*CONV_CASES, *WIDE], ids=str)
def test_forward_and_every_gradient(case, dtype, simulate):
    run = simulate.launcher if case.name in COUNTED else clean_run((0, 1, 2))
    with simulated_by_default(run):
        check(case, DTYPES[dtype])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", TILE_CASES, ids=str)
def test_edges_of_tiles(case, dtype):
    with simulated_by_default(clean_run((0, 1))):
        check(case, DTYPES[dtype])


def test_every_kernel_that_ships_was_run():
    shipped = {plain_name(name) for unit in launchers().units for name in unit.kernel_names}
    shipped -= {plain_name(name) for unit in norm_launchers().units for name in unit.kernel_names}
    ran = {case.removeprefix(owner_of(case)).strip().partition(" (")[0] for case in Golden("cuda_conv").cases}
    assert shipped <= ran, f"never run: {sorted(shipped - ran)}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", TAPS)
@pytest.mark.parametrize("T, H, W", [(1, 1, 1), (2, 5, 9), (3, 17, 19), (5, 1, 133)])
def test_statistics_of_out(T, H, W, kind, dtype, simulate):
    x, weight = torch.randn(1, T, H, W, 8).to(DTYPES[dtype]), torch.randn(130, 8, *TAPS[kind]).to(DTYPES[dtype]) / 5
    far = torch.linspace(-100, 100, 130)  # means of many deviations
    out, stats = SimulatedConvolutions(simulate.launcher).forward(x, weight, far, *NONE, None, None, None, True)
    variance, mean = torch.var_mean(out.double(), dim=(2, 3), correction=0)
    torch.testing.assert_close(stats.double(), torch.stack((mean, variance), -1), rtol=1e-5, atol=1e-6)


# ----------------------------------------------------------------------------------------------------------- where things lie

NONE = ("none", None, None, 0, 0.0, "frame", None, None, "none", None)
GROUP = ("group", None, None, 4, 1e-5, "frame", None, None, "silu")
B, T, H, W, C = 2, 3, 4, 5, 24

# Images (B, T, H, W, C) of unit stride over C, each by its own outer strides, out of memory of a shape.
LAYOUTS = {
    "frames of longer clips": ((B, 2 * T, H, W, C), lambda whole: whole[:, ::2]),
    "part of the pixels": ((B, T, 2 * H, W + 3, C), lambda whole: whole[:, :, 1::2, 2:-1]),
    "part of the channels": ((B, T, H, W, 3 * C), lambda whole: whole[..., C : 2 * C]),
    "an odd number of channels": ((B, T, H, W, C + 1), lambda whole: whole[..., 1:]),
    "an odd address": ((B * T * H * W * C + 1,), lambda whole: whole[1:].view(B, T, H, W, C)),
    "an even address": ((B * T * H * W * C + 2,), lambda whole: whole[2:].view(B, T, H, W, C)),
    "lines at odd steps": ((B, T, H, W * C + 2), lambda whole: whole[..., :-2].unflatten(-1, (W, C))),
    "other order": ((H, W, T, B, C), lambda whole: whole.permute(3, 2, 0, 1, 4)),
    "one clip for all": ((1, T, H, W, C), lambda whole: whole.expand(B, T, H, W, C)),
    "one row for all": ((C,), lambda whole: whole.expand(B, T, H, W, C)),
}


@pytest.mark.parametrize("kind", TAPS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_image_has_its_own_strides(layout, dtype, kind):
    """The bits are those of contiguous images: what is computed does not depend on how it is moved."""
    convolutions = SimulatedConvolutions(clean_run())
    x, other = torch.randn(2, B, T, H, W, C).to(DTYPES[dtype])
    weight = (torch.randn(C, C, *TAPS[kind]) / 10).to(DTYPES[dtype])
    shape, of_whole = LAYOUTS[layout]
    strided = of_whole(torch.randn(shape).to(DTYPES[dtype]))
    dense = strided.clone(memory_format=torch.contiguous_format)
    stats = convolutions.norms.channel_stats(dense)

    def results(image):
        yield convolutions.forward(image, weight, None, *GROUP, stats, None, other, None, False)[0]
        yield convolutions.forward(x, weight, None, *NONE, None, image, None, False)[0]
        yield from convolutions.backward(other, image, weight, None, *GROUP, stats, None, None, True, True, False)
        yield from convolutions.backward(image, x, weight, x[0, 0, 0, 0], *NONE, None, None, True, True, False)

    for of_strided, of_dense in zip(results(strided), results(dense)):
        assert torch.equal(of_strided, of_dense)


WEIGHTS = {
    "channels last": lambda w: w.contiguous(memory_format=torch.channels_last_3d),
    "transposed": lambda w: w.transpose(0, 1).contiguous().transpose(0, 1),
    "turned": lambda w: w.permute(2, 3, 4, 0, 1).contiguous().permute(3, 4, 0, 1, 2),
    "one for all": lambda w: w[:1].expand_as(w),
    "at an odd address": lambda w: torch.cat((w.new_zeros(1), w.flatten()))[1:].view(w.shape),
    "channels last at an odd address": lambda w: (
        torch.cat((w.new_zeros(1), w.movedim(1, -1).flatten()))[1:].view(w.movedim(1, -1).shape).movedim(-1, 1)
    ),
}


@pytest.mark.parametrize("kind", TAPS)
@pytest.mark.parametrize("channels", [(40, 48), (13, 9)])
@pytest.mark.parametrize("layout", WEIGHTS)
def test_weights_of_any_strides(layout, channels, kind):
    Ci, Co = channels
    x, grad_out = torch.randn(1, 2, 3, 5, Ci).bfloat16(), torch.randn(1, 2, 3, 5, Co).bfloat16()
    weight = WEIGHTS[layout]((torch.randn(Co, Ci, *TAPS[kind]) / 10).bfloat16())
    results = [both(clean_run(), grad_out, x, one) for one in (weight, weight.clone(memory_format=torch.contiguous_format))]
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_a_weight_that_lies_right_is_not_copied():
    convolutions = SimulatedConvolutions(clean_run())
    x, weight = torch.randn(1, 1, 3, 5, 8).half(), torch.randn(8, 8, 1, 3, 3).half()
    for one, copies in ((weight, 1), (weight.contiguous(memory_format=torch.channels_last_3d), 0)):
        convolutions.forward(x, one, None, *NONE, None, None, None, False)
        assert sum("weight_pack" in report.kernel for report in convolutions.reports) == copies


@pytest.mark.parametrize("shape", [(0, 2, 3, 5, 8), (2, 0, 3, 5, 8), (2, 3, 0, 5, 8), (2, 3, 5, 0, 8)], ids=str)
@pytest.mark.parametrize("kind", TAPS)
def test_nothing(kind, shape):
    """No pixels: the parameters' gradients are zeros all the same."""
    convolutions = SimulatedConvolutions(clean_run())
    x, weight, bias = torch.empty(shape), torch.ones(8, 8, *TAPS[kind]), torch.ones(8)
    assert convolutions.forward(x, weight, bias, *NONE, None, None, None, False)[0].shape == shape
    _, dweight, dbias, *_ = convolutions.backward(x, x, weight, bias, *NONE, None, None, True, True, False)
    assert not dweight.any() and not dbias.any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", TAPS)
def test_nan_stays_with_its_neighbours(kind, dtype):
    x, weight = torch.randn(1, 5, 12, 13, 24).to(DTYPES[dtype]), torch.randn(40, 24, *TAPS[kind]).to(DTYPES[dtype])
    convolutions = SimulatedConvolutions(clean_run())
    clean, _ = convolutions.forward(x, weight, None, *NONE, None, None, None, False)
    x[0, 2, 6, 7] = torch.nan
    spoiled, _ = convolutions.forward(x, weight, None, *NONE, None, None, None, False)
    reached = torch.zeros(5, 12, 13, dtype=torch.bool)
    reached[(2, slice(5, 8), slice(6, 9)) if kind == "spatial" else (slice(1, 4), 6, 7)] = True
    assert spoiled[0, reached].isnan().all()
    assert torch.equal(spoiled[0, ~reached], clean[0, ~reached])


@pytest.mark.parametrize("C", [320, 1280])
@pytest.mark.parametrize("kind", TAPS)
def test_memory_is_touched_once(kind, C, simulate):
    """Unique sectors and wavefronts of the products of a layer of Stable Diffusion's, odd H and W, beside their floors."""
    shape = (1, 1, 17, 19) if kind == "spatial" else (1, 6, 5, 11)
    x, grad_out = torch.randn(2, *shape, 320 if C == 320 else 64).bfloat16()
    if C == 1280:  # of a few of its channels, which are as many chunks as it has rows: simulated, all of them take minutes
        x, grad_out = torch.randn(*shape, C).bfloat16(), torch.randn(*shape, 64).bfloat16()
    weight = (torch.randn(grad_out.shape[-1], x.shape[-1], *TAPS[kind]) / 50).bfloat16()
    weight = weight.contiguous(memory_format=torch.channels_last_3d)
    convolutions = SimulatedConvolutions(lambda *arguments, **more: simulate.launcher(*arguments, seeds=0, **more))
    convolutions.forward(x, weight, None, *NONE, None, grad_out, None, False)
    (product,) = convolutions.reports
    read, written = product.counts.unique_read_sectors * 32, product.counts.unique_written_sectors * 32
    assert read <= 1.15 * 2 * (x.numel() + weight.numel() + grad_out.numel())
    assert written <= 1.15 * 2 * grad_out.numel()
    assert product.counts.total.wavefronts <= 1.1 * product.counts.total.ideal_wavefronts


# ------------------------------------------------------------------------------------------------------------------- far out

FAR = 2**30 + 8  # from one line, frame or clip to the next: two of them are further than 2^31


@pytest.mark.parametrize("kind", TAPS)
def test_strides_past_2_to_the_31(kind):
    """Of x, the residual and the gradient."""
    whole = zeros(2 * FAR + 3 * 2**20, dtype=torch.bfloat16)
    near = torch.randn(3, 1, 3, 3, 2, 8).bfloat16()
    steps = (0, 2**20, FAR, 8, 1) if kind == "spatial" else (0, FAR, 2**10, 8, 1)
    x, residual, grad_out = (whole[2**8 * i :].as_strided(near.shape[1:], steps).copy_(near[i]) for i in range(3))
    weight = (torch.randn(8, 8, *TAPS[kind]) / 5).bfloat16()
    convolutions = SimulatedConvolutions(clean_run())
    results = [
        (
            convolutions.forward(images[0], weight, None, *NONE, None, images[1], None, False)[0],
            *convolutions.backward(images[2], images[0], weight, near[0, 0, 0, 0, 0], *NONE, None, None, True, True, False)[:3],
        )
        for images in ((x, residual, grad_out), near)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*results))


@pytest.mark.parametrize("kind", TAPS)
def test_results_past_2_to_the_31(kind):
    """Of out, and of dx: the last tile's, which alone is computed."""
    T, H, W = 6, 4, 13_500_000
    x, grad_out = (zeros(1, T, H, W, 8, dtype=torch.bfloat16) for _ in range(2))
    weight = (torch.randn(8, 8, *TAPS[kind]) / 5).bfloat16()
    x[..., -40:, :], grad_out[..., -40:, :] = torch.randn(2, 1, T, H, 40, 8).bfloat16()
    convolutions = SimulatedConvolutions(last_block_of("conv_kernel", "weight_pack"), zeros)
    out, _ = convolutions.forward(x, weight, None, *NONE, None, None, None, False)
    dx = convolutions.backward(grad_out, x, weight, None, *NONE, None, None, True, False, False)[0]
    near = x[..., -40:, :].double().movedim(-1, 1).requires_grad_()
    expected = norm_act_conv(near, weight.double())
    (expected_dx,) = torch.autograd.grad(expected, near, grad_out[..., -40:, :].double().movedim(-1, 1))
    last = (0, slice(-1, None), slice(-1, None), slice(-8, None))
    nearly(out[last], expected.detach().movedim(1, -1)[last])
    nearly(dx[last], expected_dx.movedim(1, -1)[last])


@pytest.mark.parametrize("kind", TAPS)
@pytest.mark.parametrize("Ci, what", [(8, "out"), (32, "dweight")])
def test_weights_past_2_to_the_31(Ci, what, kind):
    """The weight, as it lies and packed; its gradient, and the parts of that."""
    taps = torch.Size(TAPS[kind]).numel()
    Co = 2**31 // (taps * Ci) + 5
    x, grad_out = torch.randn(1, 1, 2, 3, Ci).bfloat16(), zeros(1, 1, 2, 3, Co, dtype=torch.bfloat16)
    weight = zeros(Co, Ci, *TAPS[kind], dtype=torch.bfloat16)
    grad_out[..., -8:], weight[-8:] = torch.randn(1, 1, 2, 3, 8), torch.randn(8, Ci, *TAPS[kind])
    convolutions = SimulatedConvolutions(last_block_of("conv_kernel", "weight_pack", "dweight"), zeros)
    near = weight[-8:].double().requires_grad_()
    expected = norm_act_conv(x.double().movedim(-1, 1), near)
    if what == "out":
        out, _ = convolutions.forward(x, weight, None, *NONE, None, None, None, False)
        nearly(out[..., -8:], expected.detach().movedim(1, -1))
    else:
        dweight = convolutions.backward(grad_out, x, weight, None, *NONE, None, None, False, True, False)[1]
        (expected,) = torch.autograd.grad(expected, near, grad_out[..., -8:].double().movedim(-1, 1))
        nearly(dweight[-1:], expected[-1:])


def both(run, grad_out, x, weight, outputs=ptxsim.empty):
    """(out, dx, dweight)"""
    convolutions = SimulatedConvolutions(run, outputs)
    out, _ = convolutions.forward(x, weight, None, *NONE, None, None, None, False)
    return out, *convolutions.backward(grad_out, x, weight, None, *NONE, None, None, True, True, False)[:2]
