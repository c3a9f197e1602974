"""geglu: check the arguments once, choose the backend, call it."""

import torch
from torch import Tensor

from .. import checks
from ..backend import resolve
from . import autograd, reference


def geglu(x: Tensor, weight: Tensor, bias: Tensor | None, *, backend: str | None = None) -> Tensor:
    """The gated projection of a feed-forward layer: a * gelu(b), [a | b] = linear(x, weight, bias).

    Args:
        x: (..., C), float32, float64, float16 or bfloat16.
        weight: (2E, C), x's dtype: a's rows, then b's, as diffusers orders them.
        bias: (2E,), x's dtype or float32 beside a half x, or None.
        backend: None (auto), "reference", "cpu", "cuda" or "triton".

    Returns (..., E) in x's dtype, contiguous. The fused backends save x and weight for backward.

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: Shazeer 2020 (arXiv 2002.05202).
    """
    x, weight = checks.autocast(x, weight)
    _check_geglu(x, weight, bias)
    name = resolve(backend, "geglu", x)
    if name == "reference":
        with torch.autocast(x.device.type, enabled=False):
            return reference.geglu(x, weight, bias)
    return autograd.geglu(name, x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], weight.shape[0] // 2)


@checks.once
def _check_geglu(x, weight, bias) -> None:
    op = "geglu"
    checks.require_tensor(op, "x", x)
    checks.require_floating(op, "x", x)
    if x.dim() < 1:
        raise ValueError(f"{op}: x has shape (); expected at least 1 dimension (..., C)")
    checks.require_extents(op, "x", x, C=x.shape[-1])
    checks.require_like(op, "weight", weight, "x", x)
    if weight.dim() != 2 or weight.shape[0] % 2 != 0 or weight.shape[0] < 2 or weight.shape[1] != x.shape[-1]:
        raise ValueError(f"{op}: weight has shape {tuple(weight.shape)}; expected (2E, C) with C = {x.shape[-1]}")
    if bias is not None:
        checks.require_parameter(op, "bias", bias, "x", x, "(2E,)", (weight.shape[0],))
