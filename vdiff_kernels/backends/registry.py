"""One table of the operators, one of the backends, and which backend serves a call.

An explicit backend that cannot serve a call raises with the reason; nothing falls back silently. `None` means auto: the first of
`AUTO` that serves the call, on a GPU as far as its first use there was found right. A composed operator is served wherever its
core is: its other parts pick their own.

The default is plain module state, because a ContextVar or a warning would break `torch.compile(fullgraph=True)`.
"""

import contextlib
import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter

import torch
from torch import Tensor

from ..ops import checks
from ..ops.attention import reference as attention
from ..ops.attention import schema as attention_schema
from ..ops.call import Call, described
from ..ops.conv import reference as conv
from ..ops.conv import schema as conv_schema
from ..ops.conv.call import FEW_CHANNELS, ConvCall
from ..ops.feedforward import reference as feedforward
from ..ops.feedforward import schema as feedforward_schema
from ..ops.linear import reference as linear
from ..ops.linear import schema as linear_schema
from ..ops.norm import reference as norm
from ..ops.norm import schema as norm_schema
from ..ops.norm.call import StatsCall
from ..ops.schema import KINDS, Kernels
from ..ops.tensors import wants_grad
from .backend import Availability, Backend, Variant, missing
from .composed import Composed, is_library_attention
from .gpu import constant_in_graphs
from .native import Cpu, Cuda
from .reference import Reference
from .triton import Triton


@dataclass(frozen=True)
class Operator:
    """A row of the table. kernels: by kind, of the compiled library and of Triton. parts: the operators that a composed one is
    made of, its core first.
    """

    definition: Callable
    kernels: dict[str, Kernels] = field(default_factory=dict)
    parts: tuple[str, ...] = ()


def _kernels(schema, operator: str) -> dict[str, Kernels]:
    return {kind: table[operator] for kind, table in (("native", schema.NATIVE), ("triton", schema.TRITON)) if operator in table}


OPERATORS = {
    "temporal_attention": Operator(attention.temporal_attention, _kernels(attention_schema, "temporal_attention")),
    "spatial_attention": Operator(attention.spatial_attention, _kernels(attention_schema, "spatial_attention")),
    "temporal_layer": Operator(
        attention.temporal_layer,
        _kernels(attention_schema, "temporal_layer"),
        parts=("temporal_attention", "norm_linear"),
    ),
    "spatial_layer": Operator(
        attention.spatial_layer,
        _kernels(attention_schema, "spatial_layer"),
        parts=("spatial_attention", "norm_linear"),
    ),
    "channel_stats": Operator(norm.channel_stats, _kernels(norm_schema, "channel_stats")),
    "norm_act": Operator(norm.norm_act, _kernels(norm_schema, "norm_act")),
    "norm_act_conv": Operator(conv.norm_act_conv, _kernels(conv_schema, "norm_act_conv")),
    "pseudo3d_conv": Operator(conv.pseudo3d_conv, parts=("norm_act_conv",)),
    "norm_linear": Operator(linear.norm_linear, _kernels(linear_schema, "norm_linear"), parts=("norm_act",)),
    "geglu": Operator(feedforward.geglu, _kernels(feedforward_schema, "geglu")),
}


def _channel_stats(x: Tensor) -> Tensor:
    """By the best backend for it."""
    call = StatsCall("channel_stats", x)
    return BACKENDS[_auto(call)].kernels[call.operator].forward(call, False)[0]


_NATIVE, _TRITON = ({name: row.kernels[kind] for name, row in OPERATORS.items() if kind in row.kernels} for kind in KINDS)
_DEFINITIONS = {name: row.definition for name, row in OPERATORS.items()}
_ALL = (Reference(_DEFINITIONS), Composed(_channel_stats), Cpu(_NATIVE), Cuda(_NATIVE), Triton(_TRITON))
BACKENDS: dict[str, Backend] = {backend.name: backend for backend in _ALL}

# Auto's order on each type of device, the fastest first, and on any other.
AUTO = {"cpu": ("cpu", "composed", "reference"), "cuda": ("cuda", "triton", "composed", "reference")}
ELSEWHERE = ("composed", "reference")

# (backend, its variant for a call) to a reason why auto may not take it, or None: registered by vdiff_kernels/__init__.py,
# because what knows how to check stands above the backends. Without it auto takes no backend that needs a check.
first_use_check: Callable[[str, Variant], str | None] | None = None

_default: str | None = os.environ.get("VDIFF_BACKEND") or None


# ------------------------------------------------------------------------------------------------------- what users ask


def availability(name: str) -> Availability:
    """Whether backend `name` can run on this machine, with the reason. Raises ValueError for an unknown name."""
    require_known(name, "availability: name")
    return BACKENDS[name].availability()


class backend:
    """Context manager: makes `name` the default backend. `None` means auto.

    >>> with vdiff_kernels.backend("reference"):
    ...     out = vdiff_kernels.temporal_attention(q, k, v)
    """

    def __init__(self, name: str | None):
        if name is not None:
            require_known(name, "backend: name")
        self.name = name

    def __enter__(self):
        global _default
        self.previous, _default = _default, self.name
        return self

    def __exit__(self, *exception):
        global _default
        _default = self.previous


def preferred(device: str) -> str:
    """The default backend, or the first of auto's on a type of device that can run here."""
    if _default is not None:
        require_known(_default, "the environment variable VDIFF_BACKEND")
        return _default
    return next(name for name in AUTO.get(device, ELSEWHERE) if BACKENDS[name].availability())


def require_known(name, what: str) -> None:
    if not isinstance(name, str) or name not in BACKENDS:
        raise ValueError(f"{what} is {checks.shown(name)}; expected one of {', '.join(map(repr, BACKENDS))}")


# ---------------------------------------------------------------------------------------------------------- the choice


@dataclass(frozen=True)
class Choice:
    """Who serves a call. kernels None: the backend serves the core of a composed operator, which is to be called in parts."""

    backend: str
    kernels: Kernels | None
    wants_grad: bool


MAX_SIGNATURES = 4096
_choices: dict[tuple, Choice] = {}


def choose(call: Call, requested: str | None, is_part: bool = False) -> Choice:
    """Checks the call and chooses its backend: once for each signature, which saves 30 us.

    is_part: of a composed operator that the backend requested serves: where it has no kernel of the part, auto chooses.

    A signature is all that checks and backends look at: shape, dtype, device, layout and requires_grad of tensors, and constants.
    Raises ValueError or TypeError for wrong arguments, and ValueError where an explicit backend cannot serve the call.
    """
    if torch.compiler.is_compiling():
        return _chosen(call, requested, is_part)
    if _observer is not None:
        call.check()
        there = described(call, _place.device)
        choice = _served(there, requested, is_part)
        _observer(there, choice, is_part, _reasons_against_better(there, choice))
        return choice
    signature = _signature(call)
    if signature is None or not (requested is None or isinstance(requested, str)):
        return _chosen(call, requested, is_part)
    key = signature, requested, is_part, _default, torch.is_grad_enabled()
    choice = _choices.get(key)
    if choice is None:
        choice = _chosen(call, requested, is_part)
        if len(_choices) >= MAX_SIGNATURES:
            _choices.clear()
        _choices[key] = choice
    return choice


def forget() -> None:
    """Makes every choice anew."""
    _choices.clear()


def _chosen(call: Call, requested: str | None, is_part: bool) -> Choice:
    call.check()
    return _served(call, requested, is_part)


def _served(call: Call, requested: str | None, is_part: bool) -> Choice:
    if requested is not None:
        require_known(requested, f"{call.operator}: backend")
    elif _default is not None:
        require_known(_default, "the environment variable VDIFF_BACKEND")  # class backend has checked any other
    name = requested or _default
    if name is None or (is_part and _why_not_whole(name, call)):
        name = _auto(call)
    reason = _why_not(name, call)
    if reason:
        usable = ", ".join(repr(other) for other in BACKENDS if _why_not(other, call) is None)
        raise ValueError(
            f"{call.operator}: backend is {name!r}, which cannot serve this call: {reason}; expected one of {usable}"
        )
    kernels = BACKENDS[name].kernels.get(call.operator) if _why_not_whole(name, call) is None else None
    return Choice(name, kernels, wants_grad(*call.tensors()))


def _why_not(name: str, call: Call) -> str | None:
    """Why a backend serves neither the call nor its core, or None."""
    reason = _why_not_whole(name, call)
    if reason is not None and OPERATORS[call.operator].parts:
        return _why_not_whole(name, call.core())
    return reason


def serves_whole(name: str, call: Call) -> bool:
    """Whether a backend has a kernel of all of the call."""
    return _why_not_whole(name, call) is None


def _why_not_whole(name: str, call: Call) -> str | None:
    asked = BACKENDS[name]
    return asked.supports(call) or (asked.why_not_here(call) if _is_here() else asked.why_not_on(_place.capability))


def _is_here() -> bool:
    return _place is None or _place.is_here


def _auto(call: Call) -> str:
    reasons = {}
    for name in auto_order(call):
        reason = _why_not(name, call) or _why_not_trusted(name, call)
        if reason is None:
            break
        reasons[name] = reason
    if call.main.device.type == "cuda" and name in ELSEWHERE and _place is None and not torch.compiler.is_compiling():
        _warn_once(call.operator, reasons)
    return name


@dataclass(frozen=True)
class Preference:
    """Which backend auto asks first for some calls on a GPU, before the others in its order. calls, reason: for people."""

    calls: str
    holds: Callable[[Call], bool]
    first: str
    reason: str


def _core(call: Call) -> Call:
    """Of a composed operator."""
    return call.core() if OPERATORS[call.operator].parts else call


def _is_library_attention(call: Call) -> bool:
    call = _core(call)
    is_half = call.operator == "spatial_attention" and call.main.dtype in checks.HALF
    return is_half and call.options.key_mask is None and is_library_attention(call)


def _is_conv_of_few_channels(call: Call) -> bool:
    return isinstance(call, ConvCall) and call.has_few_channels


# The first that holds. With a key_mask, which rules out the library's fastest kernel, nothing is measured yet.
ON_A_GPU = (
    Preference(
        "attention over pixels or to a context in half precision, without a bias or a mask of keys", _is_library_attention,
        "composed", "PyTorch's takes 0.16 to 0.44 times as long as our CUDA kernels on an H200 (docs/performance-gpu.md)",
    ),
    Preference(
        "temporal layers that are one launch of Triton's",
        lambda call: call.operator == "temporal_layer" and serves_whole("triton", call),
        "triton", "by count a fifth of the bytes of the layer in parts (docs/triton.md)",
    ),
    Preference(
        "attention and channel statistics", lambda call: _core(call).operator.endswith(("attention", "channel_stats")),
        "cuda", "bound by memory or exact in float32, and measured on an H200; Triton's kernels of it have not run on a GPU",
    ),
    Preference(
        "norms alone", lambda call: call.operator == "norm_act",
        "cuda", "by count within 1.02 of the bytes that must move, in accesses of 16 bytes (docs/kernels.md)",
    ),
    Preference(
        f"convolutions of at most {FEW_CHANNELS} channels", lambda call: _is_conv_of_few_channels(_core(call)),
        "cuda", "bound by memory, of which by count it moves no more than it must (docs/kernels.md)",
    ),
    Preference(
        "other convolutions, projections and gated feed-forward layers", lambda call: True,
        "triton", "fewer passes over memory by count than PyTorch's library, whose own product or Triton's bounds it "
        "(docs/triton.md)",
    ),
)  # fmt: skip


def preference(call: Call) -> Preference:
    """That of a call on a GPU."""
    return next(one for one in ON_A_GPU if one.holds(call))


def auto_order(call: Call) -> tuple[str, ...]:
    """Auto's order for a call."""
    names = AUTO.get(call.main.device.type, ELSEWHERE)
    if names is not AUTO["cuda"]:
        return names
    first = preference(call).first
    return (first, *(name for name in names if name != first))


def _why_not_trusted(name: str, call: Call) -> str | None:
    if not _is_here():
        return None
    if _why_not_whole(name, call) is not None:
        call = call.core()
    variant = BACKENDS[name].variant(call)
    return None if variant is None else _checked_first(name, variant)


@constant_in_graphs
def _checked_first(name: str, variant: Variant) -> str | None:
    if first_use_check is None:
        return "nothing is registered that checks it before its first use"
    return first_use_check(name, variant)


@dataclass(frozen=True)
class Place:
    """Where calls are said to be. Of a GPU that need not be here: its compute capability; None: any that is new enough."""

    device: torch.device
    is_here: bool = False
    capability: tuple[int, int] | None = None


_observer: Callable | None = None
_place: Place | None = None


@contextlib.contextmanager
def observed(observer: Callable, place: Place) -> Iterator[None]:
    """Within, every choice is made anew, as if the calls were at that place, and the observer told: observer(call, choice,
    is_part, reasons), the last why each backend that auto would rather take does not serve the call.
    """
    global _observer, _place
    before, _observer, _place = (_observer, _place), observer, place
    try:
        yield
    finally:
        _observer, _place = before


def _reasons_against_better(call: Call, choice: Choice) -> dict[str, str]:
    reasons = {}
    for name in auto_order(call):
        if name == choice.backend:
            break
        reasons[name] = _why_not(name, call) or _why_not_trusted(name, call) or "another backend was asked for"
    if choice.kernels is None:
        reasons[choice.backend] = f"the whole: {_why_not_whole(choice.backend, call)}"
    return reasons


_warned: set[str] = set()


def _warn_once(operator: str, reasons: dict[str, str]) -> None:
    """Of what could be otherwise: not of operators that a GPU backend has no kernels for at all."""
    core = (OPERATORS[operator].parts or (operator,))[0]
    words = "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason != missing(core))
    if words and operator not in _warned:
        _warned.add(operator)
        warnings.warn(f"vdiff_kernels: PyTorch's own library serves {operator} on this GPU ({words})", stacklevel=4)


# ------------------------------------------------------------------------------------------------------------ signatures

_TENSORS = frozenset((Tensor, torch.nn.Parameter))
_CONSTANTS = frozenset((bool, int, float, str))


def _signature(value) -> tuple | None:
    """None where a field is of a type that the checks know nothing of, or of a subclass of one, such as a fake tensor."""
    parts = []
    for part in _fields_of(type(value))(value):
        kind = type(part)
        if part is None:
            parts.append(None)
        elif kind in _TENSORS:
            parts.append((part.shape, part.dtype, part.device, part.layout, part.requires_grad))
        elif kind in _CONSTANTS:
            parts.append((kind, part))
        elif dataclasses.is_dataclass(kind):
            nested = _signature(part)
            if nested is None:
                return None
            parts.append(nested)
        else:
            return None
    return tuple(parts)


@functools.cache
def _fields_of(kind: type) -> Callable[[object], tuple]:
    """A function from a dataclass to what it holds."""
    names = tuple(field.name for field in dataclasses.fields(kind))
    return attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)
