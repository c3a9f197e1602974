"""video-diffusion-pytorch, and its Unet3D. What reads its videos wants torchvision at import: a mock stands in."""

import importlib.util
import sys
import types
from unittest import mock

missing = importlib.util.find_spec("torchvision") is None
if missing:
    sys.modules["torchvision"] = types.ModuleType("torchvision")
    sys.modules["torchvision"].transforms = sys.modules["torchvision"].utils = mock.Mock()
try:
    import video_diffusion_pytorch.video_diffusion_pytorch as package
finally:
    if missing:  # Others ask whether it is installed.
        del sys.modules["torchvision"]

Unet3D = package.Unet3D

__all__ = ["Unet3D", "package"]
