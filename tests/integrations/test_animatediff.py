"""diffusers' AnimateDiffTransformer3D, as UNetMotionModel, MotionAdapter and SparseControlNetModel build it."""

import pytest
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

from vdiff_kernels.integrations import animatediff

from .compare import compare, in_layout, randn, randomize

B, T, C, H, W = 2, 5, 24, 3, 5


def build(**options):
    arguments = dict(norm_num_groups=4, positional_embeddings="sinusoidal", num_positional_embeddings=T + 2)
    return randomize(AnimateDiffTransformer3D(3, 8, in_channels=C, **{**arguments, **options}))


def original(module, x, encoder_hidden_states=None):
    return module(x, encoder_hidden_states=encoder_hidden_states, num_frames=T)


def served(module, x, encoder_hidden_states=None, *, backend):
    return animatediff.motion_module(module, x, T, encoder_hidden_states=encoder_hidden_states, backend=backend)


def test_positions_in_two_blocks(backend, layout):
    module = build(num_layers=2)
    assert module.norm.eps == 1e-6 and module.transformer_blocks[1].norm2.eps == 1e-5
    compare(module, original, served, {"x": in_layout(randn(B * T, C, H, W), layout)}, backend)


def test_small_activations(backend):
    """Where eps shows: in the group norm, 1e-6, and in the layer norms, 1e-5."""
    compare(build(), original, served, {"x": randn(B * T, C, H, W, scale=2e-3)}, backend)


def test_as_many_frames_as_positions(backend):
    compare(build(num_positional_embeddings=T), original, served, {"x": randn(T, C, 1, 7)}, backend)


def test_single_attention(backend):
    module = build(double_self_attention=False)
    assert module.transformer_blocks[0].attn2 is None
    compare(module, original, served, {"x": randn(B * T, C, H, W)}, backend)


@pytest.mark.parametrize("tokens", [1, 3])
def test_positions_before_a_context(backend, tokens):
    module = build(double_self_attention=False, cross_attention_dim=10)
    inputs = {"x": randn(B * T, C, H, W), "encoder_hidden_states": randn(B * H * W, tokens, 10, seed=3)}
    compare(module, original, served, inputs, backend)


def test_more_frames_than_positions_are_refused():
    module = build(num_positional_embeddings=T - 1)
    with pytest.raises(ValueError, match="5 frames; expected at most 4, as long as its position table"):
        animatediff.motion_module(module, randn(T, C, H, W), T, backend="reference")
