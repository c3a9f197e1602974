"""Drop-in modules: parameters and shapes, no math. Each takes `backend=None` and loads the weights of what it replaces."""

from .attention import FactorizedAttention, SpatialAttention, TemporalAttention
from .blocks import Pseudo3DBlock, ResnetBlock3D
from .conv import NormActConv, Pseudo3DConv, SpatialConv, TemporalConv
from .feedforward import FeedForward
from .position import RelativePositionBias

__all__ = [
    "FactorizedAttention", "FeedForward", "NormActConv", "Pseudo3DBlock", "Pseudo3DConv", "RelativePositionBias",
    "ResnetBlock3D", "SpatialAttention", "SpatialConv", "TemporalAttention", "TemporalConv",
]  # fmt: skip
