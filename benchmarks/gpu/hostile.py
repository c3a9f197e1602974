"""Every hostile attention case, three dtypes, forward and every gradient, held to float64 by the tests' own budget.

The truths are computed here, on the processor, which takes seconds: kept in files they would be 32 MB that can go stale.
"""

import torch

from vdiff_kernels.verify.cases import BLOCK_CASES, SPATIAL_CASES, TEMPORAL_CASES
from vdiff_kernels.verify.check import check

from .day import Day, within_budget

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def run(day: Day) -> None:
    cases = [*TEMPORAL_CASES, *SPATIAL_CASES, *BLOCK_CASES]
    for dtype in DTYPES:
        for case in cases[::8] if day.quick else cases:
            name = f"{case} {str(dtype).removeprefix('torch.')}"
            day.attempt(name, lambda: within_budget(lambda: check(case, dtype, day.backend, device=day.device)))
