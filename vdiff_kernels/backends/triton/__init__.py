"""Triton kernels as a backend: compiled on the user's machine, which needs a GPU's driver and no compiler.

An operator's kernels and what launches them stand in one file, which is imported when it is first called, and Triton with it:
that takes as long as all of this package.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import torch

from ...ops.attention.call import AttentionCall, LayerCall
from ...ops.attention.schema import is_short
from ...ops.call import Call
from ...ops.checks import HALF
from ...ops.conv.call import ConvCall
from ...ops.schema import Kernels, implement
from ...ops.tensors import power_of_2
from .. import gpu
from ..backend import Availability, Backend, Variant, attention_variant, dtype_name, missing

MINIMUM_TRITON = (3, 6)  # what PyTorch 2.10 brings
CACHE = "tuned.json"  # of tuning.py, in the user's cache

# Each operator's file and its function there; the arguments are those of the operator's schema.
FUNCTIONS = {
    "channel_stats": ("channel_stats", "channel_stats"),
    "temporal_attention": ("temporal_attention", "temporal_attention"),
    "temporal_attention_backward": ("temporal_attention", "temporal_attention_backward"),
    "spatial_attention": ("spatial_attention", "spatial_attention"),
    "spatial_attention_backward": ("spatial_attention", "spatial_attention_backward"),
    "norm_act": ("norm_act", "norm_act"),
    "norm_act_backward": ("norm_act_backward", "norm_act_backward"),
    "temporal_layer": ("whole_layer", "temporal_layer"),
    "temporal_layer_backward": ("whole_layer", "temporal_layer_backward"),
    "norm_linear": ("linear", "norm_linear"),
    "norm_linear_backward": ("linear", "norm_linear_backward"),
    "norm_act_conv": ("conv", "norm_act_conv"),
    "norm_act_conv_backward": ("conv", "norm_act_conv_backward"),
    "geglu": ("geglu", "geglu"),
    "geglu_backward": ("geglu", "geglu_backward"),
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
        return self._why_not_whole(call) if isinstance(call, LayerCall) else None

    def _why_not_whole(self, call: LayerCall) -> str | None:
        """Why a layer is not one launch, or None."""
        T, C, D, Co = call.x.shape[1], call.x.shape[4], call.head_dim, call.w_out.shape[0]
        if call.norm is not None and not call.norm.is_by_pixel:
            return "its whole layer has only norms of each pixel by itself"
        if call.gate is not None:
            return "its whole layer has no gate"
        if call.x.dtype not in HALF:
            return "its whole layer is of half types"
        if T > MAX_LAYER_FRAMES or D > MAX_LAYER_HEAD_DIM or max(C, Co) > MAX_LAYER_CHANNELS:
            most = f"{MAX_LAYER_FRAMES} frames, {MAX_LAYER_CHANNELS} channels and head dims of {MAX_LAYER_HEAD_DIM}"
            return f"its whole layer has at most {most}"
        return None

    def why_not_here(self, call: Call):
        return why_no_triton() or (None if is_interpreted() else gpu.why_no_gpu(call.main.device.index))

    def why_not_on(self, capability):
        return why_no_triton() or (None if capability is None else gpu.why_too_old(capability, "a GPU"))

    def variant(self, call: Call):
        if is_interpreted():
            return None
        if isinstance(call, AttentionCall):
            T, S = call.lengths
            is_one_tile = call.is_temporal and is_short(T, S, call.head_dim, call.main.dtype.itemsize)
            return attention_variant(call, power_of_2(max(T, S)) if is_one_tile else 0)
        if isinstance(call, LayerCall):
            call = replace(call.core(), operator=call.operator)
            return attention_variant(call, power_of_2(call.lengths[0]))
        norm = getattr(call, "norm", None)
        kinds, channels = [] if norm is None else [norm.kind], 0
        if call.operator == "norm_act" and norm.is_by_pixel:
            channels = call.main.shape[1]  # which are one tile
        if getattr(call, "act", None):
            kinds.append(call.act)
        if isinstance(call, ConvCall):
            kinds += [call.kind, *([] if call.has_few_channels else ["many"])]
        return Variant(call.operator, dtype_name(call.main.dtype), call.main.device.index, D=channels, kinds=tuple(kinds))

    def digest(self):
        return digest_of_kernels()


MAX_LAYER_FRAMES, MAX_LAYER_CHANNELS, MAX_LAYER_HEAD_DIM = 32, 128, 64


@functools.cache
def digest_of_kernels() -> str:
    """Another where Triton or the kernels are others."""
    texts = (path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return f"Triton {_version()}, kernels {hashlib.sha256(b''.join(texts)).hexdigest()[:16]}"


def is_interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter, on tensors of any device, slowly: what TRITON_INTERPRET=1 asks for."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@gpu.constant_in_graphs
def why_no_triton() -> str | None:
    """Why Triton is not there, or None; asked once a process."""
    return _why_no_triton()


@functools.cache
def _why_no_triton() -> str | None:
    try:
        found = importlib.util.find_spec("triton")
    except ImportError:
        found = None
    if found is None or found.origin is None:  # a folder of that name is none
        return "Triton is not installed (pip install triton)"
    if tuple(int(part) for part in _version().split(".")[:2]) < MINIMUM_TRITON:
        return f"Triton {_version()} is too old; expected {'.'.join(map(str, MINIMUM_TRITON))} or newer"
    return None


def _version() -> str:
    """Triton's, without importing it where that can be."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:  # it came under another name, as with PyTorch's nightly builds
        return importlib.import_module("triton").__version__


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
