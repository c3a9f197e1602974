"""What the model families share. Nothing here imports the packages they come from.

An adapter is a function of a block, called with what its forward is called with. It reads the block's own parameters, so that
gradients land there, calls every layer that is more than its weight says, and keeps the memory format it is given. Where a block
does what no operator says, it raises `Unserved` before it computes anything.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.children import group_normed, is_plain, is_same_conv, normed
from ..ops.norm.api import norm_act
from ..ops.tensors import by_frame


def normalize(
    norm: nn.Module, x: Tensor, *, scale: Tensor | None = None, shift: Tensor | None = None, backend: str | None
) -> Tensor:
    """norm(x) * (1 + scale) + shift; x (B, T, H, W, C), norm over C alone, scale and shift (B, C)."""
    x, folded = normed(norm, x, scale, shift)
    return x if folded is None else norm_act(x.movedim(-1, 1), folded, backend=backend).movedim(1, -1)


def group_normalize(norm: nn.Module, x: Tensor, *, scope: str, backend: str | None) -> Tensor:
    """norm(x) of a group norm; x (B, T, H, W, C)."""
    folded, clip = group_normed(norm, x.movedim(-1, 1), scope)
    return (clip if folded is None else norm_act(clip, folded, backend=backend)).movedim(1, -1)


def channels_last(x: Tensor) -> Tensor:
    """x (B, C, T, H, W) with C innermost: itself, or one copy for all of its readers."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def pointwise(layer: nn.Module, x: Tensor, takes: str = "rows") -> Tensor:
    """A linear layer, or a 1x1 or 1x1x1 convolution, of x (B, T, H, W, C): the matrix product that it is.

    takes: what it is called with: "rows" (..., C), "frames" (M, C, H, W) or "clips" (B, C, T, H, W).
    """
    if takes == "rows":
        return layer(x)
    if is_plain(layer) and is_same_conv(layer) and set(layer.kernel_size) == {1}:
        return F.linear(x, layer.weight.flatten(1), layer.bias)
    clip = x.movedim(-1, 1)
    return (by_frame(layer, clip) if takes == "frames" else layer(clip)).movedim(1, -1)


def some_at_a_time(function: Callable[[Tensor], Tensor], rows: Tensor, most: int, layers: tuple[nn.Module, ...]) -> Tensor:
    """function(rows), which computes each of the rows (M, ...) by itself; on a CPU, without gradients, at most so many at a time:
    what it makes on the way is then little and in the caches. layers: must be plain for that, for a hook is to see all rows.
    """
    whole = torch.is_grad_enabled() or torch.compiler.is_compiling() or rows.device.type != "cpu" or len(rows) <= most
    if whole or not all(map(is_plain, layers)):
        return function(rows)
    return torch.cat([function(some) for some in rows.split(most)])


class _ZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx, out, *tensors):
        ctx.save_for_backward(*tensors)
        return out.view_as(out)

    @staticmethod
    def backward(ctx, grad):
        return grad, *(torch.zeros_like(t) for t in ctx.saved_tensors)


def with_zero_gradients(out: Tensor, tensors: list[Tensor]) -> Tensor:
    """out, which depends on none of the tensors; their gradients are zero in place of None, as if it did."""
    tensors = [t for t in tensors if t.requires_grad] if torch.is_grad_enabled() else []
    return _ZeroGradients.apply(out, *tensors) if tensors else out
