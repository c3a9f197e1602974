"""Fused kernels for video diffusion models with factorized space-time layers."""

from .interrupt import ending_quietly, starts_command

with ending_quietly(starts_command()):
    from . import nn
    from .ops.attention.api import spatial_attention, spatial_layer, temporal_attention, temporal_layer
    from .ops.backend import Availability, availability, backend
    from .ops.conv.api import norm_act_conv, pseudo3d_conv
    from .ops.feedforward.api import geglu
    from .ops.norm.api import norm_act
    from .ops.norm.spec import Norm

__version__ = "0.1.0"
__all__ = [
    "Availability", "Norm", "availability", "backend", "geglu", "nn", "norm_act", "norm_act_conv", "pseudo3d_conv",
    "spatial_attention", "spatial_layer", "temporal_attention", "temporal_layer",
]  # fmt: skip
