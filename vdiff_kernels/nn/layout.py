"""What modules check of their input, and the memory format they give back."""

from torch import Tensor

from ..backends.registry import BACKENDS
from ..ops import checks
from ..ops.tensors import autocast_dtype
from .children import is_plain


def require_input(module, x, letters: str, channel_dim: int, channels: int, child) -> None:
    """Raises unless x is a floating tensor of the dimensions in `letters` with `channels` at channel_dim, that fits the child."""
    name = type(module).__name__
    checks.require_floating_tensor(name, "x", x, letters)
    if x.shape[channel_dim] != channels:
        raise ValueError(f"{name}: x has shape {tuple(x.shape)}; expected {letters} with C = {channels}")
    require_fits(module, "x", x, child)


def require_fits(module, argument: str, x: Tensor, child) -> None:
    """Raises unless x has the device and, outside autocast, the dtype of the child's weight; what is called sees to it itself."""
    if not is_plain(child):
        return
    name, weight = type(module).__name__, child.weight
    checks.require_device(name, argument, x, "its weights", weight)
    if x.dtype != weight.dtype and autocast_dtype(x) is None:
        checks.require_like(name, argument, x, "its weights", weight)


def require_frames(module, x: Tensor, max_frames: int | None) -> None:
    """Raises unless x (B, T, ...) has from 1 to max_frames frames; None for no limit."""
    T = x.shape[1]
    if T < 1 or (max_frames is not None and T > max_frames):
        allowed = "T of at least 1" if max_frames is None else f"T from 1 to max_frames = {max_frames}"
        raise ValueError(f"{type(module).__name__}: x has shape {tuple(x.shape)}, so T = {T}; expected {allowed}")


def require_backend(module, backend) -> None:
    checks.require_choice(type(module).__name__, "backend", backend, (None, *BACKENDS))


def require_heads(module, name: str, value: int, num_heads: int) -> None:
    """Raises unless value channels divide into num_heads heads of a width that attention has."""
    require_multiple(module, name, value, "num_heads", num_heads)
    D = value // num_heads
    if D > checks.MAX_HEAD_DIM:
        given = f"{name} is {value} with num_heads = {num_heads}, so D = {D}"
        raise ValueError(f"{type(module).__name__}: {given}; expected D from 1 to {checks.MAX_HEAD_DIM}")


def require_multiple(module, name: str, value: int, of_name: str, of: int) -> None:
    for argument, given in ((name, value), (of_name, of)):
        checks.require_positive_int(type(module).__name__, argument, given)
    if value % of != 0:
        raise ValueError(f"{type(module).__name__}: {name} is {value}; expected a multiple of {of_name} = {of}")


def keep_format(out: Tensor, given: Tensor, channel_dim: int) -> Tensor:
    """out as it is where given had its channels innermost, else contiguous, as given was taken to be."""
    channels_innermost = given.stride(channel_dim) == 1 and not given.is_contiguous()
    return out if channels_innermost else out.contiguous()
