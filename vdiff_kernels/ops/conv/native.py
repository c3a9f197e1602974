"""The compiled library's convolutions: one set of operators for CPU and CUDA, told apart by the dispatcher."""

import torch

forward = torch.ops.vdiff_kernels.norm_act_conv_native.default
backward = torch.ops.vdiff_kernels.norm_act_conv_native_backward.default
