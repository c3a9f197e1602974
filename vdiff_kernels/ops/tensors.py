"""What every operator does to tensors before a kernel sees them."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


def acc_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums are kept in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def power_of_2(number: int) -> int:
    """The smallest that is at least the number."""
    return 1 << max(0, number - 1).bit_length()


def unit_stride(tensor: Tensor) -> Tensor:
    """The tensor itself where its innermost dimension has unit stride (or one element), else one contiguous copy."""
    if tensor.stride(-1) == 1 or tensor.shape[-1] <= 1:
        return tensor
    return tensor.contiguous()


def channels_innermost(x: Tensor | None) -> Tensor | None:
    """An image tensor (B, C, T, H, W) itself where C has unit stride (or one element), else one copy in channels_last_3d."""
    if x is None or x.stride(1) == 1 or x.shape[1] <= 1:
        return x
    return x.contiguous(memory_format=torch.channels_last_3d)


def by_frame(function, x: Tensor) -> Tensor:
    """A function of images (M, C, H, W) on every frame of x (B, C, T, H, W): a view of channels_last_3d is channels_last."""
    return function(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


def like_parameter(gradient: Tensor | None, parameter: Tensor | None) -> Tensor | None:
    """A summed gradient in its parameter's dtype; None where it was not asked for, or the parameter not given."""
    return None if parameter is None or gradient is None else gradient.to(parameter.dtype)


def autocast_dtype(tensor) -> torch.dtype | None:
    """The dtype that autocast asks of this tensor's device, None outside autocast and of what is no tensor, for the checks to
    find. float64 is left alone, as PyTorch does.
    """
    if not isinstance(tensor, Tensor):
        return None
    device = tensor.device.type
    if device == "meta" or not torch.is_autocast_enabled(device) or tensor.dtype == torch.float64:
        return None
    return torch.get_autocast_dtype(device)


def autocast(first, *rest):
    """The arguments as autocast on the first one's device wants them. Whatever is no tensor passes, for the checks to find."""
    dtype = autocast_dtype(first)
    if dtype is None:
        return first, *rest
    return tuple(
        t.to(dtype) if isinstance(t, Tensor) and t.is_floating_point() and t.dtype != torch.float64 else t for t in (first, *rest)
    )


def without_autocast(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Within, autocast leaves what runs on the tensor's device alone."""
    device = tensor.device.type
    return contextlib.nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


_assumed_grad: bool | None = None


def wants_grad(*tensors: Tensor | None) -> bool:
    """Whether backward will be asked for a gradient of any of these."""
    if _assumed_grad is not None:
        return _assumed_grad and any(t is not None for t in tensors)
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


@contextlib.contextmanager
def assumed_grad(gradients: bool) -> Iterator[None]:
    """Within, `wants_grad` says this of every tensor: to ask of a call without its gradients."""
    global _assumed_grad
    before, _assumed_grad = _assumed_grad, gradients
    try:
        yield
    finally:
        _assumed_grad = before
