"""ModelScope text-to-video (diffusers' UNet3DConditionModel, and I2VGenXL, which shares its layers)."""

from torch import Tensor, nn

from ..nn.layout import keep_format
from ..ops.conv.api import norm_act_conv
from ..ops.norm.spec import Norm
from .common import channels_last, require_no_dropout
from .diffusers_blocks import temporal_transformer

__all__ = ["temporal_conv_layer", "temporal_transformer"]


def temporal_conv_layer(layer: nn.Module, hidden_states: Tensor, num_frames: int, *, backend: str | None = None) -> Tensor:
    """`TemporalConvLayer`: x + four times [group norm over the clip, SiLU, 3x1x1 convolution]; (B*T, C, H, W) to the same."""
    x = channels_last(hidden_states.unflatten(0, (-1, num_frames)).transpose(1, 2))  # (B, C, T, H, W)
    h, stats = x, None
    stages = [layer.conv1, layer.conv2, layer.conv3, layer.conv4]
    for stage in stages:
        require_no_dropout(*stage)
        norm, conv = stage[0], stage[-1]
        arguments = dict(norm=Norm.of(norm, scope="clip"), act="silu", stats=stats, backend=backend)
        if stage is not stages[-1]:
            h, stats = norm_act_conv(h, conv.weight, conv.bias, return_stats=True, **arguments)
    out = norm_act_conv(h, conv.weight, conv.bias, residual=x, **arguments)
    return keep_format(out.transpose(1, 2).flatten(0, 1), hidden_states, 1)
