"""The channel_stats kernels as nvcc compiles them, simulated: against float64, clean, and no worse than their golden counts."""

import pytest
import torch

from tests import ptxsim
from tests.ptxsim.compile import CSRC
from tests.ptxsim.fixtures import clean_run, compiled_launchers

SOURCES = (CSRC / "norm" / "cuda" / "sm80" / "channel_stats.cu", CSRC / "common" / "cuda" / "launch.cu")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)  # DType, of csrc/common/scalar.h


def channel_stats(run, x):
    """(B, T, C, 2) of x (B, T, H, W, C), unit stride over C, and the report of the first kernel."""
    B, T, H, W, C = x.shape
    acc = torch.float64 if x.dtype == torch.float64 else torch.float32
    stats = ptxsim.empty(B, T, C, 2, dtype=acc)
    params = ptxsim.Struct("<QQ9qi4x", x, stats, *x.shape, *x.stride()[:4], DTYPES.index(x.dtype))
    launchers = compiled_launchers(*SOURCES, include=(CSRC,))
    chunks = launchers.call("channel_stats_chunks", params)
    partials = ptxsim.empty(B * T, chunks, C, 2, dtype=acc)
    reports = run(launchers, "launch_channel_stats", params, partials, None)
    assert ptxsim.unwritten(stats) == 0
    return stats, reports[0]


CASES = {
    "tiny": (1, 2, 3, 5, 7),
    "odd-channels": (2, 1, 9, 7, 33),
    "chunks": (1, 2, 33, 65, 8),
    "one-pixel": (2, 3, 1, 1, 4),
    "wide": (1, 1, 4, 8, 64),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("case", CASES)
def test_statistics(case, dtype, simulate):
    x = (torch.randn(CASES[case]) * 2 + 5).to(dtype)
    stats, _ = channel_stats(simulate.launcher, x)
    exact = x.double()
    mean, variance = exact.mean((2, 3)), exact.var((2, 3), correction=0)
    unit = torch.finfo(stats.dtype).eps
    torch.testing.assert_close(stats[..., 0].double(), mean, rtol=8 * unit, atol=8 * unit)
    torch.testing.assert_close(stats[..., 1].double(), variance, rtol=64 * unit, atol=64 * unit)


def test_a_mean_that_dwarfs_the_deviations(simulate):
    x = torch.randn(1, 1, 20, 60, 5) + 1e5
    stats, _ = channel_stats(simulate.launcher, x)
    torch.testing.assert_close(stats[..., 1].double(), x.double().var((2, 3), correction=0), rtol=1e-5, atol=0)


def test_strided_frames_are_read_in_place(simulate):
    whole = torch.randn(2, 4, 8, 16, 24)
    x = whole[:, ::2, 1:7, 2:15, 8:16]
    stats, report = channel_stats(simulate.launcher, x)
    torch.testing.assert_close(stats[..., 0], x.mean((2, 3)), rtol=1e-5, atol=1e-6)
    pixels = 2 * 2 * 6 * 13
    assert report.counts.unique_read_sectors == pixels  # 8 floats of a pixel are one sector, and no other is touched


def test_long_rows_end_where_they_end():
    """Of rows as long as a chunk or longer, that do not follow one another evenly. Between them nothing may be read."""
    whole = torch.full((1, 1, 2, 1040, 1), torch.nan)
    x = whole[:, :, :, :1030]
    x.copy_(torch.randn(x.shape))
    stats, _ = channel_stats(clean_run(), x)
    torch.testing.assert_close(stats[..., 0], x.mean((2, 3)), rtol=1e-5, atol=1e-6)
