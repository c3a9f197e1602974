"""How an operator that kernels serve is declared, so that it exists with its fake kernel without them.

Each family declares its own in `schema.py`, the one place where a call is taken apart into a schema's arguments. The compiled
library (csrc/registration.cpp) implements those of kind "native", backends/triton those of kind "triton"; both define none.
Nothing here is differentiable: the rule is in ops/autograd.py.

Conventions of every schema:
- Attention tensors are (B, T, H, W, N, D), image tensors (B, T, H, W, C): channels innermost, unit stride there, any outer
  strides. Results are contiguous.
- "acc" dtype is float64 for float64 inputs, else float32. Statistics, log-sum-exps and every gradient that is a sum over
  pixels are acc.
- An output that was not asked for is a tensor of shape (0,).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..library import FOLDER, NAMESPACE
from .tensors import acc_dtype


def _new_library() -> torch.library.Library:
    """The namespace, of which a process has one: copies of the package know of each other by it alone."""
    operators = vars(getattr(torch.ops, NAMESPACE))
    if "defined_by" in operators:
        raise RuntimeError(
            f"vdiff_kernels is loaded already, from {operators['defined_by']}; a process takes one copy of it, and not also "
            f"that of {FOLDER}"
        )
    library = torch.library.Library(NAMESPACE, "DEF")
    operators["defined_by"] = FOLDER
    return library


_library = _new_library()


@dataclass(frozen=True)
class Kernels:
    """What serves an operator.

    forward(call, save) returns (result, saved): the result, or a tuple of it and constants, and what backward needs beside the
        call's own tensors, where save asks for it.
    backward(call, saved, grad_out, needs) returns a gradient or None for each of call.tensors(), of which needs says what is
        wanted. None: the result carries PyTorch's own gradient.
    schemas: the names in the compiled library that must have a kernel.
    """

    forward: Callable
    backward: Callable | None = None
    schemas: tuple[str, ...] = ()


KINDS = ("native", "triton")


def define(operator: str, arguments: str, returns: str, kinds: tuple[str, ...] = KINDS):
    """Decorator: defines the operator of each kind with this schema and the decorated function as its fake kernel."""

    def register(fake):
        for name in (named(operator, kind) for kind in kinds):
            _library.define(f"{name}({arguments}) -> {returns}", tags=torch.Tag.pt2_compliant_tag)
            torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
            torch.library.register_vmap(f"{NAMESPACE}::{name}", _refuse_vmap(name), lib=_library)
        return fake

    return register


def named(operator: str, kind: str) -> str:
    """norm_act_native, norm_act_native_backward."""
    base, backward, _ = operator.partition("_backward")
    return f"{base}_{kind}{backward}"


def defined(kind: str, *operators: str) -> tuple:
    """The operators of a kind, to be called."""
    return tuple(getattr(getattr(torch.ops, NAMESPACE), named(operator, kind)).default for operator in operators)


def implement(operator: str, kind: str, function: Callable, key: str) -> None:
    """Makes a function what the dispatcher calls of an operator for tensors of a dispatch key."""
    _library.impl(named(operator, kind), function, key)


def _refuse_vmap(name: str):
    def vmap(info, in_dims, *args):
        raise RuntimeError(f"{name}: vmap is not supported; give the batch as dimension B")

    return vmap


def absent(like: Tensor) -> Tensor:
    """An output that was not asked for."""
    return like.new_empty((0,), dtype=acc_dtype(like.dtype))


def sums(like: Tensor, shape) -> Tensor:
    """A gradient or statistic summed over pixels: acc dtype; absent where shape is None."""
    return absent(like) if shape is None else like.new_empty(shape, dtype=acc_dtype(like.dtype))


def contiguous(like: Tensor) -> Tensor:
    return like.new_empty(like.shape)


def shape_of(tensor: Tensor | None):
    return None if tensor is None else tensor.shape
