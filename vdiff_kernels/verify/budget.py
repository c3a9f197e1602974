"""The one derived error budget, and memory that shows what was never written."""

import contextlib

import torch
from torch import Tensor

from ..ops.tensors import acc_dtype


def budget(dtype: torch.dtype, truth: Tensor, eager: Tensor, largest: float) -> tuple[float, float]:
    """(maximum, mean) error allowed against float64: twice what eager PyTorch makes in the same precision, plus rounding.

    dtype: of the candidate. truth: float64, from the same rounded inputs. eager: the plain PyTorch result in dtype, or in
    float32 where dtype is float64: rounding errors scale with the unit roundoff, so that error is scaled down, and allowed
    to the truth, a float64 computation too, as it is to the candidate. largest: the largest magnitude among everything
    computed in the call; sums that cancel to nothing still carry its rounding.
    """
    error = (eager.double() - truth).abs()
    rounded = 1  # how many of candidate and truth carry rounding errors of this size
    if dtype == torch.float64:
        error = error * (torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps)
        rounded = 2
    eps, acc_eps = torch.finfo(dtype).eps, torch.finfo(acc_dtype(dtype)).eps
    magnitude = truth.abs()
    accumulation = acc_eps * largest
    return (
        rounded * (2 * error.max().item() + eps * magnitude.max().item() + accumulation),
        rounded * (2 * error.mean().item() + eps * magnitude.mean().item() + accumulation),
    )


def assert_within_budget(candidate: dict[str, Tensor], truth: dict[str, Tensor], eager: dict[str, Tensor], label: str) -> float:
    """Raises AssertionError, naming every result over its budget. Returns the largest share of a budget that was used.

    The three map the same names (an output, gradients) to tensors of the same shapes. Non-finite values must stand in the
    same places; the rest is compared.
    """
    finite = {name: torch.isfinite(tensor) for name, tensor in truth.items()}
    largest = max((t[finite[n]].abs().max().item() for n, t in truth.items() if finite[n].any()), default=0.0)
    worst, failures = 0.0, []
    for name, expected in truth.items():
        actual, plain, ok = candidate[name], eager[name], finite[name]
        if actual.shape != expected.shape:
            failures.append(f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
            continue
        if not torch.equal(torch.isfinite(actual), ok):
            failures.append(f"{name}: non-finite values where none belong, or none where they do")
            continue
        if not ok.any():
            continue
        expected, plain = expected[ok], torch.nan_to_num(plain[ok], nan=torch.inf)
        error = (actual[ok].double() - expected).abs()
        allowed = budget(actual.dtype, expected, plain, largest)
        for kind, got, limit in zip(("maximum", "mean"), (error.max().item(), error.mean().item()), allowed):
            share = got / limit if limit > 0 else (0.0 if got == 0 else float("inf"))
            worst = max(worst, share)
            if not share <= 1:
                failures.append(f"{name}: {kind} error {got:.3g}, allowed {limit:.3g}")
    if failures:
        raise AssertionError(f"{label}: " + "; ".join(failures))
    return worst


@contextlib.contextmanager
def poisoned_memory():
    """Every `torch.empty`, in Python and C++, comes filled with NaN: what a kernel forgets to write shows."""
    was = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )
    torch.use_deterministic_algorithms(True, warn_only=True)  # only a warning: cuBLAS would refuse to run
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was[0], warn_only=was[1])
        torch.utils.deterministic.fill_uninitialized_memory = was[2]
