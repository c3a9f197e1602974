"""video-diffusion-pytorch, and its Unet3D."""

from vdiff_kernels.bench.peers import video_diffusion_pytorch

package = video_diffusion_pytorch()
Unet3D = package.Unet3D

__all__ = ["Unet3D", "package"]
