"""The cosine schedule against its closed form."""

import math

import pytest
import torch

from vdiff_kernels.diffusion.schedule import CosineSchedule, alpha_sigma

TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)


@pytest.mark.parametrize("shift", [0.0, -2.0])
def test_logsnr_falls_from_limit_to_minus_limit_about_the_shift(shift):
    logsnr = CosineSchedule(shift, limit=15.0).logsnr(TIMES)
    assert (logsnr.diff() < 0).all()
    # float64: tan and log at the ends lose some 1e-9, as tan's pole magnifies the rounding of pi / 2 by e^7.5.
    torch.testing.assert_close(logsnr[[0, 50, 100]], torch.tensor([15.0, 0.0, -15.0]).double() + shift, atol=1e-8, rtol=0)


def test_without_shift_alpha_is_a_cosine_of_time():
    alpha, sigma = alpha_sigma(CosineSchedule(limit=40.0).logsnr(TIMES), TIMES)
    # The limit moves the angle by at most atan(exp(-20)) = 2e-9.
    torch.testing.assert_close(alpha, (math.pi / 2 * TIMES).cos(), atol=3e-9, rtol=0)
    torch.testing.assert_close(sigma, (math.pi / 2 * TIMES).sin(), atol=3e-9, rtol=0)


def test_the_variance_is_preserved_at_the_log_ratio_asked_for():
    logsnr = torch.tensor([-22.0, -3.0, 0.0, 5.0, 18.0], dtype=torch.float64)
    alpha, sigma = alpha_sigma(logsnr, logsnr)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(5).double(), atol=1e-15, rtol=0)
    torch.testing.assert_close(2 * (alpha / sigma).log(), logsnr, atol=1e-14, rtol=1e-14)


def test_alpha_and_sigma_multiply_clips():
    like = torch.zeros(3, 1, 4, 2, 2)
    alpha, sigma = alpha_sigma(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64), like)
    assert alpha.shape == sigma.shape == (3, 1, 1, 1, 1) and alpha.dtype == sigma.dtype == like.dtype
    assert alpha.flatten().tolist() == sigma.flatten().flip(0).tolist()
    alpha, _ = alpha_sigma(torch.tensor(0.0), like)
    assert alpha.shape == (1, 1, 1, 1, 1)


def test_steps_are_even_in_time_and_end_without_noise():
    schedule = CosineSchedule(shift=-2.0)
    steps = schedule.steps(4)
    assert steps.dtype == torch.float64 and steps.shape == (5,) and steps[-1] == torch.inf
    assert torch.equal(steps[:-1], schedule.logsnr(torch.tensor([1.0, 0.75, 0.5, 0.25], dtype=torch.float64)))
    assert schedule.steps(1)[0] == pytest.approx(-22.0)
    with pytest.raises(ValueError, match="count is 0; expected at least 1"):
        schedule.steps(0)


def test_logsnr_keeps_the_dtype_of_time():
    assert CosineSchedule().logsnr(torch.rand(2, 3)).dtype == torch.float32
    ends = CosineSchedule().logsnr(torch.tensor([0.0, 1.0]))  # float32: the ends stay finite, and near the limit
    torch.testing.assert_close(ends, torch.tensor([20.0, -20.0]), atol=0.05, rtol=0)
