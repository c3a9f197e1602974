"""The one autograd rule, of every operator on every backend that computes its own gradients. Backward runs on forward's backend.

An autograd.Function around plain operators, rather than `register_autograd` on them: 22 us a forward call on tiny input
against 52, forward and backward 121 against 180, where the bare operator takes 7 (benchmarks/cpu/overhead.py). Where nothing
requires grad, the kernel is called bare.
"""

import functools

import torch
from torch import Tensor

from ..backends import registry
from .call import Call


def run(call: Call, backend: str | None, in_parts=None, is_part: bool = False):
    """The result of a call by the backend that serves it: `backend`, or auto's choice.

    in_parts(call, backend): what calls the parts of a composed operator, where the backend has no kernel of the whole.
    is_part: of such a call: the backend serves it if it can.
    """
    choice = registry.choose(call, backend, is_part)
    kernels = choice.kernels
    if kernels is None:
        return in_parts(call, choice.backend)
    if kernels.backward is None:
        return kernels.forward(call, False)[0]
    call = call.ready()
    if not choice.wants_grad:
        return kernels.forward(call, False)[0]
    tensors = call.tensors()
    constants = call.holding((None,) * len(tensors))
    return _Differentiable.apply(choice.backend, constants, *_distinct(tensors))


def _distinct(tensors: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """A tensor that is there twice is its own view the second time while it is traced: Dynamo takes no input of a rule twice."""
    if not torch.compiler.is_compiling():
        return tensors
    seen, found = [], []
    for tensor in tensors:
        again = tensor is not None and any(tensor is other for other in seen)
        found.append(tensor.view_as(tensor) if again else tensor)
        seen.append(tensor)
    return tuple(found)


def differentiable_once(backward):
    """Decorates the backward of an autograd.Function: raises where a graph of it is asked for (create_graph=True).

    torch's own once_differentiable raises only where the incoming gradient requires grad, and drops the rest in silence.
    """

    @functools.wraps(backward)
    def checked(ctx, *grads):
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            others = "backend='reference' or 'composed'"
            raise RuntimeError(f"vdiff_kernels: double backward is not supported; use {others} for create_graph=True")
        return backward(ctx, *grads)

    return checked


class _Differentiable(torch.autograd.Function):
    """Saves the call's own tensors, but for those that no backward looks at, and what the backend's kernels save beside them."""

    @staticmethod
    def forward(ctx, backend, constants, *tensors):
        call = constants.holding(tensors)
        result, saved = registry.BACKENDS[backend].kernels[call.operator].forward(call, True)
        ctx.call = backend, constants
        ctx.save_for_backward(*(None if i in call.unsaved else t for i, t in enumerate(tensors)), *saved)
        if isinstance(result, tuple):
            ctx.mark_non_differentiable(*result[1:])
        return result

    @staticmethod
    @differentiable_once
    def backward(ctx, grad_out, *_):
        backend, constants = ctx.call
        needs, kept = ctx.needs_input_grad[2:], ctx.saved_tensors
        call, saved = constants.holding(kept[: len(needs)]), kept[len(needs) :]
        return None, None, *registry.BACKENDS[backend].kernels[call.operator].backward(call, saved, grad_out, needs)
