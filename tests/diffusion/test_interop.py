"""Our samplers against the schedulers of diffusers, and those schedulers in the place of ours."""

import math

import diffusers
import pytest
import torch

from vdiff_kernels.diffusion import sampler as samplers
from vdiff_kernels.diffusion.interop import diffusers_betas, sample_with_scheduler
from vdiff_kernels.diffusion.sampler import sample
from vdiff_kernels.diffusion.schedule import CosineSchedule

from .gaussian import Gaussian
from .tiny import tiny

SCHEDULE = CosineSchedule(shift=-2.0)
BETAS = diffusers_betas(SCHEDULE)
DATA = Gaussian(mean=[0.7, -1.5], deviation=[0.3, 2.0])


def make(cls, prediction_type="v_prediction", **options):
    return cls(trained_betas=BETAS, prediction_type=prediction_type, **options)


def test_betas_give_the_schedule():
    betas = torch.tensor(BETAS, dtype=torch.float64)
    alpha2 = (1 - betas).cumprod(0)
    times = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert len(BETAS) == 1000 and ((betas > 0) & (betas < 1)).all()
    torch.testing.assert_close(alpha2, torch.sigmoid(SCHEDULE.logsnr(times)), rtol=1e-9, atol=0)


def levels_of(scheduler) -> torch.Tensor:
    """The logsnr of the scheduler's time steps as it holds them, then no noise."""
    alpha2 = scheduler.alphas_cumprod[scheduler.timesteps].double()
    return torch.cat((torch.log(alpha2 / (1 - alpha2)), torch.tensor([torch.inf], dtype=torch.float64)))


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
def test_ddim_is_that_of_diffusers(prediction_type):
    scheduler = make(diffusers.DDIMScheduler, prediction_type, clip_sample=False, timestep_spacing="trailing")
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()  # then it computes in float64
    z = torch.randn(8, 2, dtype=torch.float64)
    theirs = sample_with_scheduler(DATA.denoise, z, scheduler, 20)
    ours = sample(DATA.denoise, z, levels_of(scheduler), sampler="ddim")
    # Rounding alone: an estimate of x from epsilon loses a factor 1 / alpha, 6e4 at the first step.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 if prediction_type == "epsilon" else 1e-13)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # diffusers' own, of numpy
def test_dpmpp_2m_is_that_of_diffusers():
    scheduler = make(diffusers.DPMSolverMultistepScheduler, solver_order=2, solver_type="midpoint", final_sigmas_type="zero")
    z = torch.randn(8, 2, dtype=torch.float64)
    theirs = sample_with_scheduler(DATA.denoise, z, scheduler, 20)
    ours = sample(DATA.denoise, z, levels_of(scheduler))
    # diffusers keeps its sigmas in float32: 20 steps of some four coefficients, each rounded by 2^-24, of values below 8.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=20 * 4 * 2**-24 * 8)
    first_order = sample(DATA.denoise, z, levels_of(scheduler), sampler="ddim")
    assert (first_order - theirs).abs().max() > 0.01  # the second order is no rounding


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_dpmpp_2m_sde_is_that_of_diffusers(monkeypatch):
    """Of the same noise, which diffusers draws in float32."""
    monkeypatch.setattr(samplers, "noise_like", lambda z, generator: torch.randn(z.shape, generator=generator).to(z))
    options = dict(solver_order=2, solver_type="midpoint", final_sigmas_type="zero", algorithm_type="sde-dpmsolver++")
    scheduler = make(diffusers.DPMSolverMultistepScheduler, **options)
    z = torch.randn(8, 2, dtype=torch.float64)
    theirs = sample_with_scheduler(DATA.denoise, z, scheduler, 20, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    ours = sample(DATA.denoise, z, levels_of(scheduler), sampler="dpmpp_2m_sde", generator=generator)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=20 * 4 * 2**-24 * 8)  # as above


# Per scheduler: what 100 steps may miss the flow by, in deviations of the data, for a z of some 3.5: measured, and doubled.
FLOWS = {
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {}, 0.02),
    "karras": (diffusers.DPMSolverMultistepScheduler, dict(use_karras_sigmas=True), 0.15),  # several steps at one time
    "euler": (diffusers.EulerDiscreteScheduler, {}, 0.4),  # z of variance above 1, and times between the train steps
    "heun": (diffusers.HeunDiscreteScheduler, {}, 0.2),  # two calls of the model a step
    "unipc": (diffusers.UniPCMultistepScheduler, {}, 0.01),
}


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
@pytest.mark.parametrize("name", FLOWS)
def test_schedulers_follow_the_flow(name, prediction_type):
    cls, options, allowed = FLOWS[name]
    z = torch.randn(2000, 2, dtype=torch.float64)
    x = sample_with_scheduler(DATA.denoise, z, make(cls, prediction_type, **options), 100)
    assert ((x - DATA.flow(z, -22.0, math.inf)) / DATA.deviation).abs().max() < allowed


def test_ddpm_reaches_mean_and_variance():
    def run(seed, count):
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(count, 2, generator=generator, dtype=torch.float64)
        scheduler = make(diffusers.DDPMScheduler, clip_sample=False, timestep_spacing="trailing")
        return sample_with_scheduler(DATA.denoise, z, scheduler, 250, generator=generator)

    x = run(0, 4000)
    # Four standard errors; and the smallest variance at every step, of finite length, leaves the narrower coordinate 10% short.
    assert ((x.mean(0) - DATA.mean) / DATA.deviation).abs().max() < 4 / math.sqrt(4000)
    assert (x.var(0) / DATA.deviation**2 - 1).abs().max() < 4 * math.sqrt(2 / 4000) + 0.1
    assert torch.equal(run(1, 2), run(1, 2))  # the generator reaches the scheduler


def test_estimates_are_clipped_and_called_back():
    seen = []
    scheduler = make(diffusers.DDIMScheduler, clip_sample=False)
    x = sample_with_scheduler(
        lambda z, logsnr: z * 100, torch.randn(2, 3), scheduler, 4, clip=(-0.5, 0.25),
        callback=lambda step, x: seen.append((step, x)),
    )  # fmt: skip
    assert [step for step, _ in seen] == [1, 2, 3, 4] and x.dtype == torch.float32
    assert all(((-0.5 <= x) & (x <= 0.25)).all() for _, x in seen)
    torch.testing.assert_close(x, seen[-1][1], atol=1e-4, rtol=0)  # v in float32, turned back by the scheduler


def test_schedulers_of_other_noise_levels_are_refused():
    z = torch.zeros(1, 2)
    with pytest.raises(TypeError, match="sampler is FlowMatchEulerDiscreteScheduler; expected a diffusers scheduler"):
        sample_with_scheduler(DATA.denoise, z, diffusers.FlowMatchEulerDiscreteScheduler(), 2)
    with pytest.raises(TypeError, match="sampler is int; expected"):
        sample_with_scheduler(DATA.denoise, z, 5, 2)
    with pytest.raises(ValueError, match="prediction_type 'flow_prediction'; expected 'v_prediction', 'epsilon' or 'sample'"):
        sample_with_scheduler(DATA.denoise, z, make(diffusers.DPMSolverMultistepScheduler, "flow_prediction"), 2)


@pytest.mark.parametrize("cls", [diffusers.DDIMScheduler, diffusers.DDPMScheduler, diffusers.LCMScheduler])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_a_first_level_without_any_signal(cls, prediction_type):
    """alphas_cumprod ends in 0, as Lin et al. 2023 (arXiv 2305.08891) rescale it: the end is that of the same steps without."""
    levels, z = [], torch.randn(2000, 2, dtype=torch.float64)

    def denoise(z, logsnr):
        levels.append(logsnr.item())
        return DATA.denoise(z, logsnr)

    def run(**options):
        scheduler = make(cls, prediction_type, clip_sample=False, timestep_spacing="trailing", **options)
        generator = torch.Generator().manual_seed(1)
        return sample_with_scheduler(denoise, z, scheduler, 50, logsnr_range=(-22, 18), generator=generator)

    plain, rescaled = run(), run(rescale_betas_zero_snr=True)
    assert levels[50] == -22 and all(map(math.isfinite, levels))
    # The levels differ by the rescaling: alpha by 2e-5, of z up to 4 and v up to 8; the data's deviations are 0.3 and more.
    assert ((rescaled - plain) / DATA.deviation).abs().max() < 0.05


SCHEDULER = diffusers.DPMSolverMultistepScheduler
UNSERVED = {
    "clip_sample": (diffusers.DDIMScheduler, dict(clip_sample=True), "clip_sample=True: .* expected another clip_sample"),
    "thresholding": (SCHEDULER, dict(thresholding=True), "thresholding=True"),
    "learned": (diffusers.DDPMScheduler, dict(clip_sample=False, variance_type="learned_range"), "variance_type='learned_range'"),
    "learned-solver": (SCHEDULER, dict(variance_type="learned"), "variance_type='learned'"),  # it would drop channels
    "flow": (SCHEDULER, dict(use_flow_sigmas=True), "use_flow_sigmas=True"),
    "beta": (SCHEDULER, dict(use_beta_sigmas=True), "use_beta_sigmas=True, sigmas spaced evenly up to 59874"),
    "log-linear": (diffusers.EulerDiscreteScheduler, dict(interpolation_type="log_linear"), "interpolation_type='log_linear'"),
    "continuous": (diffusers.EulerDiscreteScheduler, dict(timestep_type="continuous"), "timestep_type='continuous'"),
    "inverse": (diffusers.DDIMInverseScheduler, dict(clip_sample=False), "time steps go from data to noise"),
    "no-numbers": (diffusers.UniPCMultistepScheduler, dict(predict_x0=False), r"\(.*predict_x0=False\), .* no numbers"),
    "shifting": (diffusers.UniPCMultistepScheduler, dict(use_dynamic_shifting=True), "use_dynamic_shifting=True.*fails: `mu`"),
    "step": (diffusers.CogVideoXDPMScheduler, dict(clip_sample=False), "whose step also needs timestep_back, sample"),
    "epsilon": (
        diffusers.DDIMScheduler,
        dict(prediction_type="epsilon", clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing="trailing"),
        "prediction_type 'epsilon' at a level without signal",
    ),
    "sample": (
        diffusers.EulerAncestralDiscreteScheduler, dict(prediction_type="sample"), "prediction_type='sample'.*which fails",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # theirs, of the settings
@pytest.mark.parametrize("case", UNSERVED)
def test_settings_that_cannot_be_served_are_named(case):
    cls, options, message = UNSERVED[case]
    scheduler = make(cls, **options)
    with pytest.raises(ValueError, match=f"^sampler (has|is) .*{message}") as caught:
        sample_with_scheduler(DATA.denoise, torch.randn(4, 2), scheduler, 20)
    assert "\n" not in str(caught.value)


def test_each_clip_has_its_generator_in_a_scheduler():
    scheduler = make(diffusers.DDPMScheduler, clip_sample=False)
    z = torch.randn(3, 1, 4, 8)

    def run(z, *seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return sample_with_scheduler(lambda z, logsnr: z / 2, z, scheduler, 5, generator=generators)

    assert torch.equal(run(z, 1, 2, 3)[2:], run(z[2:], 3)) and not torch.equal(run(z, 1, 2, 3)[2:], run(z[2:], 4))
    with pytest.raises(ValueError, match="generator is a list of 2; expected one a clip, 3"):
        run(z, 1, 2)


def test_the_pipeline_takes_a_scheduler():
    pipeline = tiny()
    scheduler = make(diffusers.DDIMScheduler, clip_sample=False, timestep_spacing="trailing")
    arguments = dict(num_frames=3, steps=8, latents=torch.randn(1, 1, 3, 16, 16))
    ours = pipeline.sample("a seven moving left", sampler="ddim", **arguments)
    theirs = pipeline.sample("a seven moving left", sampler=scheduler, **arguments)
    # Every 125th train step: the same times. alphas_cumprod is of up to 1000 factors, each rounded by 2^-24: 6e-5 at the worst.
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)
    assert ours.std() > 0.1  # a random model's pattern, no even grey
