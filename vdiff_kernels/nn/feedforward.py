"""The gated feed-forward layer of transformer blocks."""

from torch import Tensor, nn

from ..ops import checks
from ..ops.feedforward.api import geglu


class FeedForward(nn.Module):
    """linear(a * gelu(b)), [a | b] = linear(x): diffusers' FeedForward with GEGLU, same state_dict (`net.0.proj`, `net.2`).

    Source: Shazeer 2020 (arXiv 2002.05202).
    """

    def __init__(
        self,
        dim: int,                    # C.
        dim_out: int | None = None,  # Default dim.
        mult: int = 4,               # The inner width E is mult * dim.
        bias: bool = True,
        backend: str | None = None,
    ):  # fmt: skip
        super().__init__()
        for name, value in (("dim", dim), ("mult", mult)):
            checks.require_positive_int(type(self).__name__, name, value)
        inner = dim * mult
        self.dim, self.backend = dim, backend
        projection = nn.Module()
        projection.proj = nn.Linear(dim, inner * 2, bias=bias)
        # net.1 is the dropout of the layer replaced: nothing, kept for the names.
        self.net = nn.ModuleList([projection, nn.Identity(), nn.Linear(inner, dim_out or dim, bias=bias)])

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., C). Returns (..., dim_out)."""
        checks.require_tensor("FeedForward", "x", x)
        if x.dim() < 1 or x.shape[-1] != self.dim:
            raise ValueError(f"FeedForward: x has shape {tuple(x.shape)}; expected (..., C) with C = {self.dim}")
        projection = self.net[0].proj
        return self.net[2](geglu(x, projection.weight, projection.bias, backend=self.backend))
