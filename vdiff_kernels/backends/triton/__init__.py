"""Triton kernels as a backend: compiled on the user's machine, which needs a GPU's driver and no compiler.

An operator's kernels and what launches them stand in one file, which is imported when it is first called, and Triton with it:
that takes as long as all of this package.
"""

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import os

import torch

from ...ops.call import Call
from ...ops.schema import Kernels, implement
from .. import gpu
from ..backend import Availability, Backend, missing

MINIMUM_TRITON = (3, 4)

# Each operator's file and its function there; the arguments are those of the operator's schema.
FUNCTIONS = {
    "channel_stats": ("channel_stats", "channel_stats"),
}


class Triton(Backend):
    name = "triton"

    def __init__(self, kernels: dict[str, Kernels]):
        """kernels: of operators that may have a function here; those that have one are served."""
        self.kernels = {operator: served for operator, served in kernels.items() if operator in FUNCTIONS}

    def availability(self):
        reason = why_no_triton() or (None if is_interpreted() else gpu.why_no_gpu(None))
        if reason:
            return Availability(self.name, False, reason)
        how = "Triton's interpreter, on a CPU, runs" if is_interpreted() else "Triton compiles"
        return Availability(self.name, True, f"{how} {', '.join(sorted(self.kernels))}")

    def supports(self, call: Call):
        device = call.main.device.type
        if device != "cuda" and not (device == "cpu" and is_interpreted()):
            return f"it runs on cuda tensors and these are on {device}"
        if call.operator not in self.kernels:
            return missing(call.operator)
        if call.main.dtype == torch.float64:
            return "it has no float64 kernels"
        return None

    def why_not_here(self, call: Call):
        return why_no_triton() or (None if is_interpreted() else gpu.why_no_gpu(call.main.device.index))

    def why_not_on(self, capability):
        return None if capability is None else gpu.why_too_old(capability, "a GPU")


def is_interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter, on tensors of any device, slowly: what TRITON_INTERPRET=1 asks for."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def why_no_triton() -> str | None:
    """Why Triton is not there, or None; asked once a process."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    version = importlib.metadata.version("triton")
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_TRITON:
        return f"Triton {version} is too old; expected {'.'.join(map(str, MINIMUM_TRITON))} or newer"
    return None


def _function(module: str, name: str):
    def call(*arguments):
        function = getattr(importlib.import_module(f".{module}", __name__), name)
        device = arguments[0].device
        with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
            return function(*arguments)

    return call


for _operator, _where in FUNCTIONS.items():
    for _key in ("CUDA", "CPU"):
        implement(_operator, "triton", _function(*_where), _key)
