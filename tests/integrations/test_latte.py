"""diffusers' LatteTransformer3DModel: its spatial and temporal blocks, and the whole."""

import pytest
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.transformers.latte_transformer_3d import LatteTransformer3DModel

from vdiff_kernels.integrations import latte
from vdiff_kernels.integrations.diffusers_transformers import feed_forward, transformer_block

from .compare import compare, randn, randomize

B, T, C, H, W = 2, 5, 24, 3, 5  # H, W: tokens of 2 x 2 latent pixels.
CAPTION, TOKENS = 9, 4


def build(**options):
    arguments = dict(
        num_attention_heads=3, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, cross_attention_dim=C,
        attention_bias=True, sample_size=8, patch_size=2, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
        norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6, caption_channels=CAPTION, video_length=T,
    )  # fmt: skip
    return randomize(LatteTransformer3DModel(**{**arguments, **options}))


@pytest.mark.parametrize("activation", ["geglu", "gelu-approximate"])
def test_a_feed_forward_layer_of_many_rows(activation):
    """Without gradients it is computed some rows at a time, unless a hook is to see them all."""
    ff = randomize(FeedForward(64, activation_fn=activation))
    x, seen = randn(1, 17, 32, 32, 64), []
    with torch.no_grad():
        expected = ff(x)
        torch.testing.assert_close(feed_forward(ff, x, backend=None), expected, rtol=1e-4, atol=2e-5)
        ff.net[0].proj.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
        torch.testing.assert_close(feed_forward(ff, x, backend=None), expected, rtol=1e-4, atol=2e-5)
    assert seen == [(1, 17, 32, 32, 512 if activation == "geglu" else 256)]


def test_spatial_block(backend):
    def original(block, x, timestep, context):
        context, timestep = (t.repeat_interleave(T, dim=0) for t in (context, timestep))
        h = block(x.reshape(B * T, H * W, C), encoder_hidden_states=context, timestep=timestep)
        return h.reshape(B, T, H, W, C)

    def served(block, x, timestep, context, backend):
        return transformer_block(block, x, "spatial", timestep=timestep, context=context, backend=backend)

    inputs = {"x": randn(B, T, H, W, C), "timestep": randn(B, 6 * C, seed=3), "context": randn(B, TOKENS, C, seed=4)}
    compare(build().transformer_blocks[0], original, served, inputs, backend)


@pytest.mark.parametrize("activation", ["gelu-approximate", "geglu"])
def test_temporal_block(backend, activation):
    def original(block, x, timestep):
        h = x.permute(0, 2, 3, 1, 4).reshape(B * H * W, T, C)
        h = block(h, timestep=timestep.repeat_interleave(H * W, dim=0))
        return h.reshape(B, H, W, T, C).permute(0, 3, 1, 2, 4).contiguous()

    def served(block, x, timestep, backend):
        return transformer_block(block, x, "temporal", timestep=timestep, backend=backend)

    block = build(activation_fn=activation).temporal_transformer_blocks[0]
    assert block.attn2 is None and block.norm1.eps == 1e-6
    compare(block, original, served, {"x": randn(B, T, H, W, C), "timestep": randn(B, 6 * C, seed=3)}, backend)


@pytest.mark.parametrize("temporal", [True, False], ids=["video", "images"])
def test_transformer(backend, temporal):
    timestep = torch.tensor([3, 700])
    inputs = {"x": randn(B, 4, T, 2 * H, 2 * W), "text": randn(B, TOKENS, CAPTION, seed=3)}
    options = dict(enable_temporal_attentions=temporal, return_dict=False)
    model = build()
    if not temporal:
        model.temporal_transformer_blocks.requires_grad_(False)
    compare(
        model,
        lambda model, x, text: model(x, timestep, text, **options)[0].contiguous(),
        lambda model, x, text, backend: latte.transformer(model, x, timestep, text, **options, backend=backend)[0].contiguous(),
        inputs,
        backend,
    )
