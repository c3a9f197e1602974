"""Every hostile case, three dtypes, forward and every gradient, held to float64 by the tests' own budget.

The truths are computed here, on the processor, which takes seconds: kept in files they would be 32 MB that can go stale.
"""

import torch

from ...cases import CASES
from ...check import check
from ..rows import Day, within_budget

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def run(day: Day) -> None:
    torch.backends.cudnn.allow_tf32 = False  # which is no float32
    for dtype in DTYPES:
        for case in CASES[::12] if day.quick else CASES:
            name = f"{case} {str(dtype).removeprefix('torch.')}"
            backend = day.kernels_of(case.operator)
            day.attempt(name, lambda: within_budget(lambda: check(case, dtype, backend, device=day.device)))
