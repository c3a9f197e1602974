"""Each drop-in module against what it replaces: strict state_dict, output and every gradient to 1e-5 in float32."""

import pytest
import torch
from torch import nn

import vdiff_kernels as vdiff
from vdiff_kernels.bench import seed_blocks

from ..integrations.unet3d import Unet3D
from ..random_weights import randomised


def assert_replaces(ours: nn.Module, original: nn.Module, *inputs, tolerance=1e-5):
    randomised(original)
    ours.load_state_dict(original.state_dict(), strict=True)
    results = []
    for module in (ours, original):
        leaves = [t.clone().requires_grad_() for t in inputs]
        out = module(*leaves)
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(3))
        names = ["out", *(f"d_input{i}" for i in range(len(leaves))), *(name for name, _ in module.named_parameters())]
        results.append(dict(zip(names, [out, *torch.autograd.grad(out, [*leaves, *module.parameters()], grad)])))
    for name, expected in results[1].items():
        error = (results[0][name] - expected).abs().max().item()
        assert error <= tolerance * max(1.0, expected.abs().max().item()), f"{name}: {error}"
    return results[0]["out"]


@pytest.mark.parametrize("shape", [(2, 16, 5, 3, 32), (1, 1, 1, 1, 32), (1, 32, 2, 3, 32)])
def test_temporal_attention(backend, shape):
    ours = vdiff.nn.TemporalAttention(32, num_heads=4, backend=backend)
    out = assert_replaces(ours, seed_blocks.TemporalAttention(32, num_heads=4), torch.randn(shape))
    assert out.is_contiguous()


@pytest.mark.parametrize("shape", [(2, 5, 6, 7, 5), (1, 1, 6, 1, 3)])
def test_pseudo3d_block(backend, shape):
    ours = vdiff.nn.Pseudo3DBlock(6, 24, num_heads=8, backend=backend)
    out = assert_replaces(ours, seed_blocks.Pseudo3DBlock(6, 24, num_heads=8), torch.randn(shape))
    assert out.is_contiguous()


def test_the_same_seed_gives_the_same_parameters():
    torch.manual_seed(0)
    ours = vdiff.nn.Pseudo3DBlock(4, 8)
    torch.manual_seed(0)
    for (name, a), (other, b) in zip(ours.named_parameters(), seed_blocks.Pseudo3DBlock(4, 8).named_parameters()):
        assert name == other and torch.equal(a, b)


CONVS = {"spatial": (vdiff.nn.SpatialConv, (1, 3, 3), (0, 1, 1)), "temporal": (vdiff.nn.TemporalConv, (3, 1, 1), (1, 0, 0))}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d], ids=str)
@pytest.mark.parametrize("kind", CONVS)
def test_convolutions_replace_conv3d(backend, kind, memory_format, bias):
    cls, taps, padding = CONVS[kind]
    x = torch.randn(2, 5, 4, 7, 3).to(memory_format=memory_format)
    original = nn.Conv3d(5, 6, taps, padding=padding, bias=bias)
    out = assert_replaces(cls(5, 6, bias=bias, backend=backend), original, x)
    assert out.is_contiguous(memory_format=memory_format)


def test_pseudo3d_conv_starts_as_its_spatial_half(backend):
    module = vdiff.nn.Pseudo3DConv(3, 8, backend=backend)
    x = torch.randn(1, 3, 4, 5, 6)
    expected = nn.functional.conv3d(x, module.spatial.weight, module.spatial.bias, padding=(0, 1, 1))
    torch.testing.assert_close(module(x), expected)


class _Eager(nn.Module):
    """A plain module with the parameters of `NormActConv`, `FactorizedAttention` or `ResnetBlock3D`."""

    def __init__(self, module, forward):
        super().__init__()
        for name, child in module.named_children():
            self.add_module(name, child)
        self.run = forward

    def forward(self, *inputs):
        return self.run(self, *inputs)


@pytest.mark.parametrize("kernel, scope", [("spatial", "frame"), ("temporal", "clip"), ("temporal", "frame")])
def test_norm_act_conv(backend, kernel, scope):
    ours = vdiff.nn.NormActConv(8, 6, kernel, groups=4, scope=scope, backend=backend)

    def eager(m, x):
        frames = x if scope == "clip" else x.transpose(1, 2).flatten(0, 1)
        h = m.norm(frames)
        h = h if scope == "clip" else h.unflatten(0, (x.shape[0], -1)).transpose(1, 2)
        return nn.functional.conv3d(nn.functional.silu(h), m.conv.weight, m.conv.bias, padding=m.conv.padding)

    assert_replaces(ours, _Eager(vdiff.nn.NormActConv(8, 6, kernel, groups=4), eager), torch.randn(2, 8, 3, 5, 3))


def test_factorized_attention(backend):
    ours = vdiff.nn.FactorizedAttention(16, 4, max_frames=8, max_size=(4, 6), backend=backend)

    def eager(m, x):
        B, T, H, W, C = x.shape
        h = m.spatial_norm(x).reshape(B * T, H * W, C)
        q, k, v = m.spatial_attn.to_qkv(h).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        offsets = m.spatial_attn.rel_pos_emb
        bias = torch.empty(4, H * W, H * W)
        rows = [torch.stack([offsets[:, j // W - i // W + 3, j % W - i % W + 5] for j in range(H * W)], -1) for i in range(H * W)]
        bias = torch.stack(rows, 1)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x + m.spatial_attn.proj_out(attended.transpose(1, 2).flatten(2)).reshape(x.shape)
        h = m.temporal_norm(x).permute(0, 2, 3, 1, 4)
        q, k, v = m.temporal_attn.to_qkv(h).unflatten(-1, (3, 4, 4)).permute(4, 0, 1, 2, 5, 3, 6)
        bias = m.temporal_attn.rel_pos_emb[0, :, :T, :T]
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return x + m.temporal_attn.proj_out(attended.transpose(3, 4).flatten(-2)).permute(0, 3, 1, 2, 4)

    original = _Eager(vdiff.nn.FactorizedAttention(16, 4, max_frames=8, max_size=(4, 6)), eager)
    assert_replaces(ours, original, torch.randn(2, 5, 3, 5, 16))  # smaller than max_size: the centre of the table


def test_feed_forward_replaces_diffusers(backend):
    from diffusers.models.attention import FeedForward

    assert_replaces(vdiff.nn.FeedForward(12, backend=backend), FeedForward(12, activation_fn="geglu"), torch.randn(2, 5, 12))


@pytest.mark.parametrize("out_channels", [64, 96])
def test_resnet_block_replaces_the_temporal_resnet_block_of_diffusers(backend, out_channels):
    from diffusers.models.resnet import TemporalResnetBlock

    original = TemporalResnetBlock(64, out_channels, temb_channels=10, eps=1e-6)
    ours = vdiff.nn.ResnetBlock3D(64, out_channels, 10, kernel="temporal", eps=1e-6, scope="clip", backend=backend)
    assert_replaces(ours, original, torch.randn(2, 64, 5, 3, 3), torch.randn(2, 5, 10))


def test_resnet_block_takes_the_weights_of_a_2d_block(backend):
    from diffusers.models.resnet import ResnetBlock2D

    original = randomised(ResnetBlock2D(in_channels=32, out_channels=64, temb_channels=10))
    ours = vdiff.nn.ResnetBlock3D(32, 64, 10, eps=1e-6, backend=backend)
    ours.load_state_dict(original.state_dict(), strict=True)
    x, temb = torch.randn(2, 32, 3, 5, 4), torch.randn(2, 10)
    frames = original(x.transpose(1, 2).flatten(0, 1), temb.repeat_interleave(3, 0))
    torch.testing.assert_close(ours(x, temb), frames.unflatten(0, (2, 3)).transpose(1, 2), rtol=1e-5, atol=1e-5)


def test_t5_buckets_replace_lucidrains():
    original = Unet3D(dim=8, dim_mults=(1,), attn_heads=3).time_rel_pos_bias
    ours = vdiff.nn.RelativePositionBias(3, "t5", max_distance=32)
    ours.load_state_dict(original.state_dict(), strict=True)
    for T in (1, 5, 40):
        rel_bias = ours(T)["rel_bias"]
        dense = torch.stack([rel_bias[:, T - 1 - i : 2 * T - 1 - i] for i in range(T)], 1)
        assert torch.equal(dense, original(T, device="cpu"))


@pytest.mark.parametrize("kind", ["dense", "offset", "t5"])
def test_relative_position_bias_drives_attention(backend, kind):
    module = vdiff.nn.RelativePositionBias(2, kind, max_frames=8)
    q, k = torch.randn(1, 5, 2, 2, 2, 4), torch.randn(1, 7, 2, 2, 2, 4)
    vdiff.temporal_attention(q, k, k, **module(5, 7), backend=backend).sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    if kind == "offset":
        (longer,), (shorter,) = module(8).values(), module(3).values()
        assert torch.equal(longer[:, 5:10], shorter)  # offset j - i sits at the same entry for every T


def test_more_frames_than_max_frames():
    with pytest.raises(ValueError, match="TemporalAttention: x has shape .*, so T = 33; expected T from 1 to max_frames = 32"):
        vdiff.nn.TemporalAttention(8, 2)(torch.randn(1, 33, 1, 1, 8))
    with pytest.raises(ValueError, match="expected at most max_frames = 8"):
        vdiff.nn.RelativePositionBias(2, "offset", max_frames=8)(9)
