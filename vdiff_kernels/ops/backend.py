"""Backend names, which one serves a call, and why one cannot.

An explicit backend that cannot serve a call raises with the reason; nothing falls back silently. `None` means auto: on CPU
"cpu", where the compiled library is there, else "reference"; on a GPU "cuda", else "triton", each as far as trust.py finds it right
there, else "reference" with a warning.
The default is plain module state, because a ContextVar or a warning would break `torch.compile(fullgraph=True)`.
"""

import os
import warnings
from dataclasses import dataclass

import torch

from . import checks, gpu, library, trust

BACKENDS = ("reference", "cpu", "cuda", "triton")

# What each public operator is made of, where a fused backend composes it from other operators.
COMPOSED_OF = {
    "temporal_layer": ("norm_act", "temporal_attention"),
    "spatial_layer": ("norm_act", "spatial_attention"),
    "pseudo3d_conv": ("norm_act_conv",),
}
NATIVE_OPERATORS = ("temporal_attention", "spatial_attention", "norm_act", "norm_act_conv", "geglu")


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


_load_error = library.load()


def _served_by(dispatch_key: str) -> frozenset[str]:
    """The public operators whose forward and backward kernels the compiled library holds for "CPU" or "CUDA"."""
    names = {
        name
        for name in NATIVE_OPERATORS
        if library.has_kernel(f"{name}_native", dispatch_key) and library.has_kernel(f"{name}_native_backward", dispatch_key)
    }
    names |= {name for name, parts in COMPOSED_OF.items() if names.issuperset(parts)}
    return frozenset(names)


_SERVED = {"cpu": _served_by("CPU"), "cuda": _served_by("CUDA"), "triton": frozenset()}
_default: str | None = os.environ.get("VDIFF_BACKEND") or None


def availability(name: str) -> Availability:
    """Whether backend `name` can run on this machine, with the reason. Raises ValueError for an unknown name."""
    _require_known(name, "availability: name")
    if name == "reference":
        return Availability(name, True, "eager PyTorch, on any device")
    if name == "triton":
        return Availability(name, False, "this version has no Triton kernels")
    if _load_error:
        return Availability(name, False, _load_error)
    if not _SERVED[name]:
        return Availability(name, False, f"the compiled library has no operator for {name}")
    served = f"the compiled library serves {', '.join(sorted(_SERVED[name]))}"
    if name != "cuda":
        return Availability(name, True, f"{served}, by {library.instruction_set()} kernels")
    reason = gpu.why_not(None)
    if reason:
        return Availability(name, False, reason)
    checked = ", ".join(trust.known(name)) or "nothing yet"
    return Availability(name, True, f"{served}; checked on this GPU: {checked}")


class backend:
    """Context manager: makes `name` the default backend. `None` means auto.

    >>> with vdiff_kernels.backend("reference"):
    ...     out = vdiff_kernels.temporal_attention(q, k, v)
    """

    def __init__(self, name: str | None):
        if name is not None:
            _require_known(name, "backend: name")
        self.name = name

    def __enter__(self):
        global _default
        self.previous, _default = _default, self.name
        return self

    def __exit__(self, *exception):
        global _default
        _default = self.previous


def resolve(name: str | None, operator: str, tensor: torch.Tensor) -> str:
    """The backend that serves `operator` on the device of `tensor`. Raises ValueError where an explicit one cannot."""
    if name is not None:
        _require_known(name, f"{operator}: backend")
    elif _default is not None:
        name = _default
        _require_known(name, "the environment variable VDIFF_BACKEND")  # class backend has checked any other
    else:
        return _auto(operator, tensor)
    reason = _why_not(name, operator, tensor)
    if reason:
        raise ValueError(
            f"{operator}: backend is {name!r}, which cannot serve this call: {reason}; expected {_usable(operator, tensor)}"
        )
    return name


def _require_known(name, what: str) -> None:
    if name not in BACKENDS:
        raise ValueError(f"{what} is {checks.shown(name)}; expected one of {', '.join(map(repr, BACKENDS))}")


def _why_not(name: str, operator: str, tensor: torch.Tensor) -> str | None:
    if name == "reference":
        return None
    device = tensor.device.type
    needed = "cpu" if name == "cpu" else "cuda"
    if device != needed:
        return f"it runs on {needed} tensors and these are on {device}"
    if operator not in _SERVED[name]:
        verdict = availability(name)
        return f"it has no {operator}" if verdict else verdict.reason
    if name != "cpu" and tensor.dtype == torch.float64:
        return "it has no float64 kernels"
    return gpu.why_not(tensor.device.index) if name == "cuda" else None


def _usable(operator: str, tensor: torch.Tensor) -> str:
    usable = [name for name in BACKENDS if _why_not(name, operator, tensor) is None]
    return "one of " + ", ".join(map(repr, usable))


def _auto(operator: str, tensor: torch.Tensor) -> str:
    if tensor.device.type == "cpu":
        return "cpu" if _why_not("cpu", operator, tensor) is None else "reference"
    reasons = {name: _why_not(name, operator, tensor) or _why_not_trusted(name, operator, tensor) for name in ("cuda", "triton")}
    for name, reason in reasons.items():
        if reason is None:
            return name
    if tensor.device.type == "cuda" and not torch.compiler.is_compiling():
        _warn_once(operator, reasons)
    return "reference"


def _why_not_trusted(name: str, operator: str, tensor: torch.Tensor) -> str | None:
    for part in COMPOSED_OF.get(operator, (operator,)):
        reason = trust.why_not(name, part, tensor.dtype, tensor.device.index)
        if reason:
            return reason
    return None


_warned: set[str] = set()


def _warn_once(operator: str, reasons: dict[str, str]) -> None:
    if operator not in _warned:
        _warned.add(operator)
        words = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        warnings.warn(f"vdiff_kernels: eager PyTorch serves {operator} on this GPU ({words})", stacklevel=4)
