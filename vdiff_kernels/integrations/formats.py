"""Between the first and the last convolution of a served U-Net, channels are innermost in memory, as the operators have them.

So no module copies its input and its result from one order to the other. The values are the same; what comes out of the model is
in the order that it would have had.
"""

from torch import Tensor, nn

from ..nn.layout import keep_format
from .adapter import Adapter
from .guards import class_of

# By class of a model: its first and its last convolution.
ENDS = {
    "diffusers.I2VGenXLUNet": ("conv_in", "conv_out"),
    "diffusers.TemporalDecoder": ("conv_in", "conv_out"),
    "diffusers.UNet3DConditionModel": ("conv_in", "conv_out"),
    "diffusers.UNetMotionModel": ("conv_in", "conv_out"),
    "diffusers.UNetSpatioTemporalConditionModel": ("conv_in", "conv_out"),
    "video_diffusion_pytorch.Unet3D": ("init_conv", "final_conv.1"),
}


def innermost(conv: nn.Module, x: Tensor, *, backend: str | None = None) -> Tensor:
    """The convolution's result with its channels innermost: (M, C, H, W) or (B, C, T, H, W)."""
    out = class_of(conv).forward(conv, x)
    return out.movedim(1, -1).contiguous().movedim(-1, 1)


def outermost(conv: nn.Module, x: Tensor, *, backend: str | None = None) -> Tensor:
    """The convolution's result contiguous, unless its weight asks for channels innermost."""
    return keep_format(class_of(conv).forward(conv, x), conv.weight, 1)


FIRST, LAST = Adapter(innermost), Adapter(outermost)
