"""The compiled library's attention: one set of operators for CPU and CUDA, told apart by the dispatcher."""

import torch

from ..library import longest_short_backward

_ops = torch.ops.vdiff_kernels

forward = {
    "temporal": _ops.temporal_attention_native.default,
    "spatial": _ops.spatial_attention_native.default,
}
backward = {
    "temporal": _ops.temporal_attention_native_backward.default,
    "spatial": _ops.spatial_attention_native_backward.default,
}
layer_forward = {
    "temporal": _ops.temporal_layer_native.default,
    "spatial": _ops.spatial_layer_native.default,
}
layer_backward = {
    "temporal": _ops.temporal_layer_native_backward.default,
    "spatial": _ops.spatial_layer_native_backward.default,
}


def backward_needs(kind: str, q: torch.Tensor, k: torch.Tensor) -> tuple[bool, bool]:
    """Whether the backward on q's device needs forward's out, and its log-sum-exp. The CPU's computes both again."""
    return (False, False) if q.device.type == "cpu" else cuda_backward_needs(kind, q, k)


def cuda_backward_needs(kind: str, q: torch.Tensor, k: torch.Tensor) -> tuple[bool, bool]:
    """Short sequences are computed again on chip, from q, k and v alone; what all frames share is not summed there."""
    L = q.shape[1] if kind == "temporal" else q.shape[2] * q.shape[3]
    S = k.shape[1] if kind == "temporal" else L if k.dim() == 6 else k.shape[-3]
    long = max(L, S) > longest_short_backward[q.element_size(), k.dim() == 4][q.shape[-1]]
    return long, long
