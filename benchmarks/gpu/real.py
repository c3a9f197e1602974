"""The shapes of real models, forward and every gradient, beside the definition in float64 on the same device."""

from dataclasses import replace

import torch

from vdiff_kernels.verify.budget import assert_within_budget, poisoned_memory
from vdiff_kernels.verify.inputs import SpatialCase, TemporalCase
from vdiff_kernels.verify.check import evaluate, functions, make_leaves

from .day import Day, within_budget

CASES = [
    TemporalCase("animatediff", T=16, H=64, W=64, N=8, D=40, bias="rel"),
    TemporalCase("seed", T=16, H=64, W=64, N=8, D=16, bias="dense"),
    TemporalCase("svd", T=25, H=36, W=64, N=5, D=64),
    TemporalCase("lucidrains", T=16, H=32, W=32, N=8, D=32, bias="rel", rotary=32),
    TemporalCase("long", T=64, H=16, W=16, N=8, D=64, bias="rel"),
    SpatialCase("sd-64", T=2, H=64, W=64, N=8, D=40),
    SpatialCase("sd-32", T=4, H=32, W=32, N=8, D=80, bias="rel"),
    SpatialCase("svd", T=1, H=72, W=128, N=5, D=64),
    SpatialCase("text", T=16, H=32, W=32, N=8, D=80, context="shared", S=77),
]


def run(day: Day) -> None:
    for case in [replace(case, H=4, W=4) for case in CASES] if day.quick else CASES:
        day.attempt(f"{case} bfloat16", lambda: held(day, case, torch.bfloat16))


def held(day: Day, case, dtype: torch.dtype) -> dict:
    operator, definition = functions(case)
    leaves = {name: t.to(day.device) for name, t in make_leaves(case, dtype).items()}
    with poisoned_memory():
        candidate = evaluate(case, operator, leaves, dtype, backend=day.backend)
    eager = evaluate(case, definition, leaves, dtype, compute_dtype=dtype)
    truth = evaluate(case, definition, {name: t.double() for name, t in leaves.items()}, dtype)
    return within_budget(lambda: assert_within_budget(candidate, truth, eager, str(case)))
