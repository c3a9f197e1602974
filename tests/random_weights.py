"""Random parameters, so that no zero or one of an initialisation hides a mistake."""

import torch
from torch import nn

from vdiff_kernels.models import VideoUNet


def randomised(module: nn.Module) -> nn.Module:
    """Every parameter anew, the same in every dtype."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        fan = parameter[0].numel() if parameter.dim() > 1 else 1
        values = torch.randn(parameter.shape, generator=generator) * fan**-0.5
        parameter.data = values + 1 if parameter.dim() == 1 else values
    return module


def randomised_unet(unet: VideoUNet) -> VideoUNet:
    """The same; its places are of several positions, for of one alone rounding moves a frame, and all errors are its luck."""
    randomised(unet).place.weight.data *= 0.1
    return unet
