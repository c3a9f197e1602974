"""The compiled library's attention: one set of operators for CPU and CUDA, told apart by the dispatcher."""

import torch

_ops = torch.ops.vdiff_kernels

forward = {
    "temporal": _ops.temporal_attention_native.default,
    "spatial": _ops.spatial_attention_native.default,
}
backward = {
    "temporal": _ops.temporal_attention_native_backward.default,
    "spatial": _ops.spatial_attention_native_backward.default,
}
