"""diffusers' ResnetBlock2D and Upsample2D, which its image and video models share."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.children import is_plain, norm_conv
from ..nn.layout import keep_format
from .adapter import Adapter
from .common import channels_last, pointwise
from .guards import require, require_idle, require_known, require_silu


def require_resnet_2d(block: nn.Module) -> None:
    require_known(block, "ResnetBlock2D")
    require(block.upsample is None and block.downsample is None, block, "it resamples between norm and convolution")
    require_silu(block.nonlinearity)
    require(block.output_scale_factor == 1, block, f"its output_scale_factor is {block.output_scale_factor}")
    require_idle(block.dropout)


def shortcut(block: nn.Module, x: Tensor, takes: str) -> Tensor:
    """What a residual block adds to its convolutions; x (B, C, T, H, W), takes as in `pointwise`."""
    return x if block.conv_shortcut is None else pointwise(block.conv_shortcut, x.movedim(1, -1), takes).movedim(-1, 1)


def resnet_2d(
    block: nn.Module,
    input_tensor: Tensor,
    temb: Tensor | None = None,
    *args,
    return_stats: bool = False,
    backend: str | None = None,
    **kwargs,
):
    """`ResnetBlock2D`; input_tensor (B, C, H, W), temb (B, E). Returns (B, Co, H, W), or with return_stats that and its
    channel statistics (B, 1, Co, 2).

    A batch of images is a batch of clips of one frame, so that embeddings of each image may scale and shift.
    """
    require_resnet_2d(block)
    require(not args and not kwargs, block, "it is given more than an input and an embedding")
    x = channels_last(input_tensor.unsqueeze(2))  # (B, C, 1, H, W)
    if block.time_emb_proj is None:
        temb = None
    else:
        temb = block.time_emb_proj(temb if block.skip_time_act else F.silu(temb))
    scale = shift = None
    if block.time_embedding_norm == "scale_shift":
        (scale, shift), temb = temb.chunk(2, dim=1), None
    call = dict(act="silu", of_frames=True, backend=backend)
    h, stats = norm_conv(block.norm1, block.conv1, x, temb=temb, return_stats=True, **call)
    out = norm_conv(
        block.norm2, block.conv2, h, scale=scale, shift=shift, residual=shortcut(block, x, "frames"), stats=stats,
        return_stats=return_stats, **call,
    )  # fmt: skip
    out, *stats = out if return_stats else (out,)
    out = keep_format(out.squeeze(2), input_tensor, 1)
    return (out, *stats) if return_stats else out


def require_upsample_2d(block: nn.Module) -> None:
    require_known(block, "Upsample2D")
    plain = block.norm is None and block.interpolate and block.use_conv and not block.use_conv_transpose
    require(plain, block, "it is not the nearest neighbour and a convolution")
    conv = block.conv if block.name == "conv" else block.Conv2d_0
    is_3x3 = not is_plain(conv) or (conv.kernel_size, conv.padding, conv.stride) == ((3, 3), (1, 1), (1, 1))
    require(is_3x3, block, "its convolution is not 3 x 3 with padding 1")


def upsample_2d(block: nn.Module, hidden_states: Tensor, output_size=None, *args, backend: str | None = None, **kwargs) -> Tensor:
    """`Upsample2D` with a convolution after the nearest neighbour: (M, C, H, W) to (M, Co, 2H, 2W) or output_size."""
    require_upsample_2d(block)
    require(not args and not kwargs, block, "it is given more than an input and its size")
    conv = block.conv if block.name == "conv" else block.Conv2d_0
    size = dict(scale_factor=2.0) if output_size is None else dict(size=output_size)
    x = channels_last(hidden_states.unsqueeze(2)).squeeze(2)
    x = F.interpolate(x, mode="nearest", **size).unsqueeze(2)
    return keep_format(norm_conv(None, conv, x, of_frames=True, backend=backend).squeeze(2), hidden_states, 1)


ADAPTERS = {
    "ResnetBlock2D": Adapter(
        resnet_2d, require_resnet_2d, ("convolution",), "norm, SiLU, embedding and residual in the convolutions"
    ),
    "Upsample2D": Adapter(upsample_2d, require_upsample_2d, ("convolution",), "the 1x3x3 convolution"),
}
