"""A pipeline small enough to sample in milliseconds, of random weights."""

from vdiff_kernels.data.moving_digits import VOCABULARY
from vdiff_kernels.diffusion import VideoDiffusion
from vdiff_kernels.models import VideoUNet

from ..random_weights import randomised_unet


def tiny(**options) -> VideoDiffusion:
    unet = VideoUNet(widths=(8, 16), blocks=1, head_dim=4, groups=4, embedding=16, patch=2, vocabulary=VOCABULARY)
    return VideoDiffusion(randomised_unet(unet).eval(), **{"num_frames": 4, "size": (16, 16), **options})
