"""Who serves each part of a model or call, and why the better ones do not: the choice itself, made on tensors without data."""

import functools
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..ops.call import Call, Described
from ..ops.norm.call import Norm
from ..ops.tensors import assumed_grad
from . import registry


@dataclass(frozen=True)
class Part:
    """One call of an operator."""

    operator: str
    shape: tuple[int, ...]  # of its main tensor
    dtype: torch.dtype
    backend: str
    in_parts: bool  # the backend serves its core; the parts follow
    is_part: bool
    reasons: dict[str, str]  # why each backend that auto would rather take does not serve it

    def __str__(self) -> str:
        indent = "  " if self.is_part else ""
        dtype = str(self.dtype).removeprefix("torch.")
        served = f"in parts, its core by {self.backend}" if self.in_parts else self.backend
        text = f"{indent}{self.operator} {self.shape} {dtype}: {served}"
        return "\n".join([text, *(f"{indent}    not {name}: {reason}" for name, reason in self.reasons.items())])


@dataclass(frozen=True)
class Explanation:
    """Every call that was made, in order. Prints as a text; calls that say the same are one line."""

    device: str
    with_gradients: bool
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        lines, counts = [], {}
        for part in map(str, self.parts):
            counts[part] = counts.get(part, 0) + 1
        for part, count in counts.items():
            first, *rest = part.split("\n")
            lines += [first + (f"  ({count} times)" if count > 1 else ""), *rest]
        direction = "forward and backward, which runs on forward's backend" if self.with_gradients else "forward"
        return "\n".join([f"on {self.device}, {direction}:", *lines])


def explain(target, *inputs, device: str | None = None, gradients: bool | None = None, **keywords) -> Explanation:
    """Who serves each operator that `target(*inputs, **keywords)` would call, and why better ones do not. Nothing is computed.

    Args:
        target: a module or function, or a call (ops/call.py), which takes no inputs; its tensors may be `Described`.
        inputs, keywords: what it is called with; only shapes, strides and dtypes of tensors count.
        device: None for where the tensors are; "cuda" for a GPU, or "sm_90" for one of that compute capability, which need not be
            there: its driver and the check before a kernel's first use are then left out.
        gradients: whether backward will be asked for; None: as `target`'s parameters and the inputs say.

    Raises ValueError for another device, and whatever the call itself raises.
    """
    if isinstance(target, Call):
        held = [t for t in target.tensors() if t is not None]
        run = functools.partial(registry.choose, target.holding(tuple(map(_empty, target.tensors()))), None)
    else:
        held = [t for t in pytree.tree_leaves((inputs, keywords)) if isinstance(t, Tensor)]
        held += list(target.parameters()) if isinstance(target, nn.Module) else []
        run = functools.partial(_without_data, target, inputs, keywords)
    if gradients is None:
        gradients = torch.is_grad_enabled() and any(t.requires_grad for t in held)
    place = _place(device, held)
    parts: list[Part] = []

    def note(call: Call, choice: registry.Choice, is_part: bool, reasons: dict[str, str]) -> None:
        in_parts = choice.kernels is None
        if not (is_part and in_parts):  # a rest of the operator, whose parts follow
            shape, dtype = tuple(call.main.shape), call.main.dtype
            parts.append(Part(call.operator, shape, dtype, choice.backend, in_parts, is_part, reasons))

    with registry.observed(note, place), assumed_grad(gradients), torch.no_grad():
        run()
    return Explanation(device or str(place.device), gradients, tuple(parts))


def _place(device: str | None, held: list) -> registry.Place:
    if device is None:
        return registry.Place(next((t.device for t in held), torch.device("cpu")), is_here=True)
    found = re.fullmatch(r"cuda|sm_(\d+)(\d)", device)
    if not found:
        raise ValueError(f"explain: device is {device!r}; expected None, 'cuda', or a compute capability such as 'sm_90'")
    return registry.Place(torch.device("cuda"), capability=(int(found[1]), int(found[2])) if found[1] else None)


def _without_data(target, inputs, keywords) -> None:
    """Calls the target on meta tensors in place of all of its own and its inputs'."""

    arguments, options = pytree.tree_map(_empty, (inputs, keywords))
    if isinstance(target, nn.Module):
        own = {**dict(target.named_parameters()), **dict(target.named_buffers())}
        torch.func.functional_call(target, {name: _empty(t) for name, t in own.items()}, arguments, options)
    else:
        target(*arguments, **options)


def _empty(value):
    """A tensor, or those of a norm, without data."""
    if isinstance(value, Norm):
        return value.holding(tuple(map(_empty, value.tensors)))
    if isinstance(value, Described):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
