"""Between the first and the last convolution of a served U-Net, channels are innermost in memory, as the operators have them.

So no module copies its input and its result from one order to the other. The values are the same; what comes out of the model is
in the order that it would have had.
"""

from torch import Tensor, nn

from ..nn.layout import keep_format
from .adapter import Adapter, Patch
from .guards import class_of, key_of

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


def ends_of(root: nn.Module, served: set[int]) -> list[tuple[nn.Module, Patch]]:
    """What is to be patched of the models in root that have a module whose id is served."""
    ends = []
    for module in root.modules():
        names = ENDS.get(key_of(class_of(module)))
        if names is not None and any(id(inner) in served for inner in module.modules()):
            found = [module.get_submodule(name) for name in names]
            if all(type(conv) in (nn.Conv2d, nn.Conv3d) and "forward" not in vars(conv) for conv in found):
                ends += zip(found, (Patch(FIRST, None, names[0]), Patch(LAST, None, names[1])))
    return ends
