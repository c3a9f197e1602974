"""Packages of others that are measured and held to, where they ask at import for what they are not used with."""

import importlib.util
import sys
import types
from types import ModuleType
from unittest import mock


def video_diffusion_pytorch() -> ModuleType:
    """lucidrains' package. What reads its videos wants torchvision at import: where there is none, a mock stands in."""
    missing = importlib.util.find_spec("torchvision") is None
    if missing:
        sys.modules["torchvision"] = types.ModuleType("torchvision")
        sys.modules["torchvision"].transforms = sys.modules["torchvision"].utils = mock.Mock()
    try:
        return importlib.import_module("video_diffusion_pytorch.video_diffusion_pytorch")
    finally:
        if missing:  # Others ask whether it is installed.
            del sys.modules["torchvision"]
