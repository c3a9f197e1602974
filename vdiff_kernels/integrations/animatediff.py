"""AnimateDiff's motion modules (diffusers' UNetMotionModel, MotionAdapter and SparseControlNetModel).

`AnimateDiffTransformer3D` is ModelScope's temporal transformer, whose blocks hold sinusoidal positions for after each norm.
"""

from torch import Tensor, nn

from .adapter import Adapter
from .diffusers_transformers import require_plain_call, require_temporal_transformer, temporal_transformer

motion_module = temporal_transformer


def animate_diff_transformer_3d(
    model: nn.Module,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None = None,
    timestep: Tensor | None = None,
    class_labels: Tensor | None = None,
    num_frames: int = 1,
    cross_attention_kwargs: dict | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """`AnimateDiffTransformer3D`: (B*T, C, H, W) to the same; encoder_hidden_states (B*H*W, S, E).

    Raises ValueError for more frames than its position table has.
    """
    require_plain_call(model, cross_attention_kwargs)
    return motion_module(model, hidden_states, num_frames, encoder_hidden_states=encoder_hidden_states, backend=backend)


ADAPTERS = {
    "AnimateDiffTransformer3D": Adapter(
        animate_diff_transformer_3d, require_temporal_transformer, ("attention", "feedforward"),
        "norms, positions, attention over frames and GEGLU fused, no permutes",
    ),
}  # fmt: skip
