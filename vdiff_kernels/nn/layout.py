"""What modules check of their input, and the memory format they give back."""

from torch import Tensor

from ..ops import checks


def require_input(module, x, letters: str, channel_dim: int, channels: int) -> None:
    """Raises unless x is a floating tensor of the dimensions in `letters` with `channels` at channel_dim."""
    name = type(module).__name__
    checks.require_tensor(name, "x", x)
    checks.require_floating(name, "x", x)
    checks.require_rank(name, "x", x, letters)
    if x.shape[channel_dim] != channels:
        raise ValueError(f"{name}: x has shape {tuple(x.shape)}; expected {letters} with C = {channels}")


def require_multiple(module, name: str, value: int, of_name: str, of: int) -> None:
    for argument, given in ((name, value), (of_name, of)):
        checks.require_positive_int(type(module).__name__, argument, given)
    if value % of != 0:
        raise ValueError(f"{type(module).__name__}: {name} is {value}; expected a multiple of {of_name} = {of}")


def keep_format(out: Tensor, given: Tensor, channel_dim: int) -> Tensor:
    """out as it is where given had its channels innermost, else contiguous, as given was taken to be."""
    channels_innermost = given.stride(channel_dim) == 1 and not given.is_contiguous()
    return out if channels_innermost else out.contiguous()
