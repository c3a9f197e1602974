"""video-diffusion-pytorch's Unet3D: temporal attention, mid spatial attention and residual blocks, taken from a real Unet3D."""

import pytest
import torch
from rotary_embedding_torch import RotaryEmbedding
from torch import nn

from vdiff_kernels.integrations import lucidrains

from .compare import compare, in_layout, randn, randomize
from .unet3d import Unet3D

B, T, C, H, W = 3, 5, 16, 3, 5  # C: of the middle.


class Biased(nn.Module):
    """A temporal attention and the position bias that the U-Net shares among its layers."""

    def __init__(self, block, position_bias):
        super().__init__()
        self.block, self.position_bias = block, position_bias


def unet(dim_head=32):
    """A U-Net of widths 8 and 16, with 8 heads."""
    return randomize(Unet3D(dim=8, dim_mults=(1, 2), attn_heads=8, attn_dim_head=dim_head))


def original_temporal(module, x, mask=None):
    bias = module.position_bias(x.shape[2], device=x.device)
    return module.block(x, pos_bias=bias, focus_present_mask=mask)


def served_temporal(module, x, mask=None, *, backend, table=lucidrains.offset_bias):
    bias = table(module.position_bias, x.shape[2])
    return lucidrains.residual(module.block, x, bias, mask, backend=backend)


MASKS = {
    "none": None,
    "some": torch.tensor([True, False, True]),
    "all": torch.ones(B, dtype=torch.bool),
    "no-sample": torch.zeros(B, dtype=torch.bool),
}


@pytest.mark.parametrize("mask", MASKS)
def test_temporal_attention(backend, mask, layout):
    """Rotary angles, T5 buckets, and samples that see only the present."""
    net = unet()
    module = Biased(net.mid_temporal_attn, net.time_rel_pos_bias)
    inputs = {"x": in_layout(randn(B, C, T, H, W), layout)}
    if MASKS[mask] is not None:
        inputs["mask"] = MASKS[mask]
    if mask == "all":  # The original then leaves queries, keys and bias out of its graph; here their gradients are zero.
        module.position_bias.requires_grad_(False)
    compare(module, original_temporal, served_temporal, inputs, backend)


@pytest.mark.parametrize("dim_head, frames", [(32, 40), (48, 5), (12, 1)], ids=["far-buckets", "part-rotated", "one-frame"])
def test_temporal_attention_sizes(backend, dim_head, frames):
    """Frames beyond max_distance, of which the far ones share a bucket; heads wider than the 32 rotated channels."""
    net = unet(dim_head)
    module = Biased(net.mid_temporal_attn, net.time_rel_pos_bias)
    compare(module, original_temporal, served_temporal, {"x": randn(1, C, frames, 1, 2)}, backend)


def test_temporal_attention_with_the_dense_bias(backend):
    """The (N, T, T) table that Unet3D hands to each of its layers."""

    def dense(position_bias, num_frames):
        return position_bias(num_frames, device="cpu")

    def served(module, x, backend):
        return served_temporal(module, x, backend=backend, table=dense)

    net = unet()
    module = Biased(net.init_temporal_attn, net.time_rel_pos_bias)
    compare(module, original_temporal, served, {"x": randn(B, 8, T, H, W)}, backend)


def test_rotary_angles():
    """Each angle turns a pair of channels: the original repeats it for both."""
    for rotary in (RotaryEmbedding(32), RotaryEmbedding(8, interpolate_factor=2.0, theta=100)):
        expected = rotary(rotary.get_seq_pos(7), seq_len=7)[:, ::2]
        torch.testing.assert_close(lucidrains.rotary_angles(rotary, 7), expected)
    block = unet().mid_temporal_attn
    block.fn.fn.fn.rotary_emb = RotaryEmbedding(8, learned_freq=True)
    with pytest.raises(ValueError, match="RotaryEmbedding cannot be served"):
        lucidrains.residual(block, randn(B, C, T, H, W))


def test_mid_spatial_attention(backend, layout):
    compare(
        unet().mid_spatial_attn,
        lambda block, x: block(x),
        lucidrains.residual,
        {"x": in_layout(randn(B, C, T, H, W), layout)},
        backend,
    )


def test_spatial_linear_attention(backend, layout):
    net = unet()
    compare(
        net.downs[1][2],
        lambda block, x: block(x),
        lucidrains.residual,
        {"x": in_layout(randn(B, 16, T, H, W), layout)},
        backend,
    )


def test_a_hook_in_linear_attention_sees_every_frame_once():
    """Which is computed some frames at a time where nobody looks."""
    block, seen = unet().downs[1][2], []
    block.fn.fn.to_qkv.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    x = randn(2, 16, T, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(lucidrains.residual(block, x), block(x), rtol=1e-4, atol=2e-5)
    assert seen == [2 * T, 2 * T]


def test_small_activations(backend):
    """Where the eps of the channel layer norm shows."""
    block, inputs = unet().mid_spatial_attn, {"x": randn(B, C, T, H, W, scale=3e-3)}
    compare(block, lambda block, x: block(x), lucidrains.residual, inputs, backend)


def test_conv_block(backend, layout):
    inputs = {
        "x": in_layout(randn(B, C, T, H, W), layout),
        "scale": randn(B, C, 1, 1, 1, seed=3, scale=0.5),
        "shift": randn(B, C, 1, 1, 1, seed=4, scale=0.5),
    }
    compare(
        unet().mid_block1.block1,
        lambda block, x, scale, shift: block(x, (scale, shift)),
        lambda block, x, scale, shift, backend: lucidrains.conv_block(block, x, (scale, shift), backend=backend),
        inputs,
        backend,
    )


def original_resnet(block, x, time_emb=None):
    return block(x, time_emb)


@pytest.mark.parametrize("place", ["mid", "down", "final"])
def test_resnet_block(backend, place, layout):
    """With an embedding and an identity shortcut, with both an embedding and a 1x1x1 shortcut, without an embedding."""
    net = unet()
    block, channels = {"mid": (net.mid_block1, C), "down": (net.downs[1][0], 8), "final": (net.final_conv[0], 16)}[place]
    inputs = {"x": in_layout(randn(B, channels, T, H, W), layout)}
    if block.mlp is not None:
        inputs["time_emb"] = randn(B, 32, seed=3)
    compare(block, original_resnet, lucidrains.resnet_block, inputs, backend)


def test_pixels_of_zero(backend):
    """The RMS norm of a zero vector is zero, as F.normalize makes it: no division by zero."""
    block = unet().mid_block1.block1
    nn.init.zeros_(block.proj.bias)
    x = torch.zeros(1, C, 2, H, W)
    x[0, :, 0, 0, 0] = 1
    out = lucidrains.conv_block(block, x, backend=backend)
    torch.testing.assert_close(out, block(x), rtol=0, atol=1e-5)
