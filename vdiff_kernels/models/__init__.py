"""Reference models made of `vdiff_kernels.nn`."""

from .text import WordEncoder
from .video_unet import VideoUNet

__all__ = ["VideoUNet", "WordEncoder"]
