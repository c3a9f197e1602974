"""Temporal attention by Triton: sequences of frames that a program holds whole by kernels of their own, longer ones in tiles."""

from ...ops.attention.schema import is_short
from . import short_attention
from .long_attention import temporal_forward
from .long_attention_backward import temporal_backward


def temporal_attention(q, k, v, *options):
    return (short_attention.forward if _is_short(q, k) else temporal_forward)(q, k, v, *options)


def temporal_attention_backward(grad_out, q, k, v, *options):
    return (short_attention.backward if _is_short(q, k) else temporal_backward)(grad_out, q, k, v, *options)


def _is_short(q, k) -> bool:
    return is_short(q.shape[1], k.shape[1], q.shape[-1], q.element_size())
