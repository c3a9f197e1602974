"""The attention, feed-forward layers and transformer blocks that diffusers' video models share.

Inside, a clip is (B, T, H, W, C); diffusers' (B*T, C, H, W) is a view of it. The `require_` functions ask whether a module can be
served; what computes asks nothing, so that an adapter asks all of it first.
"""

import torch
from torch import Tensor, nn

from ..nn.attention import ATTENTION, attention_layer
from ..nn.children import gated, is_plain, normed, what_is_around
from ..ops.checks import MAX_HEAD_DIM
from .adapter import Adapter
from .common import group_normalize, normalize, pointwise, some_at_a_time, with_zero_gradients
from .guards import class_of, identity, require, require_idle, require_known

# Processors that compute plain attention; any other may compute something else.
PLAIN_PROCESSORS = ("AttnProcessor", "AttnProcessor2_0", "SlicedAttnProcessor", "XFormersAttnProcessor")
LEAST_ROWS, AT_A_TIME = 1024, 1 << 22  # of a feed-forward layer, and elements inside it


def split_frames(hidden_states: Tensor, num_frames: int) -> Tensor:
    """(B*T, C, H, W) as (B, T, H, W, C), a view."""
    return hidden_states.unflatten(0, (-1, num_frames)).movedim(2, -1)


def merge_frames(x: Tensor) -> Tensor:
    """(B, T, H, W, C) as (B*T, C, H, W): a view of what the operators return."""
    return x.movedim(-1, 2).flatten(0, 1)


# ---------------------------------------------------------------------------------------------------------- attention


def require_attention(attn: nn.Module) -> None:
    """Raises Unserved unless an `Attention` computes to_out(softmax(scale * q k^T) v) and nothing more."""
    require_known(attn, "Attention")
    processor = identity(type(attn.processor))
    given = type(attn.processor).__name__
    require(processor in PLAIN_PROCESSORS, attn, f"its processor is {given}; expected one of {', '.join(PLAIN_PROCESSORS)}")
    for name in ("group_norm", "spatial_norm", "norm_cross", "norm_q", "norm_k", "add_k_proj"):
        require(getattr(attn, name, None) is None, attn, f"it has {name}")
    require(attn.inner_kv_dim == attn.inner_dim, attn, "its keys have fewer heads than its queries")
    require(not attn.residual_connection and attn.rescale_output_factor == 1, attn, "it adds or scales its output")
    head = attn.inner_dim // attn.heads
    require(head <= MAX_HEAD_DIM, attn, f"its heads have {head} channels; expected at most {MAX_HEAD_DIM}")
    require_idle(attn.to_out[1])


def scale_of(attn: nn.Module) -> float | None:
    """AttnProcessor2_0 takes no notice of the module's own; None is D ** -0.5."""
    return None if type(attn.processor).__name__ == "AttnProcessor2_0" else attn.scale


def self_attention(attn: nn.Module, x: Tensor, kind: str, *, backend: str | None, **around) -> Tensor:
    """`Attention` without a context, over the frames ("temporal") or pixels ("spatial") of x. around: its norm, pos_emb, gate and
    residual.
    """
    projections = attn.to_q, attn.to_k, attn.to_v
    return attention_layer(
        kind, projections, attn.to_out[0], x, num_heads=attn.heads, scale=scale_of(attn), backend=backend, **around
    )  # fmt: skip


def cross_attention(
    attn: nn.Module,
    x: Tensor,
    context: Tensor,
    *,
    norm: nn.Module | None = None,
    pos_emb: Tensor | None = None,
    residual: bool = True,
    backend: str | None,
) -> Tensor:
    """x + `Attention` from every pixel of x to a context; without residual, the attention alone.

    context: (B, S, E) shared by all pixels, (B, T, S, E) per frame, or (B, S, H, W, E) per pixel and shared by its frames;
    pos_emb: (T, C), added after the norm.
    """
    per_pixel = context.dim() == 5
    to_v, to_out = attn.to_v, attn.to_out[0]
    if context.shape[1 if per_pixel else -2] == 1 and is_plain(attn.to_q) and is_plain(attn.to_k):
        # The softmax over one token is 1: neither queries nor keys matter.
        out = to_out(to_v(context))
        out = out.reshape(*out.shape[:-1], *[1] * (x.dim() - out.dim()), out.shape[-1])
        idle = [attn.to_q, attn.to_k] + ([] if norm is None else [norm])
        weights = [parameter for module in idle for parameter in module.parameters()]
        out = with_zero_gradients(out, weights if residual else [x, *weights])
        return x + out if residual else out.expand(*x.shape[:-1], -1)
    h = x if norm is None else normalize(norm, x, backend=backend)
    if pos_emb is not None:
        h = h + pos_emb.to(h.dtype)[:, None, None]
    q, k, v = (t.unflatten(-1, (attn.heads, -1)) for t in (attn.to_q(h), attn.to_k(context), to_v(context)))  # (..., N, D)
    attend = ATTENTION["temporal" if per_pixel else "spatial"]
    out = to_out(attend(q, k, v, scale=scale_of(attn), backend=backend).flatten(-2))
    return x + out if residual else out


def attention(
    attn: nn.Module,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    backend: str | None = None,
    **cross_attention_kwargs,
) -> Tensor:
    """`Attention` by itself: hidden_states (M, L, C), encoder_hidden_states (M, S, E). Returns (M, L, Co)."""
    require_attention(attn)
    require(attention_mask is None, attn, "its attention is masked")
    require(not cross_attention_kwargs, attn, f"it is given {', '.join(cross_attention_kwargs)}")
    require(hidden_states.dim() == 3, attn, "its input is an image")
    x = as_sequences(hidden_states)
    if encoder_hidden_states is None:
        out = self_attention(attn, x, "spatial", norm=None, residual=None, backend=backend)
    else:
        require_context(attn, encoder_hidden_states, len(x))
        out = cross_attention(attn, x, encoder_hidden_states, residual=False, backend=backend)
    return out[:, 0, 0]


def as_sequences(hidden_states: Tensor) -> Tensor:
    """(M, L, C) as M clips (M, 1, 1, L, C) of one frame, whose pixels stand in one row."""
    return hidden_states[:, None, None]


# ------------------------------------------------------------------------------------------------------- feed-forward


def require_feed_forward(ff: nn.Module) -> None:
    require_known(ff, "FeedForward")


def is_geglu(projection: nn.Module) -> bool:
    """Whether the first layer of a `FeedForward` is GEGLU and nothing more."""
    return identity(class_of(projection)) == "GEGLU" and what_is_around(projection) is None


def feed_forward(ff: nn.Module, x: Tensor, *, backend: str | None) -> Tensor:
    """`FeedForward`; x (..., C)."""
    projection, *others = ff.net

    def compute(rows: Tensor) -> Tensor:
        h = gated(projection.proj, rows, backend) if is_geglu(projection) else projection(rows)
        for layer in others:
            h = layer(h)
        return h

    layers = getattr(projection, "proj", projection), others[-1]
    if what_is_around(projection) is not None or not all(map(is_plain, layers)):
        return compute(x)
    most = max(LEAST_ROWS, AT_A_TIME // others[-1].in_features)
    return some_at_a_time(compute, x.flatten(0, -2), most, layers).view(*x.shape[:-1], -1)


def require_geglu(ff: nn.Module) -> None:
    require_feed_forward(ff)
    require(is_geglu(ff.net[0]), ff, f"its activation is {class_of(ff.net[0]).__name__}; expected GEGLU")


def feed_forward_alone(ff: nn.Module, hidden_states: Tensor, *args, backend: str | None = None, **kwargs) -> Tensor:
    """`FeedForward` by itself: (..., C) to (..., Co)."""
    require_geglu(ff)
    require(not args and not kwargs, ff, "it is given more than its input")
    return feed_forward(ff, hidden_states, backend=backend)


# ------------------------------------------------------------------------------------------------ transformer blocks


def require_block(block: nn.Module, kind: str, num_frames: int | None = None) -> None:
    """Raises Unserved unless a `BasicTransformerBlock` with its parts can be served; ValueError for more than the num_frames of
    its position embeddings.
    """
    require_known(block, "BasicTransformerBlock")
    norms = ("layer_norm", "ada_norm_single")
    require(block.norm_type in norms, block, f"its norm_type is {block.norm_type!r}; expected one of {norms}")
    require(not block.only_cross_attention, block, "its attn1 attends to the context")
    require(block._chunk_size is None, block, "its feed-forward layer is chunked")
    if block.pos_embed is not None:
        require_known(block.pos_embed, "SinusoidalPositionalEmbedding")
        require(kind == "temporal", block, "it has position embeddings along the pixels")
        require(block.norm_type == "layer_norm", block, "it has position embeddings beside an adaptive norm")
        longest = block.pos_embed.pe.shape[1]
        if num_frames is not None and num_frames > longest:
            raise ValueError(
                f"{class_of(block).__name__}: {num_frames} frames; expected at most {longest}, as long as its position table is: "
                f"sample a longer clip in windows (pipe.enable_free_noise()), or build the motion module with a longer table"
            )
    require_attention(block.attn1)
    if block.attn2 is not None:
        require_attention(block.attn2)
    require_feed_forward(block.ff)


def transformer_block(
    block: nn.Module,
    x: Tensor,
    kind: str,
    *,
    context: Tensor | None = None,
    timestep: Tensor | None = None,
    backend: str | None,
) -> Tensor:
    """`BasicTransformerBlock` with layer norms or adaLN-single; x (B, T, H, W, C).

    kind: "temporal" where its sequence is the frames, "spatial" where it is the pixels. context: of attn2, as in
    `cross_attention`; without one attn2 attends as attn1 does. timestep: (B, 6*C) of adaLN-single.
    """
    if block.norm_type == "ada_norm_single":
        modulation = block.scale_shift_table + timestep.unflatten(-1, (6, -1))  # (B, 6, C)
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = modulation.unbind(1)
        norm_2, norm_3 = None, block.norm2  # attn2 has none here
    else:
        shift_msa = scale_msa = gate_msa = shift_mlp = scale_mlp = gate_mlp = None
        norm_2, norm_3 = block.norm2, block.norm3
    pos_emb = None if block.pos_embed is None else block.pos_embed.pe[0, : x.shape[1]]  # (T, C)
    h, norm = normed(block.norm1, x, scale_msa, shift_msa)
    x = self_attention(block.attn1, h, kind, norm=norm, pos_emb=pos_emb, gate=gate_msa, residual=x, backend=backend)
    if block.attn2 is not None and context is None:
        h, norm = (x, None) if norm_2 is None else normed(norm_2, x)
        x = self_attention(block.attn2, h, kind, norm=norm, pos_emb=pos_emb, residual=x, backend=backend)
    elif block.attn2 is not None:
        x = cross_attention(block.attn2, x, context, norm=norm_2, pos_emb=pos_emb, backend=backend)
    h = feed_forward(block.ff, normalize(norm_3, x, scale=scale_mlp, shift=shift_mlp, backend=backend), backend=backend)
    return x + h if gate_mlp is None else x.addcmul(gate_mlp[:, None, None, None], h)


def require_plain_call(module: nn.Module, cross_attention_kwargs: dict | None, **unserved) -> None:
    """Raises Unserved for what a transformer is called with and the operators do not compute."""
    more = {name for name in cross_attention_kwargs or {} if name != "scale"}  # which is not used, and warned of
    require(not more, module, f"cross_attention_kwargs has {', '.join(sorted(more))}")
    for name, value in unserved.items():
        require(value is None, module, f"it is given {name}")


def require_sequence_block(block: nn.Module) -> None:
    require_block(block, "spatial")


def basic_transformer_block(
    block: nn.Module,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    encoder_hidden_states: Tensor | None = None,
    encoder_attention_mask: Tensor | None = None,
    timestep: Tensor | None = None,
    cross_attention_kwargs: dict | None = None,
    class_labels: Tensor | None = None,
    added_cond_kwargs: dict | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """`BasicTransformerBlock` by itself, where what holds it is not served: hidden_states (M, L, C), context (M, S, E)."""
    require_sequence_block(block)
    require_plain_call(
        block, cross_attention_kwargs, attention_mask=attention_mask, encoder_attention_mask=encoder_attention_mask,
        class_labels=class_labels, added_cond_kwargs=added_cond_kwargs,
    )  # fmt: skip
    require_context(block, encoder_hidden_states, len(hidden_states))
    x = as_sequences(hidden_states)
    return transformer_block(block, x, "spatial", context=encoder_hidden_states, timestep=timestep, backend=backend)[:, 0, 0]


def require_context(module: nn.Module, context, clips: int) -> None:
    if context is not None:
        require(context.dim() == 3 and len(context) == clips, module, "its context is of another batch")


def require_transformer_2d(model: nn.Module) -> None:
    require_known(model, "Transformer2DModel")
    require(model.is_input_continuous, model, "its input is not an image")
    require_no_checkpoints(model)
    for block in model.transformer_blocks:
        require_block(block, "spatial")
        require(block.norm_type == "layer_norm", block, "its norm is adaptive")


def transformer_2d(
    model: nn.Module,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None = None,
    timestep: Tensor | None = None,
    added_cond_kwargs: dict | None = None,
    class_labels: Tensor | None = None,
    cross_attention_kwargs: dict | None = None,
    attention_mask: Tensor | None = None,
    encoder_attention_mask: Tensor | None = None,
    return_dict: bool = True,
    *,
    backend: str | None = None,
):
    """`Transformer2DModel` of images: hidden_states (M, C, H, W), encoder_hidden_states (M, S, E)."""
    require_transformer_2d(model)
    require_plain_call(
        model, cross_attention_kwargs, attention_mask=attention_mask, encoder_attention_mask=encoder_attention_mask,
    )  # fmt: skip
    require_context(model, encoder_hidden_states, len(hidden_states))
    x = split_frames(hidden_states, 1)
    takes = "rows" if model.use_linear_projection else "frames"
    h = pointwise(model.proj_in, group_normalize(model.norm, x, scope="frame", backend=backend), takes)
    for block in model.transformer_blocks:
        h = transformer_block(block, h, "spatial", context=encoder_hidden_states, backend=backend)
    out = hidden_states + merge_frames(pointwise(model.proj_out, h, takes))
    if not return_dict:
        return (out,)
    from diffusers.models.modeling_outputs import Transformer2DModelOutput

    return Transformer2DModelOutput(sample=out)


def require_no_checkpoints(model: nn.Module) -> None:
    on = getattr(model, "gradient_checkpointing", False) and torch.is_grad_enabled()
    require(not on, model, "gradient checkpointing is on, which acts on each of its blocks")


def require_temporal_transformer(model: nn.Module, num_frames: int | None = None) -> None:
    require_known(model, "TransformerTemporalModel", "AnimateDiffTransformer3D")
    for block in model.transformer_blocks:
        require_block(block, "temporal", num_frames)
        require(block.norm_type == "layer_norm", block, "its norm is adaptive")


def temporal_transformer(
    model: nn.Module,
    hidden_states: Tensor,
    num_frames: int,
    *,
    encoder_hidden_states: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """`TransformerTemporalModel` and `AnimateDiffTransformer3D`: group norm over the clip, then blocks over its frames.

    hidden_states: (B*T, C, H, W); encoder_hidden_states: (B*H*W, S, E). Returns (B*T, C, H, W).
    """
    require_temporal_transformer(model, num_frames)
    x = split_frames(hidden_states, num_frames)
    B, _, H, W, _ = x.shape
    context = encoder_hidden_states
    if context is not None:
        require(context.dim() == 3 and len(context) == B * H * W, model, "its context is not one a pixel")
        context = context.unflatten(0, (B, H, W)).movedim(3, 1)
    h = model.proj_in(group_normalize(model.norm, x, scope="clip", backend=backend))
    for block in model.transformer_blocks:
        h = transformer_block(block, h, "temporal", context=context, backend=backend)
    return hidden_states + merge_frames(model.proj_out(h))


ADAPTERS = {
    "Attention": Adapter(attention, require_attention, ("attention",), "one call for q, k, v, attention and output"),
    "FeedForward": Adapter(feed_forward_alone, require_geglu, ("feedforward",), "GEGLU in its product"),
    "BasicTransformerBlock": Adapter(
        basic_transformer_block, require_sequence_block, ("attention", "feedforward"), "norms, attention and GEGLU fused"
    ),
    "Transformer2DModel": Adapter(
        transformer_2d, require_transformer_2d, ("attention", "feedforward"), "norms, attention and GEGLU fused, no permutes"
    ),
}
