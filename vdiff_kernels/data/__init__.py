"""Data sets of captioned clips."""

from .moving_digits import MovingDigits

__all__ = ["MovingDigits"]
