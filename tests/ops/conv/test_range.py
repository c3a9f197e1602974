"""Small values beside large ones: an output that hardly depends on its large neighbours is not spoiled by their rounding."""

import pytest
import torch
from torch import nn

import vdiff_kernels
from vdiff_kernels.ops.conv.api import norm_act_conv

EPS = 2.0**-24


def identity(C: int, kernel: tuple[int, int, int], neighbours: float) -> torch.Tensor:
    """An identity, with neighbours of that size around it."""
    weight = torch.randn(C, C, *kernel) * neighbours
    centre = torch.zeros_like(weight)
    nn.init.dirac_(centre)
    return weight * (1 - centre) + centre


def alternating(kernel, shape) -> torch.Tensor:
    """(B, C, T, H, W): every second frame, or row, 1e4 times larger."""
    x = torch.randn(shape)
    if kernel == (3, 1, 1):
        x[:, :, 1::2] *= 1e4
    else:
        x[:, :, :, 1::2] *= 1e4
    return x


def assert_elementwise(out, x, weight) -> None:
    """Within the rounding of plain sums: of each output's own terms, whatever stands beside them in the tensor."""
    padding = tuple(size // 2 for size in weight.shape[2:])
    exact = nn.functional.conv3d(x.double(), weight.double(), padding=padding)
    terms = nn.functional.conv3d(x.double().abs(), weight.double().abs(), padding=padding)
    count = weight[0].numel()
    assert ((out.double() - exact).abs() <= count * EPS * terms).all()


@pytest.mark.parametrize("kernel", [(3, 1, 1), (1, 3, 3)], ids=str)
@pytest.mark.parametrize("neighbours", [0.0, 1e-6])
@pytest.mark.parametrize("shape", [(2, 16, 8, 8, 8), (1, 5, 7, 9, 3), (1, 33, 1, 1, 5), (1, 1, 2, 2, 2)], ids=str)
def test_an_identity_keeps_small_values(kernel, neighbours, shape, backend):
    x, weight = alternating(kernel, shape), identity(shape[1], kernel, neighbours)
    x = x.requires_grad_()
    out, stats = norm_act_conv(x, weight, residual=torch.zeros(shape), return_stats=True, backend=backend)
    assert_elementwise(out, x.detach(), weight)
    if neighbours == 0:
        assert torch.equal(out, x)
    flat = out.detach().double().flatten(3)
    torch.testing.assert_close(stats[..., 0].double(), flat.mean(-1).transpose(1, 2), rtol=1e-5, atol=1e-2)

    grad = alternating(kernel, shape)
    out.backward(grad)
    turned = weight.transpose(0, 1).flip(2, 3, 4)
    assert_elementwise(x.grad, grad, turned)


def test_one_output_of_many_decides(backend):
    """A pruned tap of a single output channel."""
    x, weight = alternating((3, 1, 1), (1, 32, 6, 4, 4)), torch.randn(40, 32, 3, 1, 1) * 0.1
    weight[17, :, ::2] = 0
    out = norm_act_conv(x, weight, backend=backend)
    assert_elementwise(out[:, 17:18], x, weight[17:18])


def test_the_module(backend):
    conv = vdiff_kernels.nn.TemporalConv(16, 16, bias=False, backend=backend)
    nn.init.dirac_(conv.weight)
    x = alternating((3, 1, 1), (1, 16, 8, 8, 8))
    assert torch.equal(conv(x), x)
