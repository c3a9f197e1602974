"""The space that a model diffuses in: of pixels here, of an autoencoder's latents elsewhere."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Space(Protocol):
    """What a pipeline asks of the space that its model works in. Frames stay frames: known ones are known in both."""

    channels: int  # C of a clip as it is seen, in pixels.

    def shape(self, T: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The shape (C', T, H', W') of x, for T frames of size (H, W) in pixels."""

    def encode(self, clips: Tensor) -> Tensor:
        """Pixels (B, C, T, H, W) from 0 to 1 to x (B, C', T, H', W'), about standard normal, in the dtype of the clips."""

    def decode(self, x: Tensor) -> Tensor:
        """x (B, C', T, H', W') to pixels (B, C, T, H, W) from 0 to 1, in the dtype of x."""

    @property
    def limits(self) -> tuple[float, float] | None:
        """Between which every value of x lies; None where nothing is known."""

    @property
    def config(self) -> dict:
        """The numbers that the space is made of, for a file of weights."""


@dataclass
class PixelSpace:
    """The pixels themselves, but for their scale: x = (pixel - mean) * scale, so that x is about standard normal."""

    channels: int = 1
    mean: float = 0.06
    scale: float = 3.0

    def shape(self, T: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
        return (self.channels, T, *size)

    def encode(self, clips: Tensor) -> Tensor:
        return (clips - self.mean) * self.scale

    def decode(self, x: Tensor) -> Tensor:
        return (x / self.scale + self.mean).clamp(0, 1)

    @property
    def limits(self) -> tuple[float, float]:
        return tuple(self.encode(torch.tensor([0.0, 1.0])).tolist())

    @property
    def config(self) -> dict:
        return {"pixel_mean": self.mean, "pixel_scale": self.scale}
