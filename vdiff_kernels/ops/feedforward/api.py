"""geglu makes its call."""

from torch import Tensor

from ..autograd import run
from ..tensors import autocast
from .call import GegluCall


def geglu(x: Tensor, weight: Tensor, bias: Tensor | None, *, backend: str | None = None) -> Tensor:
    """The gated projection of a feed-forward layer: a * gelu(b), [a | b] = linear(x, weight, bias).

    Args:
        x: (..., C), float32, float64, float16 or bfloat16.
        weight: (2E, C), x's dtype: a's rows, then b's, as diffusers orders them.
        bias: (2E,), x's dtype or float32 beside a half x, or None.
        backend: None (auto), "reference", "composed", "cpu", "cuda" or "triton".

    Returns (..., E) in x's dtype, contiguous. The fused backends save x and weight for backward.

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: Shazeer 2020 (arXiv 2002.05202).
    """
    x, weight = autocast(x, weight)
    return run(GegluCall("geglu", x, weight, bias), backend)
