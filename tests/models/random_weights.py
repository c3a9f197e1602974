"""Random weights for a U-Net, so that no zero of an initialisation hides a mistake."""

import torch

from vdiff_kernels.models import VideoUNet


def randomised(unet: VideoUNet) -> VideoUNet:
    """Every parameter anew, the same in every dtype."""
    generator = torch.Generator().manual_seed(7)
    for parameter in unet.parameters():
        fan = parameter[0].numel() if parameter.dim() > 1 else 1
        values = torch.randn(parameter.shape, generator=generator) * fan**-0.5
        parameter.data = values + 1 if parameter.dim() == 1 else values
    unet.place.weight.data *= 0.1  # else a place is that of one position, whose rounding moves a frame, and all errors are its luck
    return unet
