"""What a backend is."""

from dataclasses import dataclass
from typing import NamedTuple

from ..ops.call import Call
from ..ops.schema import Kernels
from ..ops.tensors import without_autocast


@dataclass(frozen=True)
class Availability:
    """Whether a backend can run on this machine, and why (not). True where it can."""

    backend: str
    available: bool
    reason: str

    def __bool__(self) -> bool:
        return self.available

    def __str__(self) -> str:
        return f"{self.backend}: {'available' if self.available else 'not available'}: {self.reason}"


class Variant(NamedTuple):
    """Which of a backend's kernels serve a call, as far as a check must tell them apart; constants alone."""

    operator: str
    dtype: str
    index: int | None  # of the GPU; None: the current one
    rows: int = 0  # of the tile that a sequence fits into; 0: a long sequence, of several tiles
    D: int = 0  # of an attention's heads, or the channels of a norm
    bias: str | None = None  # "dense" or "rel"
    masks: tuple[str, ...] = ()  # "causal", "focus", "rotary"; of a context "shared" or "frames", and "keys"

    def __str__(self) -> str:
        words = [self.operator, self.dtype, f"D {self.D}"]
        words += [f"up to {self.rows} rows" if self.rows else "long"] if self.operator != "channel_stats" else []
        return ", ".join([*words, *([f"{self.bias} bias"] if self.bias else []), *self.masks])


def missing(operator: str) -> str:
    """The reason of a backend that has no kernels for an operator."""
    return f"it has no {operator}"


def by_pytorch(result) -> Kernels:
    """result(call), which carries PyTorch's own gradient, as what serves an operator. Out of autocast's reach: it chooses its own
    precision.
    """

    def forward(call: Call, save: bool):
        with without_autocast(call.main):
            return result(call), ()

    return Kernels(forward)


class Backend:
    """One way to serve operators. A subclass says of every call whether it can, and why not."""

    name: str
    kernels: dict[str, Kernels]  # what serves each operator, by the operator's name

    def availability(self) -> Availability:
        """Whether it can run on this machine."""
        raise NotImplementedError

    def supports(self, call: Call) -> str | None:
        """Why it cannot serve this call, or None. Looks at the call, whose tensors may be described, never at this machine."""
        raise NotImplementedError

    def why_not_here(self, call: Call) -> str | None:
        """Why this machine cannot run a call that it supports, or None."""
        return None

    def why_not_on(self, capability: tuple[int, int] | None) -> str | None:
        """Why no GPU of a compute capability (None: of any that is new enough) can run it, or None."""
        return None

    def variant(self, call: Call) -> Variant | None:
        """What auto holds to the definition before it first takes it for such a call. None: nothing."""
        return None
