"""What a call is: what an operator's definition takes, made once by the public function, checked once, handed whole to a backend.

Each family has its own in `call.py`: dataclasses with slots, which are not changed once they are made. (A frozen one costs 1.3 to
2.4 us to make, one with slots 0.3 to 0.7.)
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor


class Call:
    """What every call can be asked. `operator` names a row of the table in backends/registry.py."""

    __slots__ = ()
    # Places in `tensors()` that no backward looks at again.
    unsaved: tuple[int, ...] = ()

    @property
    def main(self) -> Tensor:
        """The tensor whose device and dtype are the call's."""
        return self.x

    def check(self) -> None:
        """Raises ValueError or TypeError, naming the argument, unless the operator is defined for what it was given."""
        raise NotImplementedError

    def arguments(self) -> dict:
        """The keyword arguments of the operator's definition that say the same."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "operator"}

    def tensors(self) -> tuple[Tensor | None, ...]:
        """Every tensor of the call, always in the same places, so that autograd sees them."""
        raise NotImplementedError

    def holding(self, tensors: tuple[Tensor | None, ...]) -> "Call":
        """The same call of other tensors, in the order of `tensors()`; of None alone, what is left are the constants."""
        raise NotImplementedError

    def ready(self) -> "Call":
        """The call as compiled kernels take it: unit strides, and what is small in the shape and dtype of the schemas."""
        return self


@dataclass(frozen=True)
class Described:
    """A tensor of which only this is known. It may stand in a call wherever a backend is asked whether it supports it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool = False

    def dim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return math.prod(self.shape)


def described(value, device: torch.device):
    """A call, or what it holds, with every tensor described as one of that device."""
    if isinstance(value, (Tensor, Described)):
        return Described(tuple(value.shape), value.dtype, device, value.requires_grad)
    if not dataclasses.is_dataclass(value):
        return value
    return type(value)(**{field.name: described(getattr(value, field.name), device) for field in dataclasses.fields(value)})
