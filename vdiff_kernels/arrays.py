"""Arguments that arrive as arrays of other libraries."""

import operator
from collections.abc import Iterable

import torch
from torch import Tensor

from .ops.checks import require_floating, shown


def as_tensor(op: str, name: str, value) -> Tensor:
    """value as a torch.Tensor of floating dtype: itself, or a NumPy array (or what turns into one) as it is in memory.

    Raises TypeError for what is no array of numbers, or one of whole numbers: pixels from 0 to 255 would pass for other pixels.
    """
    if not isinstance(value, Tensor):
        try:
            value = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{op}: {name} is {shown(value)}; expected a torch.Tensor or an array of numbers") from None
    require_floating(op, name, value)
    return value


def as_indices(op: str, name: str, value, below: int) -> list[int]:
    """value, whole numbers from 0 to below - 1 in any kind of sequence, as a list. Raises ValueError or TypeError otherwise."""
    given = value
    if isinstance(value, Iterable) and getattr(value, "ndim", 1) == 1 and not isinstance(value, str):
        given = value.tolist() if hasattr(value, "tolist") else list(value)
    if not isinstance(given, list) or not all(hasattr(i, "__index__") and not isinstance(i, bool) for i in given):
        words = given if isinstance(given, list) and len(given) <= 8 else shown(value)
        raise TypeError(f"{op}: {name} is {words}; expected whole numbers from 0 to {below - 1}")
    indices = [operator.index(index) for index in given]
    if not indices or not all(0 <= index < below for index in indices):
        raise ValueError(f"{op}: {name} is {indices}; expected at least one, each from 0 to {below - 1}")
    return indices
