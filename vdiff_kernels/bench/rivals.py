"""Attention as models write it in PyTorch, with the permutes that get there: what the operators are measured against."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """PyTorch's scaled_dot_product_attention on permuted views, the bias dense as its mask, the output permuted back."""

    def call(q, k, v, bias=None):
        rows = map(layout.sequences, (q, k, v))
        return layout.rows(F.scaled_dot_product_attention(*rows, attn_mask=bias), q.shape)

    return call


def efficient(layout):
    """The same by its memory-efficient kernel, the one of its fused kernels that takes a bias; also where nothing is computed."""

    def call(q, k, v, bias=None):
        shape, needs_grad = q.shape, q.requires_grad
        q, k, v = map(layout.sequences, (q, k, v))
        if bias is not None:
            bias = bias.to(q.dtype).expand(q.shape[0], -1, -1, -1)
        return layout.rows(torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, bias, needs_grad)[0], shape)

    return call


def dense_temporal(rel_bias: Tensor, T: int) -> Tensor:
    """rel_bias (N, 2T-1) gathered to the (N, T, T) that a rival which knows no offsets needs."""
    i = torch.arange(T, device=rel_bias.device)
    return rel_bias[:, i - i[:, None] + T - 1]


def dense_spatial(rel_bias: Tensor, H: int, W: int) -> Tensor:
    """rel_bias (N, 2H-1, 2W-1) gathered to (N, H*W, H*W)."""
    pixel = torch.arange(H * W, device=rel_bias.device)
    y, x = pixel // W, pixel % W
    return rel_bias[:, y - y[:, None] + H - 1, x - x[:, None] + W - 1]
