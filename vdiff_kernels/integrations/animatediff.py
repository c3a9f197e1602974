"""AnimateDiff's motion modules (diffusers' UNetMotionModel, MotionAdapter and SparseControlNetModel).

`AnimateDiffTransformer3D` is ModelScope's temporal transformer, whose blocks hold sinusoidal positions for after each norm.
"""

from .diffusers_blocks import temporal_transformer as motion_module

__all__ = ["motion_module"]
