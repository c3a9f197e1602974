"""Fused kernels for video diffusion models with factorized space-time layers."""

from .interrupt import ending_quietly, starts_command

with ending_quietly(starts_command()):
    from . import layers, nn
    from .backends import registry
    from .backends.backend import Availability, Variant
    from .backends.explain import explain
    from .backends.registry import availability, backend
    from .integrations import patch, patched, unpatch
    from .ops.attention.api import spatial_attention, spatial_layer, temporal_attention, temporal_layer
    from .ops.conv.api import norm_act_conv, pseudo3d_conv
    from .ops.feedforward.api import geglu
    from .ops.linear.api import norm_linear
    from .ops.norm.api import norm_act
    from .ops.norm.call import Norm

__version__ = "0.1.0"
__all__ = [
    "Availability", "Norm", "availability", "backend", "explain", "geglu", "layers", "nn", "norm_act", "norm_act_conv",
    "norm_linear", "patch", "patched", "pseudo3d_conv", "spatial_attention", "spatial_layer", "temporal_attention",
    "temporal_layer", "unpatch",
]  # fmt: skip


def _check_first(backend: str, variant: Variant) -> str | None:
    from .verify import verdicts  # stands above the backends, and is needed on a GPU alone

    return verdicts.why_not(backend, variant)


registry.first_use_check = _check_first
