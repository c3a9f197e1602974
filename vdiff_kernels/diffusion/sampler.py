"""Samplers: from noise to data, through a denoiser that estimates x from z at a log signal-to-noise ratio."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..ops.checks import shown

Generators = torch.Generator | Sequence[torch.Generator] | None  # One for all clips, or one for each.
Denoiser = Callable[[Tensor, Tensor], Tensor]  # (z (B, ...), logsnr ()) -> x (B, ...)
GAMMA = 0.3  # Of `ancestral`: 0 takes the smallest variance of the reverse process, 1 the largest.


def ddim(z, x, now, then, *, before=None, noise=None) -> Tensor:
    """Song et al. 2021 (arXiv 2010.02502), equation 12 without noise: first order."""
    return _alpha(then) * x + _sigma(then) / _sigma(now) * (z - _alpha(now) * x)


def dpmpp_2m(z, x, now, then, *, before=None, noise=None) -> Tensor:
    """Lu et al. 2022 (DPM-Solver++, arXiv 2211.01095), algorithm 2: second order from two estimates of x.

    The first step and the one to no noise are of first order.
    """
    h = (then - now) / 2  # of lambda = log(alpha / sigma)
    x = _extrapolated(x, now, then, before)
    return _sigma(then) / _sigma(now) * z - _alpha(then) * math.expm1(-h) * x


def dpmpp_2m_sde(z, x, now, then, *, before=None, noise) -> Tensor:
    """Lu et al. 2022, SDE-DPM-Solver++(2M): the reverse process, whose noise mends what earlier steps did wrong.

    The first step and the one to no noise are of first order.
    """
    if not math.isfinite(then):
        return x
    h = (then - now) / 2
    x = _extrapolated(x, now, then, before)
    mean = _sigma(then) / _sigma(now) * math.exp(-h) * z - _alpha(then) * math.expm1(-2 * h) * x
    return mean + _sigma(then) * math.sqrt(-math.expm1(-2 * h)) * noise()


def _extrapolated(x, now, then, before) -> Tensor:
    """The estimate of x half a step ahead, from this one and the one before it, where there is one."""
    if before is None or not math.isfinite(then):
        return x
    x_before, logsnr_before = before
    return x + (then - now) / (now - logsnr_before) / 2 * (x - x_before)


def ancestral(z, x, now, then, *, before=None, noise) -> Tensor:
    """Ho et al. 2022 (arXiv 2204.03458), equation 4: the reverse process, its variance interpolated by GAMMA."""
    kept = math.exp(now - then)  # e^(lambda_t - lambda_s) of the paper, whose s is the less noisy
    mean = kept * _alpha(then) / _alpha(now) * z + (1 - kept) * _alpha(then) * x
    if not math.isfinite(then):
        return mean
    # sqrt of sigma~_{s|t}^2 ^ (1 - gamma) * sigma_{t|s}^2 ^ gamma
    deviation = math.sqrt(1 - kept) * _sigma(then) ** (1 - GAMMA) * _sigma(now) ** GAMMA
    return mean + deviation * noise()


SAMPLERS = {"ancestral": ancestral, "ddim": ddim, "dpmpp_2m": dpmpp_2m, "dpmpp_2m_sde": dpmpp_2m_sde}


def sample(
    denoise: Denoiser,
    z: Tensor,                                             # (B, ...), noise at logsnr[0].
    logsnr: Tensor,                                        # (steps + 1,), rising; the last may be +inf.
    *,
    sampler: str = "dpmpp_2m",                             # A key of SAMPLERS.
    clip: tuple[float, float] | None = None,               # Range that every estimate of x is clamped to.
    generator: Generators = None,                          # Of the noise of ancestral and dpmpp_2m_sde.
    callback: Callable[[int, Tensor], None] | None = None, # callback(step from 1, x) after each step.
    progress: bool = False,                                # A bar on stderr.
) -> Tensor:  # fmt: skip
    """Returns z at logsnr[-1], in the dtype of z. Raises ValueError for an unknown sampler or a logsnr that does not rise."""
    if sampler not in SAMPLERS:
        raise ValueError(f"sample: sampler is {sampler!r}; expected one of {', '.join(map(repr, SAMPLERS))}")
    require_generator("sample", generator, len(z))
    levels = logsnr.double().tolist()
    if len(levels) < 2 or any(not now < then for now, then in zip(levels, levels[1:])):
        raise ValueError(f"sample: logsnr is {levels}; expected at least two levels, each above the one before")
    step = SAMPLERS[sampler]
    before = None
    for i, (now, then) in enumerate(steps_of(list(zip(levels, levels[1:])), progress)):
        x = denoise(z, torch.tensor(now, dtype=torch.float64, device=z.device))
        x = x if clip is None else x.clamp(*clip)
        z = step(z, x, now, then, before=before, noise=lambda: noise_like(z, generator))
        before = x, now
        if callback is not None:
            callback(i + 1, x)
    return z


def steps_of(steps, progress: bool):
    """The steps, under a progress bar where asked."""
    if not progress:
        return steps
    from tqdm import tqdm

    return tqdm(steps, unit="step", leave=False)


def noise_like(z: Tensor, generator: Generators) -> Tensor:
    """Standard normal noise of z's shape (B, ...), drawn on the generator's device: the same for a CPU generator on every device.

    Of several generators, each draws the noise of its own clip, as if that were alone.
    """
    if isinstance(generator, (list, tuple)):
        return torch.cat([noise_like(clip, own) for clip, own in zip(z.split(1), generator, strict=True)])
    device = z.device if generator is None else generator.device
    return torch.randn(z.shape, generator=generator, device=device, dtype=z.dtype).to(z.device)


def require_generator(op: str, generator: Generators, B: int) -> None:
    """Raises TypeError for what is no generator, ValueError for a list of another length than the B clips."""
    each = generator if isinstance(generator, (list, tuple)) else [] if generator is None else [generator]
    for one in each:
        if not isinstance(one, torch.Generator):
            raise TypeError(f"{op}: generator is {shown(one)}; expected a torch.Generator, or a list of one a clip")
    if isinstance(generator, (list, tuple)) and len(generator) != B:
        raise ValueError(f"{op}: generator is a list of {len(generator)}; expected one a clip, {B}")


def _alpha(logsnr: float) -> float:
    return math.sqrt(1 / (1 + math.exp(-logsnr)))


def _sigma(logsnr: float) -> float:
    return math.sqrt(1 / (1 + math.exp(logsnr))) if math.isfinite(logsnr) else 0.0
