"""The table of the CUDA kernels: whose rows it has, and what hides a load's latency."""

import pytest

from benchmarks.gpu_static import CALLS, OPERATORS
from vdiff_kernels.bench.gpus import GPUS


def test_every_operator_is_there_in_both_dtypes():
    for dtype in ("bfloat16", "float32"):
        kinds = {name.split()[0] for name in CALLS if name.endswith(dtype)}
        assert {operator.removesuffix("_attention") for operator in OPERATORS} == kinds


def test_bytes_in_flight_hide_the_latency():
    for gpu in GPUS:
        a_second = gpu.bytes_in_flight * gpu.multiprocessors * gpu.clock / gpu.latency
        assert a_second == pytest.approx(gpu.bandwidth)
