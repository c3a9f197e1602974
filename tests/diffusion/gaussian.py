"""Data whose every answer is known: a Gaussian, its exact denoiser, and where the probability flow takes each noise."""

import math

import torch
from torch import Tensor


class Gaussian:
    """Independent normal coordinates, of a mean and a deviation each: (D,) float64."""

    def __init__(self, mean: list[float], deviation: list[float]):
        self.mean = torch.tensor(mean, dtype=torch.float64)
        self.deviation = torch.tensor(deviation, dtype=torch.float64)

    def denoise(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """The mean of x given z (B, D)."""
        alpha, sigma = levels(float(logsnr))
        gain = alpha * self.deviation**2 / (alpha**2 * self.deviation**2 + sigma**2)
        return self.mean + gain * (z - alpha * self.mean)

    def flow(self, z: Tensor, start: float, end: float) -> Tensor:
        """The probability flow ODE from z at logsnr `start` to `end`: it scales the distance to alpha * mean by the ratio of the
        marginal deviations, as the flow of a Gaussian is linear and keeps its marginals.
        """
        alpha, sigma = levels(start)
        alpha_end, sigma_end = levels(end)
        before = (alpha**2 * self.deviation**2 + sigma**2).sqrt()
        after = (alpha_end**2 * self.deviation**2 + sigma_end**2).sqrt()
        return alpha_end * self.mean + after / before * (z - alpha * self.mean)


def levels(logsnr: float) -> tuple[float, float]:
    """alpha and sigma, by another way than the package takes: tan(angle) = sigma / alpha = exp(-logsnr / 2)."""
    angle = math.atan(math.exp(-logsnr / 2))
    return math.cos(angle), math.sin(angle)
