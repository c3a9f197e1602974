"""Sampling with a scheduler object of diffusers in the place of our own samplers."""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from .sampler import Denoiser, steps_of
from .schedule import CosineSchedule, alpha_sigma


def diffusers_betas(schedule: CosineSchedule, count: int = 1000) -> list[float]:
    """`trained_betas` that give a diffusers scheduler of `count` train steps this schedule: alphas_cumprod[i] is alpha^2 at
    t = (i + 1) / count.
    """
    times = torch.arange(count + 1, dtype=torch.float64) / count
    alpha2 = torch.sigmoid(schedule.logsnr(times))
    alpha2[0] = 1.0
    return (1 - alpha2[1:] / alpha2[:-1]).tolist()


def sample_with_scheduler(
    denoise: Denoiser,
    z: Tensor,                                             # (B, ...), standard normal noise.
    scheduler,                                             # A scheduler of diffusers that has alphas_cumprod.
    steps: int,
    *,
    clip: tuple[float, float] | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
    progress: bool = False,
) -> Tensor:  # fmt: skip
    """As `sampler.sample`, stepped by `scheduler`, at the noise levels of its own time steps.

    Raises TypeError for a scheduler without alphas_cumprod (one of flow matching, say), whose noise levels are not these.
    """
    if getattr(scheduler, "alphas_cumprod", None) is None or not hasattr(scheduler, "set_timesteps"):
        raise TypeError(f"sampler is {type(scheduler).__name__}; expected a diffusers scheduler with alphas_cumprod")
    if getattr(scheduler.config, "clip_sample", False):
        raise ValueError("sampler has clip_sample=True, to a range that is not this model's; expected False: x is clipped here")
    kind = scheduler.config.prediction_type
    if kind not in ("v_prediction", "epsilon", "sample"):
        raise ValueError(f"sampler has prediction_type {kind!r}; expected 'v_prediction', 'epsilon' or 'sample'")
    alpha2 = scheduler.alphas_cumprod.double()
    levels = torch.log(alpha2) - torch.log1p(-alpha2)
    scheduler.set_timesteps(steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # it cannot tell where it starts from a time that several steps share
    extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    z = z * scheduler.init_noise_sigma
    for i, t in enumerate(steps_of(list(scheduler.timesteps), progress)):
        model_z = scheduler.scale_model_input(z, t)
        logsnr = _at(levels, float(t)).to(z.device)
        x = denoise(model_z, logsnr)
        x = x if clip is None else x.clamp(*clip)
        alpha, sigma = alpha_sigma(logsnr, z)
        output = {
            "sample": lambda: x,
            "epsilon": lambda: (model_z - alpha * x) / sigma,
            "v_prediction": lambda: (alpha * model_z - x) / sigma,
        }[kind]()
        z = scheduler.step(output, t, z, **extra).prev_sample
        if callback is not None:
            callback(i + 1, x)
    return z


def _at(levels: Tensor, t: float) -> Tensor:
    """Level t, between two train steps where a scheduler asks for that."""
    low = min(max(int(t), 0), len(levels) - 1)
    high = min(low + 1, len(levels) - 1)
    return torch.lerp(levels[low], levels[high], t - low)
