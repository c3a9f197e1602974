"""The attention layers of the fused backends, composed from the operators: norm_act, linear, packed attention, linear."""

import torch
import torch.nn.functional as F

from ..norm.autograd import norm_act
from .autograd import attention_packed


def compose(kind, backend, x, w_qkv, b_qkv, w_out, b_out, bias, rel_bias, options, *, num_heads, norm, pos_emb, gate, residual):
    """gate * linear(attention(linear(norm(x) + pos_emb))) + residual on checked arguments; kind as in `attention_packed`."""
    with torch.autocast(x.device.type, enabled=False):
        h = x if norm is None else norm_act(backend, x, norm)
        if pos_emb is not None:
            h = h + pos_emb.to(h.dtype)[:, None, None, :]
        # No chunk and no concatenation stands between projection and kernel, in either direction.
        qkv = F.linear(h, w_qkv, b_qkv).unflatten(-1, (3, num_heads, -1))  # (B, T, H, W, 3, N, D)
        out = attention_packed(kind, backend, qkv, bias, rel_bias, options)
        out = F.linear(out.flatten(-2), w_out, b_out)
        if gate is not None:
            gate = gate.to(out.dtype)[:, None, None, None, :]  # (B, 1, 1, 1, Co)
            return gate * out if residual is None else torch.addcmul(residual, gate, out)
        return out if residual is None else out + residual
