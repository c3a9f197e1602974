"""Triton's kernels: every hostile case as in `hostile`, compiled by the Triton that is there."""

from ....backends.registry import BACKENDS, availability
from ....backends.triton import is_interpreted
from ...cases import CASES
from ...check import check
from ..rows import Day, within_budget
from .hostile import DTYPES


def run(day: Day) -> None:
    state = availability("triton")
    if not state:
        return day.add("absent", "triton", why=state.reason)
    cases = [case for case in CASES if case.operator in BACKENDS["triton"].kernels]
    for dtype in DTYPES[1:] if is_interpreted() else DTYPES:  # the interpreter has no bfloat16
        for case in cases[::12] if day.quick else cases:
            name = f"{case} {str(dtype).removeprefix('torch.')}"
            day.attempt(name, lambda: within_budget(lambda: check(case, dtype, "triton", device=day.device)))
