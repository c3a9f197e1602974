"""AnimateDiff's motion modules (diffusers' UNetMotionModel, MotionAdapter and SparseControlNetModel)."""

from torch import Tensor, nn

from .diffusers_blocks import temporal_transformer


def motion_module(
    module: nn.Module,
    hidden_states: Tensor,
    num_frames: int,
    *,
    encoder_hidden_states: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """`AnimateDiffTransformer3D`: ModelScope's temporal transformer, with sinusoidal positions after each attention's norm.

    hidden_states: (B*T, C, H, W); encoder_hidden_states: (B*H*W, S, E). Returns (B*T, C, H, W).
    """
    return temporal_transformer(module, hidden_states, num_frames, encoder_hidden_states=encoder_hidden_states, backend=backend)
