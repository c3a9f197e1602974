"""Reference models made of `vdiff_kernels.nn`."""

from .video_unet import VideoUNet

__all__ = ["VideoUNet"]
