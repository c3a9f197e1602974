"""video-diffusion-pytorch's Unet3D. Its trainer, which no test runs, wants torchvision at import: a mock stands in."""

import importlib.util
import sys
import types
from unittest import mock

missing = importlib.util.find_spec("torchvision") is None
if missing:
    sys.modules["torchvision"] = types.ModuleType("torchvision")
    sys.modules["torchvision"].transforms = sys.modules["torchvision"].utils = mock.Mock()
try:
    from video_diffusion_pytorch import Unet3D
finally:
    if missing:  # Others ask whether it is installed.
        del sys.modules["torchvision"]

__all__ = ["Unet3D"]
