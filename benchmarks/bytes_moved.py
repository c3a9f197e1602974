"""The bytes that PyTorch moves for attention, counted operator by operator on meta tensors: nothing is computed."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


class BytesMoved(TorchDispatchMode):
    """Counts what each operator reads and writes once; views move nothing, and what is expanded is read where it lies."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        outputs = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        if not function.is_view and function is not aten._unsafe_view.default:
            self.bytes += sum(_bytes(t) for t in [*inputs, *outputs])
        return result


def _bytes(tensor: Tensor) -> int:
    distinct = 1
    for size, stride in zip(tensor.shape, tensor.stride()):
        distinct *= 1 if stride == 0 else size
    return distinct * tensor.element_size()


def bytes_of(call, *arguments: Tensor, backward: bool) -> int:
    """Of call(*arguments), or of its backward alone."""
    meta = [t.to("meta").requires_grad_(backward and t.is_floating_point()) for t in arguments]
    counter = BytesMoved()
    if not backward:
        with torch.no_grad(), counter:
            call(*meta)
        return counter.bytes
    out = call(*meta)
    grad_out = torch.empty_like(out)
    with counter:
        torch.autograd.grad(out, meta, grad_out)
    return counter.bytes


class Frames:
    """Temporal attention: (B, T, H, W, N, D) as (B*H*W, N, T, D), and back."""

    @staticmethod
    def sequences(t: Tensor) -> Tensor:
        return t.permute(0, 2, 3, 4, 1, 5).flatten(0, 2)

    @staticmethod
    def rows(out: Tensor, shape: torch.Size) -> Tensor:
        B, T, H, W, N, D = shape
        return out.unflatten(0, (B, H, W)).permute(0, 4, 1, 2, 3, 5).contiguous()


class Pixels:
    """Spatial attention: (B, T, H, W, N, D) as (B*T, N, H*W, D), and back; context (B, S, N, D) is expanded to every frame."""

    @staticmethod
    def sequences(t: Tensor) -> Tensor:
        return (t.flatten(2, 3) if t.dim() == 6 else t).transpose(2, 3).flatten(0, 1)

    @staticmethod
    def rows(out: Tensor, shape: torch.Size) -> Tensor:
        return out.transpose(1, 2).reshape(shape).contiguous()


def eager(layout):
    """softmax(q k^T * scale + bias) v as models write it, with the copies that the layout needs."""

    def call(q, k, v, bias=None):
        shape = q.shape
        q, k, v = map(layout.sequences, (q, k, v))
        scores = q @ k.transpose(-2, -1) * shape[-1] ** -0.5
        if bias is not None:
            scores = scores + bias.to(scores.dtype)
        return layout.rows(torch.softmax(scores, -1) @ v, shape)

    return call


def sdpa(layout):
    """The same by PyTorch's memory-efficient kernel, the one of its fused kernels that takes a bias."""

    def call(q, k, v, bias=None):
        shape, needs_grad = q.shape, q.requires_grad
        q, k, v = map(layout.sequences, (q, k, v))
        if bias is not None:
            bias = bias.to(q.dtype).expand(q.shape[0], -1, -1, -1)
        return layout.rows(aten._scaled_dot_product_efficient_attention(q, k, v, bias, needs_grad)[0], shape)

    return call
