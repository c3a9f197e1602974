"""ModelScope text-to-video (diffusers' UNet3DConditionModel, and I2VGenXL, which shares its layers)."""

from torch import Tensor, nn

from ..nn.children import norm_conv
from ..nn.layout import keep_format
from .adapter import Adapter
from .common import channels_last
from .diffusers_transformers import require_plain_call, require_temporal_transformer, temporal_transformer
from .guards import require, require_idle, require_known, require_nothing_around, require_silu


def transformer_temporal_model(
    model: nn.Module,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None = None,
    timestep: Tensor | None = None,
    class_labels: Tensor | None = None,
    num_frames: int = 1,
    cross_attention_kwargs: dict | None = None,
    return_dict: bool = True,
    *,
    backend: str | None = None,
):
    """`TransformerTemporalModel`: (B*T, C, H, W) to the same; encoder_hidden_states (B*H*W, S, E)."""
    require_plain_call(model, cross_attention_kwargs)
    out = temporal_transformer(model, hidden_states, num_frames, encoder_hidden_states=encoder_hidden_states, backend=backend)
    if not return_dict:
        return (out,)
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModelOutput

    return TransformerTemporalModelOutput(sample=out)


def require_temporal_conv_layer(layer: nn.Module) -> None:
    require_known(layer, "TemporalConvLayer")
    for stage in _stages(layer):
        require(type(stage) is nn.Sequential, stage, "expected Sequential")
        require_nothing_around(stage)
        require_silu(stage[1])
        require_idle(*stage[2:-1])


def _stages(layer: nn.Module) -> tuple[nn.Module, ...]:
    return layer.conv1, layer.conv2, layer.conv3, layer.conv4


def temporal_conv_layer(layer: nn.Module, hidden_states: Tensor, num_frames: int = 1, *, backend: str | None = None) -> Tensor:
    """`TemporalConvLayer`: x + four times [group norm over the clip, SiLU, 3x1x1 convolution]; (B*T, C, H, W) to the same."""
    require_temporal_conv_layer(layer)
    stages = _stages(layer)
    x = channels_last(hidden_states.unflatten(0, (-1, num_frames)).transpose(1, 2))  # (B, C, T, H, W)
    h, stats = x, None
    for stage in stages[:-1]:
        h, stats = norm_conv(
            stage[0], stage[-1], h, scope="clip", act="silu", stats=stats, return_stats=True, backend=backend
        )  # fmt: skip
    out = norm_conv(stages[-1][0], stages[-1][-1], h, scope="clip", act="silu", stats=stats, residual=x, backend=backend)
    return keep_format(out.transpose(1, 2).flatten(0, 1), hidden_states, 1)


ADAPTERS = {
    "TransformerTemporalModel": Adapter(
        transformer_temporal_model, require_temporal_transformer, ("attention", "feedforward"),
        "norms, attention over frames and GEGLU fused, no permutes",
    ),
    "TemporalConvLayer": Adapter(
        temporal_conv_layer, require_temporal_conv_layer, ("convolution",), "norm, SiLU and residual in the 3x1x1 convolutions"
    ),
}  # fmt: skip
