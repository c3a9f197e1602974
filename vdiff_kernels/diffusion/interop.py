"""Sampling with a scheduler object of diffusers in the place of our own samplers."""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .sampler import Denoiser, Generators, require_generator, steps_of
from .schedule import CosineSchedule, alpha_sigma


def diffusers_betas(schedule: CosineSchedule, count: int = 1000) -> list[float]:
    """`trained_betas` that give a diffusers scheduler of `count` train steps this schedule: alphas_cumprod[i] is alpha^2 at
    t = (i + 1) / count.
    """
    times = torch.arange(count + 1, dtype=torch.float64) / count
    alpha2 = torch.sigmoid(schedule.logsnr(times))
    alpha2[0] = 1.0
    return (1 - alpha2[1:] / alpha2[:-1]).tolist()


# Beyond these a level is, in float32, that of pure data or of pure noise: a scheduler may name one without any noise or signal.
PURE = 40.0
MAX_SIGMA = 200.0  # From which sigmas that are spaced by their own size leave next to none of the steps for the picture.

# Settings that no answer can be right with: the value that is refused, and why.
UNSERVED = {
    "clip_sample": (True, "it clips to a range that is not this model's; x is clipped here"),
    "thresholding": (True, "it clips to a range that is not this model's; x is clipped here"),
    "variance_type": (("learned", "learned_range"), "the model predicts no variance"),
    "use_flow_sigmas": (True, "its noise levels are not those of its alphas_cumprod"),
    "interpolation_type": ("log_linear", "its time steps are not those of its noise levels"),
    "timestep_type": ("continuous", "its time steps are no places in alphas_cumprod"),
}


def sample_with_scheduler(
    denoise: Denoiser,
    z: Tensor,                                             # (B, ...), standard normal noise.
    scheduler,                                             # A scheduler of diffusers that has alphas_cumprod.
    steps: int,
    *,
    clip: tuple[float, float] | None = None,
    logsnr_range: tuple[float, float] = (-PURE, PURE),     # Levels that denoise knows; those beyond are shown to it as these.
    generator: Generators = None,
    callback: Callable[[int, Tensor], None] | None = None,
    progress: bool = False,
) -> Tensor:  # fmt: skip
    """As `sampler.sample`, stepped by `scheduler`, at the noise levels of its own time steps.

    A schedule rescaled to no signal at its end (`rescale_betas_zero_snr`) is served: alpha is 0 there, and denoise is asked at
    the lowest level that it knows.

    Raises TypeError for a scheduler without alphas_cumprod (one of flow matching, say), whose noise levels are not these, and
    ValueError that names the setting for one that cannot be served.
    """
    _require_scheduler(scheduler)
    require_generator("sample", generator, len(z))
    with _refusing(scheduler):
        scheduler.set_timesteps(steps)
    times = [float(t) for t in scheduler.timesteps]
    if times[0] < times[-1]:
        raise ValueError(f"sampler is {type(scheduler).__name__}, whose time steps go from data to noise; expected noise to data")
    alpha2 = scheduler.alphas_cumprod.double()
    levels = (torch.log(alpha2) - torch.log1p(-alpha2)).clamp(-PURE, PURE)
    kind = scheduler.config.prediction_type
    if kind == "epsilon" and alpha2[-1] == 0 and times[0] > len(alpha2) - 2:
        raise ValueError("sampler has prediction_type 'epsilon' at a level without signal; expected 'v_prediction' or 'sample'")
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # it cannot tell where it starts from a time that several steps share
    extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    z = z * scheduler.init_noise_sigma
    for i, t in enumerate(steps_of(list(scheduler.timesteps), progress)):
        model_z = scheduler.scale_model_input(z, t)
        logsnr = _at(levels, float(t)).to(z.device)
        x = denoise(model_z, logsnr.clamp(*logsnr_range))
        x = x if clip is None else x.clamp(*clip)
        alpha, sigma = alpha_sigma(logsnr, z)
        output = {
            "sample": lambda: x,
            "epsilon": lambda: (model_z - alpha * x) / sigma,
            "v_prediction": lambda: (alpha * model_z - x) / sigma,
        }[kind]()
        with _refusing(scheduler):
            z = scheduler.step(output, t, z, **extra).prev_sample
        if callback is not None:
            callback(i + 1, x)
    if not z.isfinite().all() and x.isfinite().all():
        raise ValueError(f"sampler is {_described(scheduler)}, which gives pixels that are no numbers; expected other settings")
    return z


def _require_scheduler(scheduler) -> None:
    if getattr(scheduler, "alphas_cumprod", None) is None or not hasattr(scheduler, "set_timesteps"):
        raise TypeError(f"sampler is {type(scheduler).__name__}; expected a diffusers scheduler with alphas_cumprod")
    for name, (refused, reason) in UNSERVED.items():
        value = getattr(scheduler.config, name, None)
        if value is not None and (value in refused if isinstance(refused, tuple) else value == refused):
            raise ValueError(f"sampler has {name}={value!r}: {reason}; expected another {name}")
    if getattr(scheduler.config, "use_beta_sigmas", False):
        alpha2 = scheduler.alphas_cumprod.double().min()
        largest = math.sqrt((1 - alpha2) / alpha2) if alpha2 > 0 else math.inf
        if largest > MAX_SIGMA:
            given = f"sampler has use_beta_sigmas=True, sigmas spaced evenly up to {largest:g}"
            raise ValueError(f"{given}; expected False, or betas whose largest sigma is at most {MAX_SIGMA:g}")
    kind = scheduler.config.prediction_type
    if kind not in ("v_prediction", "epsilon", "sample"):
        raise ValueError(f"sampler has prediction_type {kind!r}; expected 'v_prediction', 'epsilon' or 'sample'")
    needed = [
        name
        for name, parameter in inspect.signature(scheduler.step).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    if len(needed) > 3:
        more = ", ".join(needed[3:])
        raise ValueError(f"sampler is {type(scheduler).__name__}, whose step also needs {more}; expected another")


@contextlib.contextmanager
def _refusing(scheduler) -> Iterator[None]:
    """Whatever a scheduler raises at settings of its own, as a ValueError that names them."""
    try:
        yield
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"sampler is {_described(scheduler)}, which fails: {reason}; expected other settings") from error


def _described(scheduler) -> str:
    """Its class, and those of its settings that are not their defaults."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(type(scheduler).__init__).parameters.items()}
    given = {name: value for name, value in scheduler.config.items() if name in defaults and name != "trained_betas"}
    changed = ", ".join(f"{name}={value!r}" for name, value in given.items() if value != defaults[name])
    return f"{type(scheduler).__name__}({changed})"


def _at(levels: Tensor, t: float) -> Tensor:
    """Level t, between two train steps where a scheduler asks for that."""
    low = min(max(int(t), 0), len(levels) - 1)
    high = min(low + 1, len(levels) - 1)
    return torch.lerp(levels[low], levels[high], t - low)
