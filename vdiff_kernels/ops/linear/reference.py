"""The definition of a linear layer with what stands around it, in eager PyTorch. `compute_dtype` as in ops/norm/reference.py."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..norm.call import Norm
from ..norm.reference import normalize
from ..tensors import acc_dtype


def norm_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm: Norm | None = None,
    pos_emb: Tensor | None = None,
    gate: Tensor | None = None,
    residual: Tensor | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """gate * linear(norm(x) + pos_emb, weight, bias) + residual.

    x (B, T, H, W, C), weight (Co, C), bias (Co,), pos_emb (T, C), gate (B, Co), residual (B, T, H, W, Co). Returns
    (B, T, H, W, Co) in x's dtype.
    """
    dtype = compute_dtype or acc_dtype(x.dtype)
    h = x.to(dtype)
    if norm is not None:
        h = normalize(h, norm)
    if pos_emb is not None:
        h = h + pos_emb.to(dtype)[:, None, None, :]
    y = F.linear(h, weight.to(dtype), None if bias is None else bias.to(dtype))
    if gate is not None:
        y = gate.to(dtype)[:, None, None, None, :] * y
    return (y if residual is None else y + residual.to(dtype)).to(x.dtype)
