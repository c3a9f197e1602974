"""The training loss: v-prediction at random noise levels of continuous time."""

import torch
from torch import Tensor

from .schedule import CosineSchedule, alpha_sigma

# Weight of a noise level in the mean squared error of v. In terms of x and of the noise, that error is (1 + snr) |x - x'|^2 and
# (1 + 1/snr) |noise - noise'|^2: Salimans & Ho 2022 (arXiv 2202.00512), section 4; min-SNR: Hang et al. 2023 (arXiv 2303.09556).
WEIGHTINGS = {
    "v": torch.ones_like,
    "x": lambda logsnr: torch.sigmoid(-logsnr),
    "noise": lambda logsnr: torch.sigmoid(logsnr),
    "min_snr": lambda logsnr: logsnr.exp().clamp(max=5) * torch.sigmoid(-logsnr),
    # About one over the error that a trained model leaves of moving digits, so that all noise levels count alike: as Karras et
    # al. 2024 (arXiv 2312.02696), equation 16, but fixed.
    "even": lambda logsnr: torch.sigmoid((logsnr + 3) / 1.6),
}


def draw_times(uniform: Tensor, power: float = 1.0) -> Tensor:
    """Times t = u^power of uniform numbers (B,): power below 1 draws more of high noise."""
    return uniform**power


def v_loss(
    model,                         # model(z, logsnr, text, focus_present) -> v
    x: Tensor,                     # (B, C, T, H, W)
    text: Tensor,                  # (B, E) or (B, T, E)
    schedule: CosineSchedule,
    times: Tensor,                 # (B,)
    noise: Tensor,                 # x's shape
    *,
    focus_present: Tensor | None = None,
    weighting: str = "v",          # A key of WEIGHTINGS.
) -> Tensor:  # fmt: skip
    """The weighted mean squared error of v of each clip: (B,)."""
    if weighting not in WEIGHTINGS:
        raise ValueError(f"v_loss: weighting is {weighting!r}; expected one of {', '.join(map(repr, WEIGHTINGS))}")
    logsnr = schedule.logsnr(times)
    alpha, sigma = alpha_sigma(logsnr, x)
    v = model(alpha * x + sigma * noise, logsnr, text, focus_present)
    error = (v - (alpha * noise - sigma * x)).square().flatten(1).mean(1)
    return error * WEIGHTINGS[weighting](logsnr)
