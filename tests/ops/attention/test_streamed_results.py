"""Results of a call that is large go past the caches: the same values as of its parts, which do not."""

import pytest
import torch

from vdiff_kernels import library, temporal_attention

T, H, W, N, PARTS = 8, 64, 64, 4, 8  # with D = 32 in float32: 64 MiB of q, k, v and out, of which 16 are streamed


def results(q, k, v, grad_out):
    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    out = temporal_attention(*leaves, backend="cpu")
    return [out.detach(), *torch.autograd.grad(out, leaves, grad_out)]


@pytest.mark.parametrize("instruction_set", library.instruction_sets(), indirect=True)
@pytest.mark.parametrize("D", [32, 20], ids=["whole-lines", "parts-of-lines"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_same_as_of_its_parts(dtype, D, instruction_set):
    given = [torch.randn(1, T, H, W, N, D).to(dtype) for _ in range(4)]
    whole = results(*given)
    for part in range(PARTS):
        rows = slice(part * H // PARTS, (part + 1) * H // PARTS)
        for of_whole, alone in zip(whole, results(*(t[:, :, rows] for t in given))):
            assert torch.equal(of_whole[:, :, rows], alone)
