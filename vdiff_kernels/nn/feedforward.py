"""The gated feed-forward layer of transformer blocks."""

from torch import Tensor, nn

from ..ops import checks
from .children import gated
from .layout import require_backend, require_fits


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
        dim_out = dim if dim_out is None else dim_out
        name = type(self).__name__
        for argument, value in (("dim", dim), ("dim_out", dim_out), ("mult", mult)):
            checks.require_positive_int(name, argument, value)
        checks.require_bool(name, "bias", bias)
        require_backend(self, backend)
        inner = dim * mult
        self.dim, self.backend = dim, backend
        projection = nn.Module()
        projection.proj = nn.Linear(dim, inner * 2, bias=bias)
        # net.1 is the dropout of the layer replaced: nothing, kept for the names.
        self.net = nn.ModuleList([projection, nn.Identity(), nn.Linear(inner, dim_out, bias=bias)])

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., C). Returns (..., dim_out)."""
        name = type(self).__name__
        checks.require_floating_tensor(name, "x", x)
        if x.dim() < 1 or x.shape[-1] != self.dim:
            raise ValueError(f"{name}: x has shape {tuple(x.shape)}; expected (..., C) with C = {self.dim}")
        projection = self.net[0].proj
        require_fits(self, "x", x, projection)
        return self.net[2](gated(projection, x, self.backend))
