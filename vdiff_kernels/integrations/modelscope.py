"""ModelScope text-to-video (diffusers' UNet3DConditionModel, and I2VGenXL, which shares its layers)."""

from torch import Tensor, nn

from ..nn.layout import keep_format
from ..ops.conv.api import norm_act_conv
from .common import channels_last, norm_of, require_no_dropout, require_plain, weight_and_bias
from .diffusers_blocks import temporal_transformer

__all__ = ["temporal_conv_layer", "temporal_transformer"]


def temporal_conv_layer(layer: nn.Module, hidden_states: Tensor, num_frames: int, *, backend: str | None = None) -> Tensor:
    """`TemporalConvLayer`: x + four times [group norm over the clip, SiLU, 3x1x1 convolution]; (B*T, C, H, W) to the same."""
    require_plain(layer, "TemporalConvLayer")
    x = channels_last(hidden_states.unflatten(0, (-1, num_frames)).transpose(1, 2))  # (B, C, T, H, W)

    def convolve(stage, h, stats, **more):
        require_no_dropout(*stage)
        require_plain(stage, "Sequential")
        norm, (weight, bias) = norm_of(stage[0], scope="clip"), weight_and_bias(stage[-1], "Conv3d")
        return norm_act_conv(h, weight, bias, norm=norm, act="silu", stats=stats, backend=backend, **more)

    h, stats = x, None
    for stage in (layer.conv1, layer.conv2, layer.conv3):
        h, stats = convolve(stage, h, stats, return_stats=True)
    out = convolve(layer.conv4, h, stats, residual=x)
    return keep_format(out.transpose(1, 2).flatten(0, 1), hidden_states, 1)
