"""The noise schedule: z = alpha x + sigma noise, alpha^2 + sigma^2 = 1, at a log signal-to-noise ratio of continuous time."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CosineSchedule:
    """logsnr(t) = -2 log tan(pi t / 2) + shift, from t = 0 (data) to t = 1 (noise).

    Source: Nichol & Dhariwal 2021 (arXiv 2102.09672) in continuous time, as Salimans & Ho 2022 (arXiv 2202.00512), appendix E;
    the shift for the size of a frame, as Hoogeboom et al. 2023 (arXiv 2301.11093), section 3.1.
    """

    shift: float = 0.0  # Added to logsnr: below zero for more noise at the same t.
    limit: float = 20.0  # Before the shift, logsnr runs from limit at t = 0 to -limit at t = 1.

    def logsnr(self, t: Tensor) -> Tensor:
        """t: any shape, from 0 to 1. Returns log(alpha^2 / sigma^2) in t's dtype."""
        low = math.atan(math.exp(-self.limit / 2))
        high = math.pi / 2 - low
        return -2 * torch.log(torch.tan(low + (high - low) * t)) + self.shift

    def steps(self, count: int) -> Tensor:
        """The logsnr of count + 1 evenly spaced times from 1 down to 0, of which the last is +inf, no noise: float64."""
        if count < 1:
            raise ValueError(f"CosineSchedule.steps: count is {count}; expected at least 1")
        logsnr = self.logsnr(torch.linspace(1, 0, count + 1, dtype=torch.float64))
        logsnr[-1] = torch.inf
        return logsnr


def alpha_sigma(logsnr: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma of logsnr () or (B,), shaped to multiply `like` (B, ...)."""
    logsnr = logsnr.reshape(-1, *[1] * (like.dim() - 1))
    return torch.sigmoid(logsnr).sqrt().to(like.dtype), torch.sigmoid(-logsnr).sqrt().to(like.dtype)
