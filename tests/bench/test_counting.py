"""Bytes of a call of PyTorch, counted operator by operator."""

import torch

from vdiff_kernels.bench.counting import bytes_of
from vdiff_kernels.bench.rivals import Frames, Pixels, dense_spatial, dense_temporal, eager, efficient, sdpa
from vdiff_kernels.ops.attention.reference import spatial_attention, temporal_attention


def test_each_operator_reads_and_writes_once_and_views_move_nothing():
    x = torch.randn(6, 4)
    assert bytes_of(lambda t: t.T + 1, x, backward=False) == 2 * x.nbytes
    assert bytes_of(lambda a, b: a + b.expand(6, 4), x, torch.randn(4), backward=False) == 2 * x.nbytes + 16
    assert bytes_of(lambda t: t * 2, x, backward=True) == 2 * x.nbytes


def test_rivals_compute_the_operators():
    q, k, v = (torch.randn(2, 3, 4, 5, 2, 8) for _ in range(3))
    rel = torch.randn(2, 5)
    for layout, table, dense, definition in (
        (Frames, rel, dense_temporal(rel, 3), temporal_attention),
        (Pixels, (rel := torch.randn(2, 7, 9)), dense_spatial(rel, 4, 5), spatial_attention),
    ):
        expected = definition(q, k, v, rel_bias=table)
        for rival in (eager, sdpa):
            torch.testing.assert_close(rival(layout)(q, k, v, dense), expected)
        fused, plain = (bytes_of(rival(layout), q, k, v, dense, backward=False) for rival in (efficient, eager))
        assert fused < plain
