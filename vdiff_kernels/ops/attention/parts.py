"""An attention layer in parts, each by the backend that serves it best: norm_act, linear, attention, linear."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..autograd import run
from ..norm.call import NormCall
from ..tensors import without_autocast
from .call import AttentionCall, LayerCall


def layer(call: LayerCall, backend: str) -> Tensor:
    """gate * linear(attention(linear(norm(x) + pos_emb))) + residual; backend: of the attention."""
    with without_autocast(call.x):
        if call.norm is not None:
            x = run(NormCall("norm_act", call.x.movedim(-1, 1), call.norm), backend, is_part=True).movedim(1, -1)
            return run(replace(call, x=x, norm=None), backend, _without_norm, is_part=True)
        return _without_norm(call, backend)


def _without_norm(call: LayerCall, backend: str) -> Tensor:
    x, residual, gate = call.x, call.residual, call.gate
    if call.pos_emb is not None:
        x = x + call.pos_emb.to(x.dtype)[:, None, None, :]
    # No chunk and no concatenation stands between projection and kernel, in either direction.
    qkv = F.linear(x, call.w_qkv, call.b_qkv).unflatten(-1, (3, call.num_heads, -1))  # (B, T, H, W, 3, N, D)
    out = run(AttentionCall.packed(call.operator.replace("layer", "attention"), qkv, call.options), backend, is_part=True)
    if residual is not None and call.b_out is None and gate is None:  # the sum in the product's own pass
        rows = torch.addmm(residual.reshape(-1, residual.shape[-1]), out.flatten(-2).flatten(0, 3), call.w_out.T)
        return rows.view(residual.shape)
    out = F.linear(out.flatten(-2), call.w_out, call.b_out)
    if gate is not None:
        gate = gate.to(out.dtype)[:, None, None, None, :]  # (B, 1, 1, 1, Co)
        return gate * out if residual is None else torch.addcmul(residual, gate, out)
    return out if residual is None else out + residual
