"""Samplers on a Gaussian whose exact denoiser is known: the flow's end, the order of convergence, mean and variance."""

import math

import pytest
import torch

from vdiff_kernels.diffusion import sampler as samplers
from vdiff_kernels.diffusion.sampler import SAMPLERS, sample
from vdiff_kernels.diffusion.schedule import CosineSchedule

from .gaussian import Gaussian, levels

DATA = Gaussian(mean=[0.7, -1.5], deviation=[0.3, 2.0])


def uneven(steps: int) -> torch.Tensor:
    """Levels from logsnr -6 to 6 whose steps alternate in length, 2 to 1, however many they are: with even ones, or ones that
    grow smoothly, the ratio of neighbouring steps would hardly matter to dpmpp_2m.
    """
    lengths = torch.tensor([2.0, 1.0], dtype=torch.float64).repeat(steps // 2)
    return torch.cat((torch.zeros(1).double(), lengths.cumsum(0) / lengths.sum())) * 12 - 6


@pytest.mark.parametrize("name, order", [("ddim", 1), ("dpmpp_2m", 2)])
def test_the_error_falls_with_the_order_of_the_sampler(name, order):
    z = torch.randn(16, 2, dtype=torch.float64)
    exact = DATA.flow(z, -6, 6)
    errors = [(sample(DATA.denoise, z, uneven(n), sampler=name) - exact).abs().max().item() for n in (80, 160, 320)]
    for coarse, fine in zip(errors, errors[1:]):
        # An error a n^-p + b n^-(p+1) has a ratio of 2^p (1 + O(1/n)); 10% is some 8/n at n = 80.
        assert coarse / fine == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("name, allowed", [("ddim", 0.15), ("dpmpp_2m", 0.03)])
def test_the_flow_of_the_whole_schedule_ends_at_the_data(name, allowed):
    z = torch.randn(1000, 2, dtype=torch.float64)
    logsnr = CosineSchedule(shift=-2.0).steps(200)
    x = sample(DATA.denoise, z, logsnr, sampler=name)
    # In deviations of the data, for a z of some 3: the error of ddim is 21 / steps, by its order; dpmpp_2m, whose first and last
    # steps are of first order, makes less than a fifth of it.
    assert ((x - DATA.flow(z, logsnr[0].item(), math.inf)) / DATA.deviation).abs().max() < allowed


# What finite steps miss the variance by, times their number.
@pytest.mark.parametrize("name, missed", [("ancestral", 15), ("dpmpp_2m_sde", 3)])
def test_noise_and_all_reach_mean_and_variance(name, missed):
    count, steps = 20_000, 300
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    x = sample(DATA.denoise, z, CosineSchedule(shift=-2.0).steps(steps), sampler=name, generator=generator)
    # Four standard errors; and steps of finite length miss the variance of the narrower coordinate.
    assert ((x.mean(0) - DATA.mean) / DATA.deviation).abs().max() < 4 / math.sqrt(count)
    assert (x.var(0) / DATA.deviation**2 - 1).abs().max() < 4 * math.sqrt(2 / count) + missed / steps
    assert x.T.corrcoef()[0, 1].abs() < 4 / math.sqrt(count)


@pytest.mark.parametrize("gamma, data", [(0.0, Gaussian([2.0], [0.0])), (1.0, Gaussian([0.0], [1.0]))], ids=["point", "normal"])
def test_ancestral_variance_is_exact_at_both_ends_of_gamma(monkeypatch, gamma, data):
    """However long the steps: the smallest variance for data that is one point, the largest for standard normal data, whose
    marginal at every level is (alpha * mean, alpha^2 * deviation^2 + sigma^2).
    """
    monkeypatch.setattr(samplers, "GAMMA", gamma)
    count, levels_ = 50_000, torch.tensor([-4.0, -1.0, 0.5, 3.0], dtype=torch.float64)
    alpha, sigma = levels(-4.0)
    generator = torch.Generator().manual_seed(2)
    z = alpha * data.mean + math.hypot(alpha * data.deviation, sigma) * torch.randn(count, 1, generator=generator).double()
    for end in range(1, len(levels_)):
        reached = sample(data.denoise, z, levels_[: end + 1], sampler="ancestral", generator=generator)
        alpha, sigma = levels(levels_[end].item())
        deviation = math.hypot(alpha * data.deviation, sigma)
        assert abs(reached.mean() - alpha * data.mean).item() < 4 * deviation / math.sqrt(count)
        assert abs(reached.var() / deviation**2 - 1).item() < 4 * math.sqrt(2 / count)


def test_sde_noise_is_that_of_the_process_given_x():
    """One step from z = 0, x = 0: the deviation of z_s given z_t and x, Kingma et al. 2021 (arXiv 2107.00630), equation 25."""
    (alpha, sigma), (alpha_s, sigma_s) = levels(-1.0), levels(2.0)
    variance = (sigma**2 - (alpha / alpha_s) ** 2 * sigma_s**2) * sigma_s**2 / sigma**2
    z = torch.zeros(8, 3, dtype=torch.float64)
    step = sample(lambda z, logsnr: z, z, torch.tensor([-1.0, 2.0]), sampler="dpmpp_2m_sde", generator=seeded(5))
    noise = torch.randn(z.shape, generator=seeded(5), dtype=torch.float64)
    torch.testing.assert_close(step, math.sqrt(variance) * noise, rtol=1e-12, atol=0)


def test_ancestral_noise_lies_between_the_two_variances():
    """One step of gamma 0.3 from z = 0 with x = 0: equation 4's standard deviation, in the paper's own terms."""
    (alpha, sigma), (alpha_s, sigma_s) = levels(-1.0), levels(2.0)
    ratio = (alpha / alpha_s * sigma_s / sigma) ** 2  # e^(lambda_t - lambda_s)
    variance = ((1 - ratio) * sigma_s**2) ** 0.7 * ((1 - ratio) * sigma**2) ** 0.3
    z = torch.zeros(8, 3, dtype=torch.float64)
    step = sample(lambda z, logsnr: z, z, torch.tensor([-1.0, 2.0]), sampler="ancestral", generator=seeded(5))
    noise = torch.randn(z.shape, generator=seeded(5), dtype=torch.float64)
    torch.testing.assert_close(step, math.sqrt(variance) * noise, rtol=1e-12, atol=0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_generator_alone_decides_the_noise():
    z, logsnr = torch.randn(2, 5).double()[:, :2], CosineSchedule().steps(4)

    def run(seed):
        return sample(DATA.denoise, z, logsnr, sampler="ancestral", generator=seeded(seed))

    first = run(3)
    torch.randn(7)  # the global generator plays no part
    assert torch.equal(run(3), first) and not torch.equal(run(4), first)
    same = sample(DATA.denoise, z[:1].expand(2, 2), logsnr, sampler="ancestral", generator=seeded(3))
    assert not torch.equal(same[0], same[1])  # each of a batch has noise of its own


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_step_to_no_noise_returns_the_estimate(name):
    x = torch.randn(3, 4)
    out = sample(lambda z, logsnr: x, torch.randn(3, 4), torch.tensor([-10.0, -1.0, torch.inf]), sampler=name)
    assert torch.equal(out, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SAMPLERS)
def test_z_keeps_its_dtype_and_the_level_is_float64(name, dtype):
    def denoise(z, logsnr):
        assert z.dtype == dtype and logsnr.dtype == torch.float64 and logsnr.shape == ()
        return z / 2

    z = torch.randn(2, 3, dtype=dtype)
    out = sample(denoise, z, CosineSchedule(-2.0).steps(3).float(), sampler=name)
    assert out.dtype == dtype and out.isfinite().all()


def test_every_estimate_is_clipped_and_called_back_in_order():
    seen, levels_ = [], []

    def denoise(z, logsnr):
        levels_.append(logsnr.item())
        return z * 100

    logsnr = torch.tensor([-3.0, 0.0, 1.0, torch.inf])
    z = torch.tensor([[1.0, -1.0]])
    out = sample(denoise, z, logsnr, clip=(-0.5, 2.0), callback=lambda step, x: seen.append((step, x.tolist())))
    assert seen == [(step, [[2.0, -0.5]]) for step in (1, 2, 3)] and levels_ == [-3.0, 0.0, 1.0]
    assert out.tolist() == [[2.0, -0.5]] and z.tolist() == [[1.0, -1.0]]


def test_a_bar_on_stderr_where_asked(capsys):
    arguments = DATA.denoise, torch.randn(1, 2).double(), CosineSchedule().steps(2)
    plain = sample(*arguments)
    assert capsys.readouterr() == ("", "")
    assert torch.equal(sample(*arguments, progress=True), plain)
    out, err = capsys.readouterr()
    assert out == "" and "0/2" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(sampler="euler"), "sampler is 'euler'; expected one of 'ancestral', 'ddim', 'dpmpp_2m'"),
        (dict(logsnr=torch.tensor([1.0, 0.0])), r"logsnr is \[1.0, 0.0\]; expected at least two levels"),
        (dict(logsnr=torch.tensor([0.0, 0.0])), "each above the one before"),
        (dict(logsnr=torch.tensor([0.0, torch.nan])), "each above the one before"),
        (dict(logsnr=torch.tensor([0.0])), "at least two levels"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample(DATA.denoise, torch.zeros(1, 2), **{"logsnr": torch.tensor([0.0, 1.0]), **arguments})
