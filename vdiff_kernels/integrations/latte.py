"""Latte (diffusers' LatteTransformer3DModel): spatial and temporal transformer blocks in turn, with adaLN-single."""

from torch import Tensor, nn

from .adapter import Adapter
from .common import normalize
from .diffusers_transformers import require_block, require_no_checkpoints, transformer_block
from .guards import require, require_known


def require_transformer(model: nn.Module) -> None:
    require_known(model, "LatteTransformer3DModel")
    require_no_checkpoints(model)
    for spatial, temporal in zip(model.transformer_blocks, model.temporal_transformer_blocks):
        for block, kind in ((spatial, "spatial"), (temporal, "temporal")):
            require_block(block, kind)
            require(block.norm_type == "ada_norm_single", block, "its norm is not adaLN-single")


def transformer(
    model: nn.Module,
    hidden_states: Tensor,
    timestep: Tensor | None = None,
    encoder_hidden_states: Tensor | None = None,
    encoder_attention_mask: Tensor | None = None,
    enable_temporal_attentions: bool = True,
    return_dict: bool = True,
    *,
    backend: str | None = None,
):
    """`LatteTransformer3DModel`: hidden_states (B, C, T, H, W), timestep (B,), encoder_hidden_states (B, S, E).

    Returns (B, Co, T, H, W). The tokens stay (B, T, H, W, C) from the first block to the last.
    """
    require_transformer(model)
    require(encoder_attention_mask is None, model, "it is given encoder_attention_mask")
    require(encoder_hidden_states is not None, model, "it is given no context")
    B, _, T, height, width = hidden_states.shape
    p = model.config.patch_size
    x = model.pos_embed(hidden_states.transpose(1, 2).flatten(0, 1))  # (B*T, H*W, C)
    x = x.contiguous().view(B, T, height // p, width // p, -1)
    sizes = {"resolution": None, "aspect_ratio": None}
    modulation, embedded = model.adaln_single(timestep, sizes, batch_size=B, hidden_dtype=x.dtype)  # (B, 6*C), (B, C)
    context = model.caption_projection(encoder_hidden_states)
    for i, (spatial, temporal) in enumerate(zip(model.transformer_blocks, model.temporal_transformer_blocks)):
        x = transformer_block(spatial, x, "spatial", context=context, timestep=modulation, backend=backend)
        if enable_temporal_attentions:
            if i == 0 and T > 1:
                x = x + model.temp_pos_embed[0, :, None, None].to(x.dtype)
            x = transformer_block(temporal, x, "temporal", timestep=modulation, backend=backend)
    shift, scale = (model.scale_shift_table + embedded[:, None]).unbind(1)
    x = model.proj_out(normalize(model.norm_out, x, scale=scale, shift=shift, backend=backend))
    x = x.unflatten(-1, (p, p, -1)).transpose(3, 4)  # (B, T, H, p, W, p, Co)
    # The original's order in memory: frame by frame.
    out = x.reshape(B, T, height // p * p, width // p * p, -1).movedim(-1, 2).contiguous().transpose(1, 2)
    if not return_dict:
        return (out,)
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    return Transformer2DModelOutput(sample=out)


ADAPTERS = {
    "LatteTransformer3DModel": Adapter(
        transformer, require_transformer, ("attention", "feedforward"),
        "adaptive norms, attention and gates fused, no permute from the first block to the last",
    ),
}  # fmt: skip
