"""diffusers' TransformerSpatioTemporalModel, SpatioTemporalResBlock, TemporalResnetBlock, as SVD's U-Net and VAE have them."""

import pytest
import torch
from diffusers.models.resnet import AlphaBlender, SpatioTemporalResBlock, TemporalResnetBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel

from vdiff_kernels.integrations import svd

from .compare import compare, in_layout, randn, randomize

B, T, C, H, W = 2, 5, 64, 3, 5  # The blocks have 32 groups.
EMB, TOKEN = 7, 10
NO_IMAGES = torch.zeros(B, T)
SOME_IMAGES = torch.tensor([[0.0, 1, 0, 0, 1], [1, 0, 0, 1, 0]])


def transformer(**options):
    return randomize(TransformerSpatioTemporalModel(4, 16, in_channels=C, cross_attention_dim=TOKEN, **options))


def transformer_inputs(tokens=1, layout="contiguous", scale=1.0):
    x = randn(B * T, C, H, W, scale=scale)
    return {"x": in_layout(x, layout), "context": randn(B * T, tokens, TOKEN, seed=3)}


def run_transformer(images):
    return (
        lambda model, x, context: model(x, context, images, return_dict=False)[0],
        lambda model, x, context, backend: svd.spatio_temporal_transformer(model, x, context, images, backend=backend),
    )


@pytest.mark.parametrize("images", [NO_IMAGES, SOME_IMAGES], ids=["video", "images"])
def test_transformer_of_one_token(backend, images, layout):
    model = transformer()
    assert model.norm.eps == 1e-6 and model.time_mixer.merge_strategy == "learned_with_images"
    compare(model, *run_transformer(images), transformer_inputs(layout=layout), backend)


def test_transformer_of_several_tokens(backend):
    """A context that differs from frame to frame: the temporal blocks see the first frame's."""
    compare(transformer(num_layers=2), *run_transformer(SOME_IMAGES), transformer_inputs(tokens=3), backend)


def test_transformer_statistics_per_frame(backend):
    inputs = transformer_inputs(scale=2e-3)
    inputs["x"] = inputs["x"] + 2e-3 * torch.arange(B * T)[:, None, None, None]
    compare(transformer(), *run_transformer(NO_IMAGES), inputs, backend)


def test_one_token_without_gradients(backend):
    """Where nobody asks for the gradients of queries and keys, they are not computed, and the result is the same."""
    model = transformer()
    original, served = run_transformer(SOME_IMAGES)
    compare(model, original, served, transformer_inputs(), backend)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in ("attn2.to_q", "attn2.to_k", "norm2")))
    compare(model, original, served, transformer_inputs(), backend)
    x, context = transformer_inputs().values()
    with torch.no_grad():
        torch.testing.assert_close(served(model, x, context, backend=backend), original(model, x, context), rtol=0, atol=2e-5)


@pytest.mark.parametrize("out_channels", [None, 32])
@pytest.mark.parametrize("temb", [EMB, None])
def test_temporal_resnet(backend, temb, out_channels, layout):
    block = randomize(TemporalResnetBlock(C, out_channels, temb_channels=temb, eps=1e-5))
    inputs = {"x": in_layout(randn(B, C, T, H, W, scale=0.01), layout)}
    if temb:
        inputs["temb"] = randn(B, T, EMB, seed=3)
    compare(
        block,
        lambda block, x, temb=None: block(x, temb),
        lambda block, x, temb=None, *, backend: svd.temporal_resnet(block, x, temb, backend=backend),
        inputs,
        backend,
    )


UNET = dict(temb_channels=EMB)
VAE = dict(temb_channels=None, merge_factor=0.0, merge_strategy="learned", switch_spatial_to_temporal_mix=True)


@pytest.mark.parametrize(
    "options",
    [
        dict(UNET, eps=1e-6),
        dict(UNET, eps=1e-5, out_channels=32),
        dict(UNET, eps=1e-5, switch_spatial_to_temporal_mix=True),
        dict(VAE, eps=1e-6, temporal_eps=1e-5),
        dict(UNET, eps=1e-6, temporal_eps=1e-5, merge_factor=0.3, merge_strategy="fixed"),
        dict(UNET, eps=1e-5, temporal_eps=1e-6, merge_strategy="learned"),
    ],
    ids=["down", "up", "switched", "vae", "fixed", "learned"],
)
def test_spatio_temporal_resnet(backend, options, layout):
    """Every strategy of the blender, every pair of eps; small activations and frames of growing brightness show the eps and
    the pixels of the statistics."""
    block = randomize(SpatioTemporalResBlock(C, **options))
    x = randn(B * T, C, H, W, scale=0.003) + 0.003 * torch.arange(B * T)[:, None, None, None]
    inputs = {"x": in_layout(x, layout)}
    if options["temb_channels"]:
        inputs["temb"] = randn(B * T, EMB, seed=3)
    compare(
        block,
        lambda block, x, temb=None: block(x, temb, SOME_IMAGES),
        lambda block, x, temb=None, *, backend: svd.spatio_temporal_resnet(block, x, temb, SOME_IMAGES, backend=backend),
        inputs,
        backend,
    )


@pytest.mark.parametrize("switched", [False, True])
@pytest.mark.parametrize("strategy", AlphaBlender.strategies)
def test_spatial_share(strategy, switched):
    """What the two operators' `mix` gets is what the blender computes, also where every frame is an image."""
    blender = AlphaBlender(0.7, strategy, switched)
    spatial, temporal = randn(B, 4, T, H, W), randn(B, 4, T, H, W, seed=3)
    for images in (NO_IMAGES, SOME_IMAGES, torch.ones(B, T)):
        share = svd.spatial_share(blender, images)
        assert share.shape in ((), (B, T))
        share = share[:, None, :, None, None] if share.dim() else share
        blended = torch.lerp(temporal, spatial, share)
        torch.testing.assert_close(blended, blender(spatial, temporal, images), rtol=0, atol=1e-6)
