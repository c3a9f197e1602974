"""A pipeline small enough to sample in milliseconds, of random weights."""

from vdiff_kernels.data.moving_digits import VOCABULARY
from vdiff_kernels.diffusion import VideoDiffusion
from vdiff_kernels.models import VideoUNet, WordEncoder

from ..random_weights import randomised, randomised_unet


def tiny(**options) -> VideoDiffusion:
    text = randomised(WordEncoder(VOCABULARY, 16)).eval()
    unet = randomised_unet(VideoUNet(widths=(8, 16), blocks=1, head_dim=4, groups=4, embedding=16, patch=2)).eval()
    return VideoDiffusion(unet, text, **{"num_frames": 4, "size": (16, 16), **options})
