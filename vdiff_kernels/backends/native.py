"""The compiled library as two backends: its operators are the same for both, told apart by the dispatcher."""

import torch

from .. import library
from ..ops.attention.call import AttentionCall, LayerCall
from ..ops.call import Call
from ..ops.conv.call import ConvCall
from ..ops.feedforward.call import GegluCall
from ..ops.linear.call import LinearCall
from ..ops.norm.call import NormCall
from ..ops.schema import Kernels
from ..ops.tensors import wants_grad
from . import gpu
from .backend import Availability, Backend, Variant, attention_variant, dtype_name, missing

LOAD_ERROR = library.load()

MAX_PIXEL_CHANNELS = 4096  # kMaxPixelChannels, of csrc/norm/cuda_kernels.h.
MAX_TABLE = 1 << 18  # Entries of a bias whose gradient the whole layer sums: each of its tasks has a table of its own.


class Native(Backend):
    """Kernels of the compiled library for tensors of one device."""

    device: str

    def __init__(self, kernels: dict[str, Kernels]):
        """kernels: all that the library may hold; those that it does hold for this device are served."""
        key = self.device.upper()
        self.kernels = {
            operator: served
            for operator, served in kernels.items()
            if all(library.has_kernel(name, key) for name in served.schemas)
        }

    def availability(self):
        if LOAD_ERROR:
            return Availability(self.name, False, LOAD_ERROR)
        if not self.kernels:
            return Availability(self.name, False, f"the compiled library has no operator for {self.name}")
        return Availability(self.name, True, f"the compiled library serves {', '.join(sorted(self.kernels))}")

    def supports(self, call: Call):
        device = call.main.device.type
        if device != self.device:
            return f"it runs on {self.device} tensors and these are on {device}"
        if call.operator in self.kernels:
            return None
        return missing(call.operator) if self.kernels else self.availability().reason


class Cpu(Native):
    name = device = "cpu"

    def availability(self):
        state = super().availability()
        if not state:
            return state
        return Availability(self.name, True, f"{state.reason}, by {library.instruction_set()} kernels")

    def supports(self, call: Call):
        return super().supports(call) or (self._why_not_whole(call) if isinstance(call, LayerCall) else None)

    def _why_not_whole(self, call: LayerCall) -> str | None:
        """Why a layer is not computed in blocks of rows that stay in the cache, or None."""
        table = call.options.table
        if call.norm is not None and not call.norm.is_by_pixel:
            return "its whole layer has only norms of each pixel by itself"
        if call.gate is not None:
            return "its whole layer has no gate"
        if wants_grad(table) and table.numel() > MAX_TABLE:
            return f"its whole layer sums the gradient of at most {MAX_TABLE} entries of a bias"
        return None


class Cuda(Native):
    name = device = "cuda"

    def availability(self):
        state = super().availability()
        reason = gpu.why_not(None) if state else None
        return Availability(self.name, False, reason) if reason else state

    def supports(self, call: Call):
        reason = super().supports(call)
        if reason is None and call.main.dtype == torch.float64:
            return "it has no float64 kernels"
        norm = getattr(call, "norm", None)
        if reason is None and norm is not None and norm.kind != "group" and _channels(call) > MAX_PIXEL_CHANNELS:
            return f"its norms of each pixel have at most {MAX_PIXEL_CHANNELS} channels"
        return reason

    def why_not_here(self, call: Call):
        return gpu.why_not(call.main.device.index)

    def why_not_on(self, capability):
        return None if capability is None else gpu.why_too_old(capability, "a GPU")

    def variant(self, call: Call):
        dtype, index = dtype_name(call.main.dtype), call.main.device.index
        if isinstance(call, AttentionCall):
            longest = max(call.lengths)
            return attention_variant(call, next((rows for rows in (8, 16, 32) if longest <= rows), 0))
        if isinstance(call, GegluCall):
            is_odd = call.x.shape[-1] * call.x.dtype.itemsize % 16 != 0
            return Variant(call.operator, dtype, index, kinds=("odd",) if is_odd else ())
        channels, norm = _channels(call), getattr(call, "norm", None)
        kinds = () if norm is None else (norm.kind,)
        if getattr(call, "act", None):
            kinds = *kinds, call.act
        if isinstance(call, ConvCall):
            is_odd = channels * call.x.dtype.itemsize % 16 != 0
            kinds = *kinds, call.kind, *([] if call.has_few_channels else ["many"]), *(["odd"] if is_odd else [])
            return Variant(call.operator, dtype, index, kinds=kinds)
        if isinstance(call, (NormCall, LinearCall)):
            if (norm is None or norm.kind == "group") and channels % 8 == 0:
                channels = 0  # whole pieces: any number of them is computed alike
        return Variant(call.operator, dtype, index, D=channels, kinds=kinds)

    def digest(self):
        return f"library {library.digest()}"


def _channels(call: Call) -> int:
    """Of x, where a norm is over them."""
    return call.x.shape[-1 if isinstance(call, LinearCall) else 1]
