"""diffusers' TransformerTemporalModel, TemporalConvLayer and ResnetBlock2D, as UNet3DConditionModel and I2VGenXL build them."""

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel

from vdiff_kernels.integrations import diffusers_resnets, modelscope

from .compare import compare, in_layout, randn, randomize

B, T, C, H, W = 2, 5, 24, 3, 5


def temporal(model, x, encoder_hidden_states=None):
    return model(x, encoder_hidden_states=encoder_hidden_states, num_frames=T, return_dict=False)[0]


def served_temporal(model, x, encoder_hidden_states=None, *, backend):
    return modelscope.temporal_transformer(model, x, T, encoder_hidden_states=encoder_hidden_states, backend=backend)


def test_double_self_attention(backend, layout):
    model = randomize(TransformerTemporalModel(3, 8, in_channels=C, norm_num_groups=4))
    assert model.norm.eps == 1e-6 and model.transformer_blocks[0].attn2 is not None
    compare(model, temporal, served_temporal, {"x": in_layout(randn(B * T, C, H, W), layout)}, backend)


def test_group_statistics_over_the_clip(backend):
    """Frames of very different brightness, small enough for eps 1e-6 to show: neither scope nor eps can be wrong."""
    model = randomize(TransformerTemporalModel(3, 8, in_channels=C, norm_num_groups=4))
    x = randn(B * T, C, H, W, scale=2e-3) + 2e-3 * torch.arange(B * T)[:, None, None, None]
    compare(model, temporal, served_temporal, {"x": x}, backend)


def test_transformer_in(backend):
    """The first transformer of the U-Net is wider inside than its input, with biases and two blocks here."""
    model = TransformerTemporalModel(2, 20, in_channels=C, norm_num_groups=6, num_layers=2, attention_bias=True)
    compare(randomize(model), temporal, served_temporal, {"x": randn(T, C, W, H)}, backend)


def test_single_attention(backend):
    model = TransformerTemporalModel(3, 8, in_channels=C, norm_num_groups=4, double_self_attention=False)
    assert model.transformer_blocks[0].attn2 is None
    compare(randomize(model), temporal, served_temporal, {"x": randn(B * T, C, H, W)}, backend)


@pytest.mark.parametrize("tokens", [1, 4])
def test_context_of_each_pixel(backend, tokens):
    model = TransformerTemporalModel(3, 8, in_channels=C, norm_num_groups=4, cross_attention_dim=10, double_self_attention=False)
    inputs = {"x": randn(B * T, C, H, W), "encoder_hidden_states": randn(B * H * W, tokens, 10, seed=3)}
    compare(randomize(model), temporal, served_temporal, inputs, backend)
    with torch.no_grad():  # One token then needs no queries and keys.
        out = served_temporal(model, **inputs, backend=backend)
    torch.testing.assert_close(out, temporal(model, **inputs), rtol=0, atol=2e-5)


@pytest.mark.parametrize("frames", [1, 5])
def test_temporal_conv_layer(backend, frames, layout):
    layer = randomize(TemporalConvLayer(C, C, dropout=0.1, norm_num_groups=4))
    assert {stage[0].eps for stage in (layer.conv1, layer.conv2, layer.conv3, layer.conv4)} == {1e-5}
    x = randn(B * frames, C, H, W, scale=0.01) + 0.01 * torch.arange(B * frames)[:, None, None, None]
    compare(
        layer,
        lambda layer, x: layer(x, num_frames=frames),
        lambda layer, x, backend: modelscope.temporal_conv_layer(layer, x, frames, backend=backend),
        {"x": in_layout(x, layout)},
        backend,
    )


@pytest.mark.parametrize(
    "options",
    [
        dict(out_channels=16, eps=1e-6),
        dict(eps=1e-5, time_embedding_norm="scale_shift", groups_out=3),
        dict(temb_channels=None, skip_time_act=True),
    ],
    ids=["shortcut", "scale-shift", "no-embedding"],
)
def test_resnet_2d(backend, options, layout):
    block = randomize(ResnetBlock2D(in_channels=C, groups=4, **{"temb_channels": 7, **options}))
    inputs = {"x": in_layout(randn(B * T, C, H, W, scale=0.01), layout)}
    if block.time_emb_proj is not None:
        inputs["temb"] = randn(B * T, 7, seed=3)
    compare(
        block,
        lambda block, x, temb=None: block(x, temb),
        lambda block, x, temb=None, *, backend: diffusers_resnets.resnet_2d(block, x, temb, backend=backend),
        inputs,
        backend,
    )


def test_dropout_is_refused():
    layer = TemporalConvLayer(C, C, dropout=0.1, norm_num_groups=4).train()
    with pytest.raises(ValueError, match="Dropout cannot be served: it is training"):
        modelscope.temporal_conv_layer(layer, randn(T, C, H, W), T, backend="reference")
    model = TransformerTemporalModel(3, 8, in_channels=C, norm_num_groups=4, dropout=0.2).train()
    with pytest.raises(ValueError, match="Dropout cannot be served"):
        modelscope.temporal_transformer(model, randn(T, C, H, W), T, backend="reference")


def test_unknown_attention_is_refused():
    model = TransformerTemporalModel(3, 8, in_channels=C, norm_num_groups=4).eval()
    attn = model.transformer_blocks[0].attn1
    attn.processor = object()
    with pytest.raises(ValueError, match="Attention cannot be served: its processor is object"):
        modelscope.temporal_transformer(model, randn(T, C, H, W), T, backend="reference")
