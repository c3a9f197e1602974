"""The definition of the gated feed-forward projection, in eager PyTorch. `compute_dtype` as in ops/norm/reference.py."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tensors import acc_dtype


def geglu(x: Tensor, weight: Tensor, bias: Tensor | None, *, compute_dtype: torch.dtype | None = None) -> Tensor:
    """a * gelu(b) with [a | b] = linear(x, weight, bias), gelu exact: x (..., C), weight (2E, C), bias (2E,); out (..., E).

    Source: Shazeer 2020 (arXiv 2002.05202), halves ordered as diffusers' GEGLU.
    """
    dtype = compute_dtype or acc_dtype(x.dtype)
    a, b = F.linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)).chunk(2, dim=-1)
    return (a * F.gelu(b)).to(x.dtype)
