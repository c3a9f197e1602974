"""Spatial attention by Triton: pixels and those of their frame, or a context, by the kernels of sequences of any length."""

from .long_attention import forward
from .long_attention_backward import backward
from .long_sequences import of_pixels, spatial


def spatial_attention(q, k, v, bias, rel_bias, scale, key_mask, return_lse):
    return forward(spatial(q, k, v, bias, rel_bias, scale, key_mask), q, return_lse)


def spatial_attention_backward(grad_out, q, k, v, out, lse, bias, rel_bias, scale, key_mask, packed, need_bias_grad):
    of = spatial(q, k, v, bias, rel_bias, scale, key_mask)
    table = rel_bias if bias is None else bias
    return backward(of, of_pixels(grad_out, q.shape[1]), q, k, v, out, lse, packed, table if need_bias_grad else None)
