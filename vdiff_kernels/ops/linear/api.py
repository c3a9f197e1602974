"""norm_linear makes its call."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..autograd import run
from ..norm.api import norm_act
from ..norm.call import Norm, NormCall
from ..tensors import autocast, without_autocast
from .call import LinearCall


def norm_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm: Norm | None = None,
    pos_emb: Tensor | None = None,
    gate: Tensor | None = None,
    residual: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """A linear layer with the norm before it and what follows it folded in: gate * linear(norm(x) + pos_emb) + residual.

    Args:
        x: (B, T, H, W, C), float32, float64, float16 or bfloat16; any outer strides.
        weight: (Co, C), x's dtype; bias: (Co,), x's dtype, or float32 beside a half x.
        norm: over the channels of x; None for none.
        pos_emb: (T, C), added after the norm. x's dtype, or float32 beside a half x.
        gate: (B, Co), multiplies before the residual is added. x's dtype, or float32 beside a half x.
        residual: (B, T, H, W, Co), x's dtype.
        backend: None (auto), "reference", "composed", "cpu", "cuda" or "triton".

    Returns (B, T, H, W, Co) in x's dtype. "triton" and "cuda" make one product of it, whose tiles are normalised as they are
    read, and save x and the norm's statistics; every other backend runs norm_act, then PyTorch's linear. "cuda" copies images
    whose pixels do not lie at even steps.

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: the projections of Ho et al. 2022 (arXiv 2204.03458), section 3; the gate of Peebles and Xie 2023 (DiT).
    """
    cast_x, weight, bias, cast_residual = autocast(x, weight, bias, residual)
    call = LinearCall("norm_linear", cast_x, weight, bias, norm, pos_emb, gate, cast_residual)
    if cast_x is x and cast_residual is residual:
        return run(call, backend, in_parts)
    call.check()
    # As eager PyTorch under autocast: the norm in x's own dtype, the product in autocast's, the sum in the wider.
    if norm is not None and cast_x is not x:
        call.x, call.norm = norm_act(x.movedim(-1, 1), norm, backend=backend).movedim(1, -1).to(cast_x.dtype), None
    call.residual = None
    out = run(call, backend, in_parts)
    return out if residual is None else out + residual


def in_parts(call: LinearCall, backend: str) -> Tensor:
    """The norm by the backend, or what serves it best, and PyTorch's linear."""
    x, gate, residual = call.x, call.gate, call.residual
    with without_autocast(x):
        if call.norm is not None:
            x = run(NormCall("norm_act", x.movedim(-1, 1), call.norm), backend, is_part=True).movedim(1, -1)
        if call.pos_emb is not None:
            x = x + call.pos_emb.to(x.dtype)[:, None, None, :]
        bias = None if call.bias is None else call.bias.to(x.dtype)
        if residual is not None and bias is None and gate is None:  # the sum in the product's own pass
            rows = torch.addmm(residual.reshape(-1, residual.shape[-1]), x.flatten(0, 3), call.weight.T)
            return rows.view(residual.shape)
        out = F.linear(x, call.weight, bias)
        if gate is not None:
            gate = gate.to(out.dtype)[:, None, None, None, :]  # (B, 1, 1, 1, Co)
            return gate * out if residual is None else torch.addcmul(residual, gate, out)
        return out if residual is None else out + residual
