"""Relative position biases as tables for the `bias` or `rel_bias` argument of an attention operator."""

import math

import torch
from torch import Tensor, nn

from ..ops import checks

KINDS = ("dense", "offset", "t5")


class RelativePositionBias(nn.Module):
    """A learned bias over frames. `forward(T)` gives the keyword that an attention operator takes: {"bias": ...} or
    {"rel_bias": ...}.

    kind "dense": `table` (N, max_frames, max_frames), one entry a pair of frames.
    kind "offset": `table` (N, 2 * max_frames - 1), one entry an offset j - i.
    kind "t5": `relative_attention_bias` (num_buckets, N), offsets in buckets that widen with distance, any number of frames;
        state_dict as lucidrains' RelativePositionBias. Expanded to offsets here: no kernel knows of buckets.

    Source: Shaw et al. 2018 (arXiv 1803.02155); Raffel et al. 2020 (T5, arXiv 1910.10683), section 2.1.
    """

    def __init__(
        self,
        num_heads: int,           # N.
        kind: str = "offset",
        max_frames: int = 32,     # Longest clip of "dense" and "offset".
        num_buckets: int = 32,    # "t5": half for each direction.
        max_distance: int = 128,  # "t5": offsets from here on share the last bucket.
    ):  # fmt: skip
        super().__init__()
        name = type(self).__name__
        checks.require_positive_int(name, "num_heads", num_heads)
        checks.require_choice(name, "kind", kind, KINDS)
        self.kind, self.max_frames, self.num_buckets, self.max_distance = kind, max_frames, num_buckets, max_distance
        if kind == "t5":
            checks.require_positive_int(name, "num_buckets", num_buckets)
            checks.require_positive_int(name, "max_distance", max_distance)
            if num_buckets < 4 or num_buckets % 4 != 0 or max_distance <= num_buckets // 4:
                raise ValueError(
                    f"{name}: num_buckets is {num_buckets} and max_distance {max_distance}; expected a multiple of 4 and more "
                    f"than a quarter of it"
                )
            self.relative_attention_bias = nn.Embedding(num_buckets, num_heads)
        else:
            checks.require_positive_int(name, "max_frames", max_frames)
            offsets = (max_frames, max_frames) if kind == "dense" else (2 * max_frames - 1,)
            self.table = nn.Parameter(torch.randn(num_heads, *offsets) * 0.02)

    def forward(self, T: int, S: int | None = None) -> dict[str, Tensor]:
        """The bias of T query frames and S (default T) key frames. Raises ValueError beyond max_frames."""
        S = T if S is None else S
        checks.require_positive_int(type(self).__name__, "T", T)
        checks.require_positive_int(type(self).__name__, "S", S)
        if self.kind == "t5":
            offsets = torch.arange(1 - T, S, device=self.relative_attention_bias.weight.device)
            return {"rel_bias": self.relative_attention_bias(self.bucket(offsets)).T}
        if max(T, S) > self.max_frames:
            raise ValueError(
                f"{type(self).__name__}: T = {T} and S = {S} frames; expected at most max_frames = {self.max_frames}"
            )
        if self.kind == "dense":
            return {"bias": self.table[:, :T, :S]}
        centre = self.max_frames - 1
        return {"rel_bias": self.table[:, centre - (T - 1) : centre + S]}

    def bucket(self, offset: Tensor) -> Tensor:
        """The bucket of each offset j - i."""
        half = self.num_buckets // 2
        exact = half // 2
        distance = offset.abs()
        widening = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact) * (half - exact)
        far = (exact + widening.long()).clamp(max=half - 1)
        return (offset > 0).long() * half + torch.where(distance < exact, distance, far)
