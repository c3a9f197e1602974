"""The U-Net: parity of backends, isolated image frames, its symmetries, other lengths and sizes than trained."""

import copy

import pytest
import torch
from torch import nn

from vdiff_kernels.diffusion.trainer import TrainSettings
from vdiff_kernels.models import VideoUNet
from vdiff_kernels.nn import TemporalConv
from vdiff_kernels.verify import assert_within_budget

from ..random_weights import randomised_unet

E = 16
TINY = dict(widths=(8, 16), blocks=2, head_dim=4, groups=4, embedding=E, patch=2)


def make(backend=None, dtype=torch.float64, **options) -> VideoUNet:
    return randomised_unet(VideoUNet(**{**TINY, **options}, backend=backend)).to(dtype)


def inputs(B=2, T=5, H=8, W=12, C=1, text_per_frame=False):
    """z, logsnr and text: float64, of values that float32 holds."""
    text = torch.randn(B, *([T] if text_per_frame else []), E)
    return torch.randn(B, C, T, H, W).double(), torch.linspace(-4, 3, B).double(), text.double()


def last_frames(B, T, images):
    return (torch.arange(T) >= T - images).expand(B, T)


def assert_same(ours, expected):
    """In float64, up to the order of its sums: errors of 1e-14 where a mistake makes 1e-6 at the least."""
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-11 * expected.abs().max().item())


# Parity of the backends


def results(unet, dtype, z, logsnr, text, focus_present):
    """The output and, of it weighted at random, every gradient: of z (for reconstruction guidance), text and parameters."""
    z, logsnr, text = (t.to(dtype) for t in (z, logsnr, text))
    parameters = dict(unet.named_parameters())
    leaves = {"z": z.requires_grad_(), "text": text.requires_grad_(), **parameters}
    out = unet(z, logsnr, text, focus_present)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    return out.detach(), dict(zip(leaves, torch.autograd.grad(out, list(leaves.values()), weight)))


SHAPES = {
    "clip": (dict(), None),
    "image-frames": (dict(T=4, text_per_frame=True), last_frames(2, 4, images=2)),
    "clip-of-images": (dict(T=3), torch.tensor([True, False])),
    "one-frame": (dict(B=1, T=1, H=4, W=8), None),
    "longer-than-the-buckets": (dict(B=1, T=40, H=8, W=8), None),
}


@pytest.mark.parametrize("case", SHAPES)
def test_cpu_and_reference_agree(case):
    shape, focus_present = SHAPES[case]
    given = (*inputs(**shape), focus_present)
    truth, gradients = results(make("reference"), torch.float64, *given)
    norms = {name: gradient.norm() for name, gradient in gradients.items()}
    floor = 1e-6 * max(norms.values())  # under a gradient that is zero

    def relative_errors(theirs):
        return {name: ((theirs[name].double() - gradients[name]).norm() / max(norms[name], floor)).item() for name in norms}

    eager, eager_gradients = results(make("reference", torch.float32), torch.float32, *given)
    allowed = 3 * max(relative_errors(eager_gradients).values())
    for dtype in (torch.float32, torch.float64):
        out, ours = results(make("cpu", dtype), dtype, *given)
        if dtype == torch.float32:
            assert_within_budget({"out": out}, {"out": truth}, {"out": eager}, case)
        else:
            assert_same(out, truth)
        # Of a whole network, the errors of all gradients share their source, so that one tensor's budget is a matter of luck:
        # the backend is held to three times the largest relative error that eager makes; in float64, to that of `assert_same`.
        errors = relative_errors(ours)
        worst = max(errors, key=errors.get)
        assert errors[worst] < (allowed if dtype == torch.float32 else 1e-11), f"{case} {dtype}: gradient of {worst}"


# Isolated frames


@pytest.mark.parametrize("images", [1, 2])
def test_image_frames_do_not_leak(backend, images):
    T, unet = 5, make(backend, torch.float32)
    z, logsnr, text = (t.float() for t in inputs(T=T, text_per_frame=True))
    focus_present = last_frames(2, T, images)
    clip, image = slice(0, T - images), slice(T - images, T)

    def changed(which):
        other_z, other_text = z.clone(), text.clone()
        other_z[:, :, which] += torch.randn_like(z[:, :, which])
        other_text[:, which] += torch.randn_like(text[:, which])
        return other_z, logsnr, other_text

    def same(a, b, frames):
        return torch.equal(a[:, :, frames], b[:, :, frames])

    with torch.no_grad():
        out = unet(z, logsnr, text, focus_present)
        of_images, of_clip = unet(*changed(image), focus_present), unet(*changed(clip), focus_present)
        assert same(of_images, out, clip) and not same(of_images, out, image)
        assert same(of_clip, out, image) and not same(of_clip, out, clip)
        joint = unet(z, logsnr, text)  # without focus_present they do leak: these comparisons can fail
        assert not same(unet(*changed(image)), joint, clip) and not same(unet(*changed(clip)), joint, image)


def test_gradients_do_not_leak(backend):
    unet = make(backend, torch.float32)
    z, logsnr, text = (t.float().requires_grad_() for t in inputs(T=4, text_per_frame=True))
    out = unet(z, logsnr, text, last_frames(2, 4, images=1))
    for frames, others in ((slice(0, 3), slice(3, 4)), (slice(3, 4), slice(0, 3))):
        d_z, d_text = torch.autograd.grad(out[:, :, frames].square().sum(), (z, text), retain_graph=True)
        assert (d_z[:, :, others] == 0).all() and (d_text[:, others] == 0).all()
        assert d_z[:, :, frames].abs().min(2)[0].max() > 0


def test_an_image_is_the_same_alone_and_at_any_place():
    unet = make()
    z, logsnr, text = inputs(T=5, text_per_frame=True)
    out = unet(z, logsnr, text, last_frames(2, 5, images=3))
    alone = unet(z[:, :, 4:], logsnr, text[:, 4:], torch.tensor([True, True]))
    assert_same(out[:, :, 4:], alone)
    order = [0, 1, 4, 2, 3]
    assert_same(unet(z[:, :, order], logsnr, text[:, order], last_frames(2, 5, images=3)), out[:, :, order])


def test_focus_present_of_a_sample_isolates_all_its_frames():
    unet, given = make(), inputs(T=3)
    out = unet(*given, torch.tensor([True, False]))
    assert torch.equal(out, unet(*given, torch.tensor([[True] * 3, [False] * 3])))
    assert_same(out[1:], unet(*given)[1:])
    z, logsnr, text = given
    frames = [unet(z[:1, :, t : t + 1], logsnr[:1], text[:1], torch.tensor([True])) for t in range(3)]
    assert_same(out[:1], torch.cat(frames, dim=2))


# Symmetries


def test_each_clip_of_a_batch_is_as_it_is_alone():
    unet, given = make(), inputs(B=3)
    alone = [unet(*(t[place : place + 1] for t in given)) for place in range(3)]
    assert_same(unet(*given), torch.cat(alone))


def test_one_text_for_all_frames():
    unet, (z, logsnr, text) = make(), inputs(T=4)
    assert_same(unet(z, logsnr, text[:, None].expand(2, 4, E)), unet(z, logsnr, text))


MIRRORS = {
    "left-right": lambda x: x.flip(-1),
    "upside-down": lambda x: x.flip(-2),
    "transposed": lambda x: x.transpose(-1, -2),
}


@pytest.mark.parametrize("name", MIRRORS)
def test_a_network_of_mirrored_kernels_mirrors(name):
    """Nothing but the kernels of the convolutions and the pixels of a patch knows left from right, or height from width."""
    mirror, C, p = MIRRORS[name], 2, 2
    unet = make(channels=C)
    mirrored = copy.deepcopy(unet)
    for layer in mirrored.modules():
        if isinstance(layer, nn.Conv3d):
            layer.weight.data = mirror(layer.weight.data)
    stem, head = mirrored.stem, mirrored.head.conv
    stem.weight.data = mirror(stem.weight.data.movedim(1, -1).unflatten(-1, (C, p, p))).flatten(-3).movedim(-1, 1)
    head.weight.data = mirror(head.weight.data.movedim(0, -1).unflatten(-1, (C, p, p))).flatten(-3).movedim(-1, 0)
    head.bias.data = mirror(head.bias.data.unflatten(0, (C, p, p))).flatten()
    for layer in mirrored.aligned:  # between enter and leave, channels are pixels of patches too
        for linear in (layer.enter, layer.attention.proj_out):
            linear.weight.data = mirror(linear.weight.data.T.unflatten(-1, (-1, p, p))).flatten(-3).T
            linear.bias.data = mirror(linear.bias.data.unflatten(0, (-1, p, p))).flatten()
        for linear in (layer.leave, layer.attention.to_qkv):
            linear.weight.data = mirror(linear.weight.data.unflatten(-1, (-1, p, p))).flatten(-3)
        for parameter in layer.attention_norm.parameters():
            parameter.data = mirror(parameter.data.unflatten(0, (-1, p, p))).flatten()
    z, logsnr, text = inputs(C=C)
    assert_same(mirrored(mirror(z), logsnr, text), mirror(unet(z, logsnr, text)))


def test_time_runs_backwards_with_mirrored_biases_and_kernels():
    """But for the frame index, only the tables of the relative positions and the temporal kernels know before from after."""
    unet = make()
    nn.init.zeros_(unet.condition.frame[2].weight)
    reversed_ = copy.deepcopy(unet)
    tables = [p for name, p in reversed_.named_parameters() if name.endswith("relative_attention_bias.weight")]
    for table in tables:
        before, after = table.data.chunk(2)
        table.data = torch.cat((before[:1], after[1:], after[:1], before[1:]))  # no offset, 0, is of the first half
    for layer in reversed_.modules():
        if isinstance(layer, TemporalConv):
            layer.weight.data = layer.weight.data.flip(2)
    z, logsnr, text = inputs()
    out = unet(z, logsnr, text)
    assert_same(reversed_(z.flip(2), logsnr, text), out.flip(2))
    assert tables and not torch.allclose(unet(z.flip(2), logsnr, text), out.flip(2))


# The rest of the contract


@pytest.mark.slow
def test_it_compiles_into_one_graph():
    unet, focus_present = make(dtype=torch.float32), last_frames(1, 3, images=1)
    given = [t.float() for t in inputs(B=1, T=3)]
    with torch.no_grad():
        compiled = torch.compile(unet, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(*given, focus_present), unet(*given, focus_present))


def test_the_network_that_trains_fits_in_8_mib_of_halves():
    unet = TrainSettings().pipeline(("a",)).unet
    assert sum(parameter.numel() for parameter in unet.parameters()) * 2 < 8 * 2**20
    assert not list(unet.buffers())


def test_heads_have_one_width():
    with pytest.raises(ValueError, match=r"VideoUNet: .*head_dim"):
        VideoUNet(**{**TINY, "widths": (8, 12), "head_dim": 8})
    attentions = [m for m in VideoUNet(**TINY).modules() if type(m).__name__ in ("SpatialAttention", "TemporalAttention")]
    assert {attention.dim // attention.num_heads for attention in attentions} == {4}


def test_the_state_is_loaded_whole_and_says_what_it_is():
    unet = make(dtype=torch.float32)
    other = VideoUNet(**unet.config)
    other.load_state_dict(unet.state_dict())  # strict
    given = [t.float() for t in inputs(B=1, T=2)]
    assert torch.equal(other(*given), unet(*given)) and other.config == unet.config
    with pytest.raises(RuntimeError, match="size mismatch"):
        VideoUNet(**{**unet.config, "widths": (8, 24)}).load_state_dict(unet.state_dict())


Z = torch.zeros(2, 1, 3, 16, 16)
BAD = {
    "not-a-tensor": (dict(z=[1.0]), TypeError, r"z is a list; expected a torch.Tensor"),
    "rank": (dict(z=Z[0]), ValueError, r"z has shape \(1, 3, 16, 16\); expected 5 dimensions \(B, C, T, H, W\)"),
    "channels": (dict(z=Z.expand(2, 3, 3, 16, 16)), ValueError, r"z has shape \(2, 3, 3, 16, 16\); expected \(B, 1, T, H, W\)"),
    "odd-height": (dict(z=Z[..., :15, :]), ValueError, r"z has shape \(2, 1, 3, 15, 16\); .* H and W multiples of 4"),
    "no-multiple": (dict(z=Z[..., :14]), ValueError, r"z has shape \(2, 1, 3, 16, 14\); .* H and W multiples of 4"),
    "no-frames": (dict(z=Z[:, :, :0]), ValueError, r".*with T from 1"),
    "focus-shape": (dict(focus_present=torch.zeros(3, dtype=torch.bool)), ValueError, r"focus_present has shape \(3,\)"),
    "focus-dtype": (dict(focus_present=torch.zeros(2)), TypeError, r"focus_present has dtype torch.float32; expected torch.bool"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_inputs_are_named(case):
    changes, error, message = BAD[case]
    given = {"z": Z, "logsnr": torch.zeros(2), "text": torch.zeros(2, E), **changes}
    with pytest.raises(error, match="VideoUNet: " + message):
        make(dtype=torch.float32)(**given)
