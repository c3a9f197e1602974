"""The compiled library's norms: one set of operators for CPU and CUDA, told apart by the dispatcher."""

import torch

_ops = torch.ops.vdiff_kernels

channel_stats = _ops.channel_stats_native.default
forward = _ops.norm_act_native.default
backward = _ops.norm_act_native_backward.default
