"""Temporal attention by Triton: short sequences of frames by kernels that hold them whole, long ones by others."""

from ...ops.attention.schema import is_short
from . import short_attention


def temporal_attention(q, k, v, *options):
    if _is_short(q, k):
        return short_attention.forward(q, k, v, *options)
    from . import long_attention

    return long_attention.temporal_forward(q, k, v, *options)


def temporal_attention_backward(grad_out, q, k, v, *options):
    if _is_short(q, k):
        return short_attention.backward(grad_out, q, k, v, *options)
    from . import long_attention

    return long_attention.temporal_backward(grad_out, q, k, v, *options)


def _is_short(q, k):
    return is_short(q.shape[1], k.shape[1], q.shape[-1], q.element_size())
