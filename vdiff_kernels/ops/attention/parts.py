"""An attention layer in parts, each by the backend that serves it best: linear, attention, linear."""

from dataclasses import replace

from torch import Tensor

from ...backends import registry
from ..autograd import run
from ..linear.api import in_parts
from ..linear.call import LinearCall
from ..norm.call import NormCall
from ..tensors import without_autocast
from .call import AttentionCall, LayerCall


def layer(call: LayerCall, backend: str) -> Tensor:
    """gate * linear(attention(linear(norm(x) + pos_emb))) + residual; backend: of the attention."""
    with without_autocast(call.x):
        if call.norm is not None and registry.serves_whole(backend, replace(call, norm=None)):
            x = run(NormCall("norm_act", call.x.movedim(-1, 1), call.norm), backend, is_part=True).movedim(1, -1)
            return run(replace(call, x=x, norm=None), backend, _of_three, is_part=True)
        return _of_three(call, backend)


def _of_three(call: LayerCall, backend: str) -> Tensor:
    # No chunk and no concatenation stands between projection and kernel, in either direction.
    before = LinearCall("norm_linear", call.x, call.w_qkv, call.b_qkv, call.norm, call.pos_emb)
    qkv = run(before, backend, in_parts, is_part=True).unflatten(-1, (3, call.num_heads, -1))  # (B, T, H, W, 3, N, D)
    out = run(AttentionCall.packed(call.operator.replace("layer", "attention"), qkv, call.options), backend, is_part=True)
    after = LinearCall("norm_linear", out.flatten(-2), call.w_out, call.b_out, gate=call.gate, residual=call.residual)
    return run(after, backend, in_parts, is_part=True)
