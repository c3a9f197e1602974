"""Attention over the frames along the path of what moves, so that its shape is the same in all of them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn import TemporalAttention
from ..nn.children import normed
from ..ops.tensors import acc_dtype


class AlignedAttention(nn.Module):
    """Temporal attention of frames that are shifted so that what moves stays in its place, and shifted back after.

    Attention over the frames at a fixed pixel cannot follow a shape across a clip; this compares the same part of it in all
    frames, as attention along trajectories does (Patrick et al. 2021, arXiv 2106.05392). Adds nothing before it is trained.
    """

    def __init__(self, channels: int, num_heads: int, patch: int, backend: str | None):
        super().__init__()
        self.patch = patch
        step = math.lcm(patch**2, num_heads)  # each pixel of a patch has channels of its own
        inner = -(-channels // step) * step
        self.norm = nn.LayerNorm(channels)
        self.enter = nn.Linear(channels, inner)
        self.attention_norm = nn.LayerNorm(inner)
        self.attention = TemporalAttention(inner, num_heads, position="t5", backend=backend)
        self.leave = nn.Linear(inner, channels)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, places: Tensor, focus_present: Tensor | None) -> Tensor:
        """x: (B, C, T, H, W) of patch x patch pixels a position; places: (B, T, 2), of `centres`, in pixels. Returns as x."""
        x = x.movedim(1, -1)
        h = shifted(self.enter(self.norm(x)), places, self.patch)
        normal, norm = normed(self.attention_norm, h)
        h = self.attention(normal, norm=norm, residual=h, focus_present=focus_present)
        return (x + self.leave(shifted(h, -places, self.patch))).movedim(-1, 1)


def centres(scores: Tensor) -> Tensor:
    """The mean place of each frame's softmax of scores (B, T, H, W): (B, T, 2), y and x from the middle, acc.

    Finn et al. 2016 (arXiv 1509.06113), section V: feature points by a spatial softmax.
    """
    weight = scores.flatten(2).softmax(-1, dtype=acc_dtype(scores.dtype)).view(scores.shape)
    y, x = (torch.arange(n, device=scores.device) - (n - 1) / 2 for n in scores.shape[-2:])
    return torch.stack(((weight.sum(-1) * y).sum(-1), (weight.sum(-2) * x).sum(-1)), dim=-1)


def shifted(x: Tensor, places: Tensor, patch: int) -> Tensor:
    """Frames x (B, T, H, W, C) of patch x patch pixels a position, read `places` (B, T, 2) pixels further on; zero outside.

    Between pixels by Lanczos's kernel of 3 pixels, along each axis as a matrix, so that the places have a gradient.
    """
    frames = F.pixel_shuffle(x.flatten(0, 1).movedim(-1, 1), patch)  # (B*T, C/patch^2, h, w)
    rows, columns = (_lanczos(n, place.flatten()).to(x.dtype) for n, place in zip(frames.shape[-2:], places.unbind(-1)))
    return F.pixel_unshuffle(rows @ frames @ columns.mT, patch).movedim(1, -1).reshape(x.shape)


def _lanczos(size: int, places: Tensor) -> Tensor:
    """(M,) to (M, 1, size, size): row i has the weights of the pixels around i + place."""
    index = torch.arange(size, device=places.device)
    distance = (index[:, None] - index + places[:, None, None, None]).clamp(-3, 3)
    return torch.sinc(distance) * torch.sinc(distance / 3)
