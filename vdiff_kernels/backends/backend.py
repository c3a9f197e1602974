"""What a backend is."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..ops.attention.call import AttentionCall
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
    D: int = 0  # of an attention's heads, or the channels of a norm; 0: any
    bias: str | None = None  # "dense" or "rel"
    # "causal", "focus", "rotary"; of a context "shared" or "frames", and "keys"; of a norm its kind and activation; of a
    # convolution "spatial" or "temporal", and "many" channels; of a gated projection "odd": rows are no whole 16 bytes.
    kinds: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [self.operator, self.dtype, *([f"D {self.D}"] if self.D else [])]
        words += [f"up to {self.rows} rows" if self.rows else "long"] if "attention" in self.operator else []
        return ", ".join([*words, *([f"{self.bias} bias"] if self.bias else []), *self.kinds])


def attention_variant(call: AttentionCall, rows: int) -> Variant:
    """That of a call whose sequences fit into a tile of so many rows, 0 for none."""
    options = call.options
    kinds = {"causal": options.causal, "focus": options.focus_present is not None, "rotary": options.rotary is not None}
    if not call.is_temporal:
        kinds = {"shared": call.k.dim() == 4, "frames": call.k.dim() == 5, "keys": options.key_mask is not None}
    bias = None if options.table is None else "dense" if options.rel_bias is None else "rel"
    named = tuple(name for name, there in kinds.items() if there)
    return Variant(call.operator, dtype_name(call.q.dtype), call.q.device.index, rows, call.head_dim, bias, named)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


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

    def digest(self) -> str:
        """What a verdict of a variant is of: another where the kernels may be others."""
        return ""
