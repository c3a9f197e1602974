"""The compiled library's GEGLU: one set of operators for CPU and CUDA, told apart by the dispatcher."""

import torch

forward = torch.ops.vdiff_kernels.geglu_native.default
backward = torch.ops.vdiff_kernels.geglu_native_backward.default
