"""The reference video diffusion U-Net: Ho et al. 2022, "Video Diffusion Models" (arXiv 2204.03458), section 3 and figure 1."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn import FactorizedAttention, NormActConv, ResnetBlock3D, SpatialConv, TemporalAttention, TemporalConv
from ..nn.children import norm_conv, normed
from ..nn.layout import require_multiple
from ..ops import checks
from ..ops.attention.call import require_focus_present
from ..ops.tensors import by_frame
from .aligned_attention import AlignedAttention, centres


class VideoUNet(nn.Module):
    """Predicts v of a noisy clip from the clip, its log signal-to-noise ratio and the embedding of a condition, such as a text.

    Factorized: residual blocks of 1x3x3 convolutions, each followed by a 3x1x1 over the frames (as in Make-A-Video, Singer et al.
    2022, arXiv 2209.14792: the paper's own has none), then attention over each frame's pixels, then over the frames at each pixel
    with a relative position bias. Space is down- and upsampled, time never. After each block of the last level, temporal
    attention also follows what moves, where `place` finds it in each frame (`AlignedAttention`; none in the paper), so that a
    shape stays the same while it moves. A clip may carry single images as its last frames, which no other frame sees
    (`focus_present`): joint training on videos and images, section 3 of the paper.
    """

    def __init__(
        self,
        channels: int = 1,                        # C of a clip, in pixels or latents.
        widths: tuple[int, ...] = (32, 64, 128),  # Channels of each level, which has half the H and W of the one before.
        blocks: int = 2,                          # Residual blocks of a level on the way down, the last with attention; so up.
        patch: int = 2,                           # Squares of patch x patch pixels are one position of the first level.
        head_dim: int = 32,                       # D. Divides every width.
        groups: int = 8,                          # Of every group norm.
        embedding: int = 192,                     # E. Width of the embedding of condition, noise level and frame index.
        backend: str | None = None,               # Of every fused part.
    ):  # fmt: skip
        super().__init__()
        if not widths:
            raise ValueError(f"{type(self).__name__}: widths is empty; expected the channels of at least one level")
        for width in widths:
            require_multiple(self, "widths", width, "head_dim", head_dim)
        require_multiple(self, "embedding", embedding, "2", 2)  # half sines, half cosines
        E = embedding
        self.config = dict(
            channels=channels, widths=tuple(widths), blocks=blocks, patch=patch, head_dim=head_dim, groups=groups,
            embedding=embedding,
        )  # fmt: skip
        self.channels, self.patch, self.levels = channels, patch, len(widths)
        self.condition = Condition(E)

        first = widths[0]
        self.stem = SpatialConv(channels * patch**2, first, backend=backend)
        self.stem_norm = nn.LayerNorm(first)
        self.stem_attention = TemporalAttention(first, first // head_dim, position="t5", backend=backend)

        def stage(in_channels, out_channels, attends):
            return Stage(in_channels, out_channels, E, out_channels // head_dim if attends else 0, groups, backend)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, width = [first], first
        for level_width in widths:
            self.down.append(nn.ModuleList())
            for block in range(blocks):
                self.down[-1].append(stage(width, level_width, block == blocks - 1))
                width = level_width
                skips.append(width)
        self.middle = stage(width, width, True)
        for level, level_width in reversed(list(enumerate(widths))):
            self.up.append(nn.ModuleList())
            count = blocks + (level == 0)  # the stem has a skip of its own
            for block in range(count):
                self.up[-1].append(stage(width + skips.pop(), level_width, block == count - 1))
                width = level_width
        self.place = nn.Linear(first, 1, bias=False)  # scores of each position for being where what moves is
        self.aligned = nn.ModuleList(AlignedAttention(first, first // head_dim, patch, backend) for _ in self.up[-1])
        self.head = NormActConv(width, channels * patch**2, groups=groups, backend=backend)
        nn.init.zeros_(self.head.conv.weight)

    def forward(
        self,
        z: Tensor,                            # (B, C, T, H, W), noisy; H and W multiples of patch * 2**(levels - 1).
        logsnr: Tensor,                       # (B,), log(alpha^2 / sigma^2) of z.
        text: Tensor,                         # The condition: (B, E), or (B, T, E) where frames have conditions of their own.
        focus_present: Tensor | None = None,  # (B,) or (B, T) bool: frames that are single images.
    ) -> Tensor:  # fmt: skip
        """Returns v (B, C, T, H, W), as Salimans & Ho 2022 (arXiv 2202.00512) define it: alpha * noise - sigma * x."""
        self._require(z, logsnr, text, focus_present)
        if focus_present is not None and focus_present.dim() == 1:
            focus_present = focus_present[:, None].expand(-1, z.shape[2])
        emb = self.condition(logsnr, text, z.shape[2], focus_present)  # (B, T, E)

        x = self.stem(self._patches(z))
        h = x.movedim(1, -1)
        normal, norm = normed(self.stem_norm, h)
        x = self.stem_attention(normal, norm=norm, residual=h, focus_present=focus_present).movedim(-1, 1)

        skips = [x]
        for level, stages in enumerate(self.down):
            x = _halved(x) if level > 0 else x
            for stage in stages:
                x = stage(x, emb, focus_present)
                skips.append(x)
        x = self.middle(x, emb, focus_present)
        for level, stages in enumerate(self.up):
            x = F.interpolate(x, scale_factor=(1, 2, 2)) if level > 0 else x
            for number, stage in enumerate(stages):
                x = stage(torch.cat((x, skips.pop()), dim=1), emb, focus_present)
                if level == self.levels - 1:
                    if number == 0:
                        places = centres(self.place(x.movedim(1, -1)).squeeze(-1)) * self.patch
                    x = self.aligned[number](x, places, focus_present)
        return self._pixels(self.head(x))

    def _patches(self, z: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C*patch*patch, T, H/patch, W/patch), channels_last_3d."""
        x = F.pixel_unshuffle(z.transpose(1, 2), self.patch).transpose(1, 2)
        return x.contiguous(memory_format=torch.channels_last_3d)

    def _pixels(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x.transpose(1, 2), self.patch).transpose(1, 2).contiguous()

    def _require(self, z: Tensor, logsnr: Tensor, text: Tensor, focus_present: Tensor | None) -> None:
        name = type(self).__name__
        checks.require_tensor(name, "z", z)
        checks.require_rank(name, "z", z, "(B, C, T, H, W)")
        B, C, T, H, W = z.shape
        step = self.patch * 2 ** (self.levels - 1)
        if C != self.channels or T < 1 or H < 1 or W < 1 or H % step or W % step:
            raise ValueError(
                f"{name}: z has shape {tuple(z.shape)}; expected (B, {self.channels}, T, H, W) with T from 1, and H and W "
                f"multiples of {step}"
            )
        E = self.config["embedding"]
        checks.require_tensor(name, "logsnr", logsnr)
        checks.require_shape(name, "logsnr", logsnr, "(B,)", (B,))
        checks.require_tensor(name, "text", text)
        checks.require_shape(name, "text", text, "(B, E) or (B, T, E)", (B, E), (B, T, E))
        if focus_present is not None:
            require_focus_present(name, focus_present, "z", z, B, T)


def _halved(x: Tensor) -> Tensor:
    """(B, C, T, H, W) to (B, C, T, H/2, W/2): means of 2 x 2 pixels. By frames, since avg_pool3d has no half types on a CPU."""
    return by_frame(lambda frames: F.avg_pool2d(frames, 2), x)


class Stage(nn.Module):
    """A 1x3x3 residual block and a 3x1x1 convolution, then attention over space and over time; without it for num_heads 0."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, num_heads: int, groups: int, backend: str | None):
        super().__init__()
        self.backend = backend
        self.block = ResnetBlock3D(in_channels, out_channels, embedding, "spatial", groups, backend=backend)
        self.motion = TemporalConv(out_channels, out_channels, backend=backend)
        for last in (self.block.conv2.weight, self.motion.weight, self.motion.bias):
            nn.init.zeros_(last)
        self.attention = None
        if num_heads > 0:
            self.attention = FactorizedAttention(out_channels, num_heads, temporal_position="t5", backend=backend)
            nn.init.zeros_(self.attention.spatial_attn.proj_out.weight)
            nn.init.zeros_(self.attention.temporal_attn.proj_out.weight)

    def forward(self, x: Tensor, emb: Tensor, focus_present: Tensor | None) -> Tensor:
        """x: (B, C, T, H, W); emb: (B, T, E); focus_present: (B, T). Returns (B, Co, T, H, W), channels_last_3d."""
        x = self._across_frames(self.block(x, emb), focus_present)
        if self.attention is None:
            return x
        return self.attention(x.movedim(1, -1), focus_present=focus_present).movedim(-1, 1)

    def _across_frames(self, x: Tensor, focus_present: Tensor | None) -> Tensor:
        """x and its convolution over the frames. A single image is a frame of zeros to its neighbours, and stays as it is."""
        seen, mix = x, None
        if focus_present is not None:
            seen = x.masked_fill(focus_present[:, None, :, None, None], 0)
            mix = focus_present.to(x.dtype)
        return norm_conv(None, self.motion, seen, residual=x, mix=mix, backend=self.backend)


class Condition(nn.Module):
    """The embedding that every residual block gets: of the noise level and the text, and of both times the frame index.

    The product is what lets a text say where things are in each frame ("moving left") however high the noise is.
    """

    def __init__(self, embedding: int):
        super().__init__()
        E = embedding
        self.noise = nn.Sequential(nn.Linear(E, E), nn.SiLU(), nn.Linear(E, E))
        self.frame = nn.Sequential(nn.Linear(E, E), nn.SiLU(), nn.Linear(E, E))
        self.content = nn.Linear(E, E)

    def forward(self, logsnr: Tensor, text: Tensor, T: int, focus_present: Tensor | None = None) -> Tensor:
        """logsnr: (B,); text: (B, E) or (B, T, E); focus_present: (B, T). Returns (B, T, E); no index for a single image."""
        E = text.shape[-1]
        noise = self.noise(sinusoids(logsnr.float() * 25, E).to(text.dtype))
        emb = noise[:, None] + (text[:, None] if text.dim() == 2 else text)  # (B, 1 or T, E)
        index = torch.arange(T, device=text.device, dtype=torch.float32)
        frame = self.frame(sinusoids(index, E, max_period=200.0).to(text.dtype))  # (T, E)
        if focus_present is not None:
            frame = torch.where(focus_present[..., None], 0.0, frame)  # (B, T, E)
        return emb + self.content(emb) * frame


def sinusoids(x: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding (M,) -> (M, width), float32: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5."""
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=x.device, dtype=torch.float32) * (-math.log(max_period) / half))
    angle = x.float()[:, None] * frequency
    return torch.cat((angle.cos(), angle.sin()), dim=-1)
