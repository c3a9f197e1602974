"""The shapes of real models, forward and every gradient, beside the definition in float64 on the same device."""

from dataclasses import replace

import torch

from ....bench.presets import SPATIAL, TEMPORAL
from ...budget import assert_within_budget, poisoned_memory
from ...check import evaluate, functions, make_leaves
from ..rows import Day, within_budget

CASES = [
    TEMPORAL["animatediff-64"].case("animatediff", bias="rel"),
    TEMPORAL["seed"].case("seed"),
    TEMPORAL["svd-xt"].case("svd", H=36, W=64),
    TEMPORAL["lucidrains"].case("lucidrains", H=32, W=32, rotary=32),
    TEMPORAL["t64"].case("long", H=16, W=16),
    SPATIAL["sd-64"].case("sd-64", T=2),
    SPATIAL["sd-32"].case("sd-32", T=4, bias="rel"),
    SPATIAL["svd"].case("svd", T=1),
    SPATIAL["text"].case("text", H=32, W=32, D=80),
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
