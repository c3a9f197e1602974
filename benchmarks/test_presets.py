"""The contests of `vdiff bench` under pytest-benchmark, to be kept and compared.

    pytest benchmarks --benchmark-only --benchmark-autosave                # the preset `tiny`
    VDIFF_PRESETS=animatediff-512,svd-576x1024 pytest benchmarks --benchmark-only
    pytest-benchmark compare --group-by group

A group is an operator of a preset at one size; its rows are ours and its rivals.
"""

import functools
import os

import pytest
import torch

from vdiff_kernels.bench import suite
from vdiff_kernels.bench.contest import WRONG, Contest, Setting
from vdiff_kernels.bench.presets import PRESETS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SETTING = Setting(DEVICE, suite.default_dtype(DEVICE))
NAMES = os.environ.get("VDIFF_PRESETS", "tiny").split(",")
RIVALS = ("vdiff", "eager", "eager channels_last_3d", "SDPA flash", "SDPA efficient", "SDPA cuDNN", "SDPA math", "diffusers")

unknown = [name for name in NAMES if name not in PRESETS]
if unknown:
    raise pytest.UsageError(f"VDIFF_PRESETS has {', '.join(unknown)}; expected some of {', '.join(PRESETS)}")
PLANS = {f"{one.preset}: {one.operator}: {one.label}": one for one in
         suite.planned(NAMES, list(suite.OPERATORS), SETTING, [False, True])}  # fmt: skip


@functools.lru_cache(maxsize=1)
def contest(name: str) -> Contest:
    return PLANS[name].make()


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("name", PLANS)  # the slower to change: its inputs are made once
def test_a_call(benchmark, name, rival):
    try:
        made = contest(name)
    except ImportError as error:
        pytest.skip(str(error))
    if rival not in made.rivals:
        pytest.skip(f"no {rival} of {made.operator}")
    call = made.rivals[rival]
    try:
        error = made.error(rival, call(0))
    except RuntimeError as failure:
        pytest.skip(str(failure).splitlines()[0])
    if not error <= WRONG[SETTING.dtype]:
        pytest.fail(f"relative error {error:.1e}: of a wrong result no time is taken")
    benchmark.group = name
    benchmark.extra_info.update(bytes=made.work.bytes, flops=made.work.flops, error=error)

    def run():
        call(0)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    benchmark(run)
