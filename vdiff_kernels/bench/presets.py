"""The shapes that are measured: layers of published models, and some that stand at a kernel's edges."""

from dataclasses import dataclass, fields, replace

import torch

from ..ops.attention.call import AttentionCall, AttentionOptions
from ..ops.call import Described
from ..verify.inputs import AttentionCase, SpatialCase, TemporalCase


def direction(backward: bool) -> str:
    return "fwd+bwd" if backward else "fwd"


@dataclass(frozen=True)
class AttentionShape:
    """One call. bias: "rel" or "dense", whose gradient a backward takes too; context: S, shared by the frames."""

    model: str
    kind: str
    B: int
    T: int
    H: int
    W: int
    N: int
    D: int
    bias: str | None = None
    context: int = 0

    @property
    def label(self) -> str:
        shape = " ".join(f"{letter}{getattr(self, letter)}" for letter in "BTHWND")
        more = [f"{self.bias} bias" if self.bias else "", f"S{self.context}" if self.context else ""]
        return " ".join(word for word in [self.kind, self.model, shape, *more] if word)

    def name(self, backward: bool) -> str:
        return f"{self.label} {direction(backward)}"

    @property
    def operator(self) -> str:
        return f"{self.kind}_attention"

    @property
    def rows(self) -> tuple[int, ...]:
        """Of q and of the output: (B, T, H, W, N, D)."""
        return self.B, self.T, self.H, self.W, self.N, self.D

    @property
    def keys(self) -> tuple[int, ...]:
        """Of k and v: as q, or a context's (B, S, N, D)."""
        return (self.B, self.context, self.N, self.D) if self.context else self.rows

    @property
    def lengths(self) -> tuple[int, int]:
        """(queries, keys) of a sequence."""
        queries = self.T if self.kind == "temporal" else self.H * self.W
        return queries, self.context or queries

    @property
    def table(self) -> tuple[int, ...] | None:
        """Of the bias: (N, queries, keys), or one entry an offset."""
        if self.bias == "rel":
            return (self.N, 2 * self.T - 1) if self.kind == "temporal" else (self.N, 2 * self.H - 1, 2 * self.W - 1)
        return (self.N, *self.lengths) if self.bias else None

    def call(self, dtype: torch.dtype, device: str = "cpu") -> AttentionCall:
        """The call, of described tensors."""
        place = torch.device(device)
        q, k = (Described(shape, dtype, place) for shape in (self.rows, self.keys))
        table = None if self.table is None else Described(self.table, torch.float32, place)
        options = AttentionOptions(rel_bias=table) if self.bias == "rel" else AttentionOptions(bias=table)
        return AttentionCall(self.operator, q, k, k, options)

    def case(self, name: str, **changes) -> AttentionCase:
        """The shape as a case of `verify`, of one clip. changes: of a case's fields."""
        kind = TemporalCase if self.kind == "temporal" else SpatialCase
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name in "THWND" or field.name == "bias"}
        if self.context:
            own |= {"context": "shared", "S": self.context}
        return kind(name, **{**own, **changes})


@dataclass(frozen=True)
class LayerShape:
    """An attention layer of x (B, T, H, W, C) with N heads of C / N."""

    B: int
    T: int
    H: int
    W: int
    C: int
    N: int


@dataclass(frozen=True)
class ConvShape:
    """A convolution of x (B, Ci, T, H, W) to Co channels."""

    B: int
    T: int
    H: int
    W: int
    Ci: int
    Co: int


@dataclass(frozen=True)
class RowsShape:
    """A feed-forward layer of M rows of C channels."""

    M: int
    C: int


TEMPORAL = {
    "animatediff-64": AttentionShape("AnimateDiff", "temporal", 2, 16, 64, 64, 8, 40),
    "animatediff-32": AttentionShape("AnimateDiff", "temporal", 2, 16, 32, 32, 8, 80),
    "animatediff-16": AttentionShape("AnimateDiff", "temporal", 2, 16, 16, 16, 8, 160),
    "svd": AttentionShape("SVD", "temporal", 2, 14, 72, 128, 5, 64),
    "svd-xt": AttentionShape("SVD-XT", "temporal", 1, 25, 72, 128, 5, 64),
    "modelscope": AttentionShape("ModelScope", "temporal", 2, 16, 32, 32, 5, 64),
    "seed": AttentionShape("seed", "temporal", 2, 16, 64, 64, 8, 16, "dense"),
    "lucidrains": AttentionShape("lucidrains", "temporal", 1, 16, 64, 64, 8, 32, "rel"),
    "c512": AttentionShape("C512", "temporal", 2, 16, 64, 64, 8, 64, "rel"),
    "t8": AttentionShape("T8", "temporal", 2, 8, 64, 64, 8, 64, "rel"),
    "t32": AttentionShape("T32", "temporal", 1, 32, 64, 64, 8, 32, "rel"),
    "t64": AttentionShape("T64", "temporal", 1, 64, 32, 32, 8, 64, "rel"),
}
SPATIAL = {
    "sd-64": AttentionShape("SD level 1", "spatial", 1, 16, 64, 64, 8, 40),
    "sd-32": AttentionShape("SD level 2", "spatial", 2, 16, 32, 32, 8, 80),
    "svd": AttentionShape("SVD", "spatial", 1, 14, 72, 128, 5, 64),
    "svd-36": AttentionShape("SVD level 2", "spatial", 1, 14, 36, 64, 10, 64),
    "wide": AttentionShape("wide heads", "spatial", 1, 16, 32, 32, 8, 128),
    "text": AttentionShape("text", "spatial", 2, 16, 64, 64, 8, 40, context=77),
    "biased-16": AttentionShape("biased", "spatial", 2, 16, 16, 16, 8, 64, "rel"),
    "biased-32": AttentionShape("biased", "spatial", 1, 16, 32, 32, 8, 64, "rel"),
    "biased-64": AttentionShape("biased", "spatial", 1, 4, 64, 64, 8, 64, "rel"),
}
LAYERS = {"seed": LayerShape(2, 16, 64, 64, 128, 8), "svd": LayerShape(2, 16, 64, 64, 320, 5)}
CONVS = {
    "sd-64": ConvShape(2, 16, 64, 64, 320, 320),
    "seed": ConvShape(2, 16, 64, 64, 128, 128),
    "sd-32": ConvShape(2, 16, 32, 32, 640, 640),
}
FEEDFORWARD = {"sd-64": RowsShape(2 * 16 * 64 * 64, 320)}

# What a CPU is measured with: one clip of 16 frames at two levels of ModelScope, and of small models.
CPU_LAYERS = [
    LayerShape(1, 16, 32, 32, 320, 5), LayerShape(1, 16, 64, 64, 64, 4), LayerShape(1, 16, 32, 32, 128, 4),
    LayerShape(1, 16, 16, 16, 640, 10),
]  # fmt: skip
CPU_CONVS = [ConvShape(1, 16, side, side, C, C) for side, C in ((32, 64), (32, 128), (32, 320), (16, 640))]
# The reference UNet's own in training: 8 clips of 16 frames and an image.
UNET_ATTENTION = [
    AttentionShape("reference UNet", "temporal", 8, 17, side, side, N, 32, "rel") for side, N in ((16, 1), (8, 2), (4, 4))
]  # fmt: skip
UNET_CONVS = [
    ConvShape(8, 17, side, side, Ci, Co)
    for side, Ci, Co in (
        (16, 32, 32), (16, 64, 32), (16, 96, 32), (8, 64, 64), (8, 128, 64), (8, 192, 64), (4, 128, 128), (4, 192, 128),
        (4, 256, 128),
    )
]  # fmt: skip


def small(shape):
    """A shape of the same kind in next to no time, for a rehearsal."""
    if isinstance(shape, AttentionShape):
        return replace(shape, B=1, T=min(shape.T, 4), H=4, W=4, N=2)
    if isinstance(shape, RowsShape):
        return RowsShape(256, 32)
    channels = {"C": 32} if isinstance(shape, LayerShape) else {"Ci": 32, "Co": 32}
    return replace(shape, B=1, T=4, H=8, W=8, **channels)


@dataclass(frozen=True)
class Preset:
    """What one step of a model runs, a layer of each kind at each of its levels; one clip, without guidance.

    attention and modules are by level: those of `TEMPORAL` and `SPATIAL` have guidance, or are of other sizes.
    """

    about: str
    attention: tuple[AttentionShape, ...] = ()
    modules: tuple[LayerShape, ...] = ()
    convs: tuple[ConvShape, ...] = ()
    rows: tuple[RowsShape, ...] = ()
    unet: tuple[int, ...] | None = None  # (T, H, W) of a step of the reference UNet
    block: tuple[int, ...] | None = None  # (channels, T, H, W) of a motion module of AnimateDiff
    patched: tuple | None = None  # (widths, T, H, W) of a U-Net of AnimateDiff


def _levels(model: str, T: int, levels: list[tuple[int, int, int, int]], bias: str | None = None, text: int = 0) -> dict:
    """levels: (H, W, N, D) of each, whose C is N * D."""
    attention = [AttentionShape(model, "temporal", 1, T, H, W, N, D, bias) for H, W, N, D in levels]
    attention += [AttentionShape(model, "spatial", 1, T, H, W, N, D) for H, W, N, D in levels]
    attention += [AttentionShape(model, "spatial", 1, T, H, W, N, D, context=text) for H, W, N, D in levels if text]
    return {
        "attention": tuple(attention),
        "convs": tuple(ConvShape(1, T, H, W, N * D, N * D) for H, W, N, D in levels),
        "rows": tuple(RowsShape(T * H * W, N * D) for H, W, N, D in levels),
    }  # fmt: skip


PRESETS = {
    "tiny": Preset(
        "seconds, on any machine",
        **_levels("tiny", 8, [(16, 16, 2, 32)], bias="rel"), modules=(LayerShape(1, 8, 16, 16, 64, 2),), unet=(8, 16, 16),
    ),
    "vdm-64": Preset(
        "Ho et al. 2022 (arXiv 2204.03458): pixels, 16 frames of 64 x 64, relative position bias",
        **_levels("VDM", 16, [(32, 32, 8, 32), (16, 16, 8, 64)], bias="rel"),
        modules=(LayerShape(1, 16, 32, 32, 256, 8),), unet=(16, 64, 64),
    ),
    "modelscope-256": Preset(
        "ModelScope text-to-video: 16 frames of 256 x 256, latents of 32 x 32",
        **_levels("ModelScope", 16, [(32, 32, 5, 64), (16, 16, 10, 64), (8, 8, 20, 64)], text=77),
        modules=(LayerShape(1, 16, 32, 32, 320, 5),),
    ),
    "animatediff-512": Preset(
        "AnimateDiff on Stable Diffusion 1.5: 16 frames of 512 x 512, latents of 64 x 64",
        **_levels("AnimateDiff", 16, [(64, 64, 8, 40), (32, 32, 8, 80), (16, 16, 8, 160)], text=77),
        modules=(LayerShape(1, 16, 64, 64, 320, 8),), block=(320, 16, 64, 64),
        patched=((320, 640), 16, 32, 32),
    ),
    "svd-576x1024": Preset(
        "Stable Video Diffusion: 14 frames of 576 x 1024, latents of 72 x 128",
        **_levels("SVD", 14, [(72, 128, 5, 64), (36, 64, 10, 64), (18, 32, 20, 64)]),
        modules=(LayerShape(1, 14, 72, 128, 320, 5),),
    ),
    "latte-256": Preset(
        "Latte-XL/2: 16 frames of 256 x 256, 16 x 16 tokens a frame",
        attention=(
            AttentionShape("Latte", "temporal", 1, 16, 16, 16, 16, 72), AttentionShape("Latte", "spatial", 1, 16, 16, 16, 16, 72),
            AttentionShape("Latte", "spatial", 1, 16, 16, 16, 16, 72, context=120),
        ),
        modules=(LayerShape(1, 16, 16, 16, 1152, 16),), rows=(RowsShape(16 * 256, 1152),),
    ),
    "long-128-frames": Preset(
        "128 frames of 32 x 32 latents",
        attention=tuple(AttentionShape("long", "temporal", 1, T, 32, 32, 5, 64, "rel") for T in (32, 64, 128)),
        modules=(LayerShape(1, 128, 32, 32, 320, 5),), convs=(ConvShape(1, 128, 32, 32, 320, 320),),
    ),
}  # fmt: skip
