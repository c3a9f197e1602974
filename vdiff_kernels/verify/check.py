"""Runs a case on a backend and holds it to the definition in float64, forward and in every gradient."""

import functools

import torch
from torch import Tensor

from ..backends.registry import OPERATORS
from ..ops.tensors import acc_dtype
from .budget import assert_within_budget, poisoned_memory
from .inputs import PUBLIC, Case

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def functions(case: Case):
    """(the public operator, its definition)."""
    return PUBLIC[case.operator], OPERATORS[case.operator].definition


def make_leaves(case: Case, dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    """Fresh random leaves rounded to dtype; beside half inputs, bias tables and norm parameters stay float32."""
    leaves = case.leaves(torch.Generator().manual_seed(seed))
    wide = acc_dtype(dtype)
    return {name: t.to(wide if name in case.tables else dtype) for name, t in leaves.items()}


def evaluate(case: Case, function, leaves: dict[str, Tensor], dtype: torch.dtype, **arguments) -> dict[str, Tensor]:
    """{"out": ..., "d_<leaf>": ...}: the result, and the gradient of every leaf for a random incoming gradient that is
    rounded to dtype first, whatever precision the function runs in. Of a leaf that is one number, the gradients for 16: how
    far eager PyTorch is from the truth in one number is luck, and no measure of what it makes.
    """
    leaves = {name: t.detach().clone().requires_grad_() for name, t in leaves.items()}
    out = case.call(function, leaves, **arguments)
    if not out.requires_grad:  # a constant
        return {"out": out}

    def gradients(wanted: list[Tensor], seed: int) -> tuple[Tensor, ...]:
        grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(out)
        return torch.autograd.grad(out, wanted, grad_out, retain_graph=True)

    results = dict(zip(leaves, gradients(list(leaves.values()), 1)))
    for name, leaf in leaves.items():
        if leaf.ndim == 0:
            results[name] = torch.stack([results[name], *(gradients([leaf], seed)[0] for seed in range(2, 17))])
    return {"out": out.detach(), **{f"d_{name}": grad for name, grad in results.items()}}


def truth_and_eager(case: Case, leaves: dict[str, Tensor], dtype: torch.dtype) -> tuple[dict, dict]:
    """The definition in float64 on the same rounded leaves, and in plain low precision (float32 for float64)."""
    definition = functions(case)[1]
    truth = evaluate(case, definition, {name: t.double() for name, t in leaves.items()}, dtype)
    low = torch.float32 if dtype == torch.float64 else dtype
    narrowed = {name: t.float() if dtype == torch.float64 else t for name, t in leaves.items()}
    return truth, evaluate(case, definition, narrowed, dtype, compute_dtype=low)


@functools.lru_cache(maxsize=1024)
def _truth_and_eager(case: Case, dtype: torch.dtype) -> tuple[dict, dict]:
    """Of the case's own leaves: they are the same for every backend."""
    return truth_and_eager(case, make_leaves(case, dtype), dtype)


def check(case: Case, dtype: torch.dtype, backend: str | None = None, function=None, device="cpu", memory=None) -> float:
    """Runs the case on `backend` (or by `function` in its place), forward and every gradient, within the budget.

    device: where the candidate runs; the definition that it is held to runs on the CPU. memory: a context manager under which it
    runs, `poisoned_memory()` unless given.

    Returns the largest share of a budget that was used. Raises AssertionError.
    """
    leaves = make_leaves(case, dtype)
    truth, eager = _truth_and_eager(case, dtype)
    function = function or functions(case)[0]
    with poisoned_memory() if memory is None else memory:
        there = {name: t.to(device) for name, t in leaves.items()}
        candidate = {name: t.cpu() for name, t in evaluate(case, function, there, dtype, backend=backend).items()}
    return assert_within_budget(candidate, truth, eager, f"{case} {dtype} {backend}")
