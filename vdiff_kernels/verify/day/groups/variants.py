"""One call of every kernel variant, so that a row says of each whether it runs at all, and that it was this one that ran."""

import re

import torch
from torch.profiler import ProfilerActivity, profile

from ....bench.contest import relative_error
from ....ops.norm.api import channel_stats
from ...check import evaluate, functions, make_leaves
from ...inputs import SpatialCase, TemporalCase
from ..rows import Day, first_line

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
# By csrc/attention/cuda/plan.h: rows of a short tile, class of a head dim, splits, chunks that are merged.
CASES = [
    TemporalCase("rows-8", T=8, D=64),
    TemporalCase("rows-16", T=16, D=64, bias="rel"),
    TemporalCase("rows-32", T=25, D=64, bias="dense", rotary=32),
    TemporalCase("class-64", T=40, D=64, bias="rel", causal=True),
    SpatialCase("class-128", T=2, H=6, W=8, D=128, bias="rel"),
    SpatialCase("class-256", T=1, H=6, W=8, D=256, bias="dense"),
    SpatialCase("merged-context", B=1, T=20, H=4, W=8, N=2, D=64, context="shared", S=77),
]


def run(day: Day) -> None:
    for dtype in DTYPES:
        for case in CASES:
            day.attempt(f"{case.name} {str(dtype).removeprefix('torch.')}", lambda: one_call(day, case, dtype))
        day.attempt(f"channel_stats {str(dtype).removeprefix('torch.')}", lambda: one_statistic(day, dtype))


def one_call(day: Day, case, dtype: torch.dtype) -> dict:
    operator, definition = functions(case)
    leaves = {name: t.to(day.device) for name, t in make_leaves(case, dtype).items()}
    expected = evaluate(case, definition, leaves, dtype)
    results = evaluate(case, operator, leaves, dtype, backend=day.backend)
    error = max(relative_error(results[name], value) for name, value in expected.items())
    kernels = names_of_kernels(day, lambda: evaluate(case, operator, leaves, dtype, backend=day.backend))
    return {"passed": error < 0.05, "relative_error": error, "kernels": kernels}


def one_statistic(day: Day, dtype: torch.dtype) -> dict:
    x = day.randn(2, 3, 9, 7, 40, dtype=dtype).movedim(-1, 1)
    error = relative_error(channel_stats(x, backend=day.backend), channel_stats(x.double(), backend="reference"))
    kernels = names_of_kernels(day, lambda: channel_stats(x, backend=day.backend))
    return {"passed": error < 1e-4, "relative_error": error, "kernels": kernels}


def names_of_kernels(day: Day, call) -> list[str]:
    """Which of the library's kernels the call runs; why nobody knows, where the profiler fails."""
    if day.device.type != "cuda":
        return []
    try:
        with profile(activities=[ProfilerActivity.CUDA]) as recorded:
            call()
            day.synchronize()
    except RuntimeError as error:
        return [first_line(error)]
    return sorted({plain_name(event.key) for event in recorded.key_averages() if "vdiff::" in event.key})


def plain_name(demangled: str) -> str:
    """As tests/ptxsim names them: short_attention_fwd_kernel<BFloat16, 16>."""
    found = re.search(r"(\w+)(<.*?>)?\(", demangled.replace("vdiff::", "").replace("attention::", "").replace("(int)", ""))
    return found[1] + (found[2] or "") if found else demangled
