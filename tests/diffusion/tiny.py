"""A pipeline small enough to sample in milliseconds, of random weights."""

import torch

from vdiff_kernels.data.moving_digits import VOCABULARY
from vdiff_kernels.diffusion import VideoDiffusion
from vdiff_kernels.models import VideoUNet


def tiny(**options) -> VideoDiffusion:
    generator = torch.Generator().manual_seed(7)
    unet = VideoUNet(widths=(8, 16), blocks=1, head_dim=4, groups=4, embedding=16, patch=2, vocabulary=VOCABULARY)
    for parameter in unet.parameters():  # no zero of an initialisation hides a mistake
        fan = parameter[0].numel() if parameter.dim() > 1 else 1
        values = torch.randn(parameter.shape, generator=generator) * fan**-0.5
        parameter.data = values + 1 if parameter.dim() == 1 else values
    return VideoDiffusion(unet.eval(), **{"num_frames": 4, "size": (16, 16), **options})
