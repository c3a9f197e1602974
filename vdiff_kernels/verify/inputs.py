"""What a case is: one dataclass an operator family. A case knows its shapes and arguments and how to call its operator."""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.attention import api as attention
from ..ops.conv import api as conv
from ..ops.feedforward import api as feedforward
from ..ops.linear import api as linear
from ..ops.norm import api as norm
from ..ops.norm.call import Norm

# The public function of each operator.
PUBLIC = {
    "temporal_attention": attention.temporal_attention,
    "spatial_attention": attention.spatial_attention,
    "temporal_layer": attention.temporal_layer,
    "spatial_layer": attention.spatial_layer,
    "channel_stats": norm.channel_stats,
    "norm_act": norm.norm_act,
    "norm_act_conv": conv.norm_act_conv,
    "pseudo3d_conv": conv.pseudo3d_conv,
    "norm_linear": linear.norm_linear,
    "geglu": feedforward.geglu,
}


def rand(generator: torch.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=generator) * scale


@dataclass(frozen=True)
class Case:
    """A named call. `leaves` makes its differentiable tensors, `call` calls a function of the operator's signature on them."""

    name: str
    operator = ""
    tables = ()  # leaves that stay float32 beside half inputs

    def leaves(self, generator: torch.Generator) -> dict[str, Tensor]:
        raise AssertionError("a case defines its leaves")

    def call(self, function, leaves: dict[str, Tensor], **arguments):
        raise AssertionError("a case defines its call")

    def view(self, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
        """The leaves as the operator gets them: hostile strides are made here, so that gradients go through them."""
        return leaves

    def __str__(self) -> str:
        return f"{self.operator}-{self.name}"


def _laid_out(layout: str, x: Tensor) -> Tensor:
    """x (B, T, H, W, ..., channels) as memory has it in one of AttentionCase's layouts."""
    if layout == "contiguous":
        return x
    shape = list(x.shape)
    if layout == "sliced":
        shape[1] *= 2
    elif layout == "padded_lines":
        shape[3:] = [math.prod(shape[3:]) + 1]
    elif layout == "padded_heads":
        shape[-1] += 4
    stored = torch.full(shape, torch.nan)
    _viewed(layout, stored, *x.shape[3:]).copy_(x)
    return stored


def _viewed(layout: str, x: Tensor, *line: int) -> Tensor:
    """What is laid out so as the operator gets it. line: (W, ..., channels)."""
    if layout == "sliced":
        return x[:, ::2]
    if layout == "padded_lines":
        return x[..., :-1].unflatten(-1, line)
    return x[..., : line[-1]] if layout == "padded_heads" else x


@dataclass(frozen=True)
class AttentionCase(Case):
    B: int = 1
    T: int = 4
    H: int = 2
    W: int = 3
    N: int = 2
    D: int = 8
    # "dense", "rel", "rel_sliced" (every second entry), "rel_transposed" (lines of an image beside each other), "expanded"
    # (stride 0 over heads and queries), "masked" (-inf, whole rows too), "banded" (-inf for keys more than 3 before the query:
    # whole tiles of a row, and no key is one of many)
    bias: str | None = None
    # "packed" slices of one qkv, "channels_first" views of (B, N*D, T, H, W), "sliced" frames, "padded_lines": an element after
    # each line of pixels, "padded_heads": four after each head, so that this stride alone is no multiple of 16 bytes; or
    # three of the last ones and "contiguous", of q, k and v. What lies between is NaN: 0 times one shows that it was read
    layout: str | tuple[str, str, str] = "contiguous"
    magnitude: float = 1.0
    scale: float | None = None
    tables = ("bias", "rel_bias")

    def _layouts(self):
        """Of q, k and v."""
        return (self.layout,) * 3 if isinstance(self.layout, str) else self.layout

    def _keys(self):
        """(shape of k and v, number of queries, number of keys)."""
        raise AssertionError

    def _rel_shape(self):
        raise AssertionError

    def leaves(self, generator):
        shape = (self.B, self.T, self.H, self.W, self.N, self.D)
        keys, L, S = self._keys()
        if self.layout == "packed":
            leaves = {"qkv": rand(generator, *shape[:4], 3, *shape[4:], scale=self.magnitude)}
        elif self.layout == "channels_first":
            first = (self.B, self.N * self.D, self.T, self.H, self.W)
            leaves = {name: rand(generator, *first, scale=self.magnitude) for name in "qkv"}
        else:
            leaves = {}
            for name, layout in zip("qkv", self._layouts()):
                x = rand(generator, *(shape if name == "q" else keys), scale=self.magnitude)
                leaves[name] = _laid_out(layout, x)
        if self.bias == "rel":
            leaves["rel_bias"] = rand(generator, *self._rel_shape())
        elif self.bias == "rel_sliced":
            leaves["rel_bias"] = rand(generator, *self._rel_shape()[:-1], 2 * self._rel_shape()[-1])
        elif self.bias == "rel_transposed":
            leaves["rel_bias"] = rand(generator, *self._rel_shape()).mT.contiguous()
        elif self.bias == "expanded":
            leaves["bias"] = rand(generator, 1, 1, S)  # a bias that is the same for all keys does nothing
        elif self.bias:
            leaves["bias"] = rand(generator, self.N, L, S)
        return leaves

    def view(self, leaves):
        leaves = dict(leaves)
        _, L, S = self._keys()
        if self.layout == "packed":
            leaves["q"], leaves["k"], leaves["v"] = leaves.pop("qkv").unbind(4)
        elif self.layout == "channels_first":
            for name in "qkv":
                leaves[name] = leaves[name].movedim(1, -1).unflatten(-1, (self.N, self.D))
        else:
            for name, layout in zip("qkv", self._layouts()):
                leaves[name] = _viewed(layout, leaves[name], self.W, self.N, self.D)
        if self.bias == "rel_sliced":
            leaves["rel_bias"] = leaves["rel_bias"][..., ::2]
        elif self.bias == "rel_transposed":
            leaves["rel_bias"] = leaves["rel_bias"].mT
        elif self.bias == "expanded":
            leaves["bias"] = leaves["bias"].expand(self.N, L, S)
        elif self.bias == "masked":
            hidden = torch.ones(self.N, L, S, dtype=torch.bool, device=leaves["bias"].device)
            hidden[:, ::2, : S // 2 + 1] = False  # every second row is fully masked, the others half
            leaves["bias"] = leaves["bias"].masked_fill(hidden, -torch.inf)
        elif self.bias == "banded":
            hidden = torch.ones(L, S, dtype=torch.bool, device=leaves["bias"].device).tril(-4)
            leaves["bias"] = leaves["bias"].masked_fill(hidden, -torch.inf)
        return leaves

    def call(self, function, leaves, **arguments):
        leaves = self.view(leaves)
        q, k, v = (leaves.pop(name) for name in "qkv")
        constants = {name: t.to(q.device) if isinstance(t, Tensor) else t for name, t in self.constants().items()}
        return function(q, k, v, scale=self.scale, **leaves, **constants, **arguments)

    def constants(self) -> dict:
        return {}


@dataclass(frozen=True)
class TemporalCase(AttentionCase):
    S: int | None = None
    causal: bool = False
    focus: str | None = None  # "clips" (B,), "frames" (B, T): the last third of the frames are images
    rotary: int | None = None  # R
    operator = "temporal_attention"

    def _keys(self):
        S = self.S or self.T
        return (self.B, S, self.H, self.W, self.N, self.D), self.T, S

    def _rel_shape(self):
        return self.N, self.T + (self.S or self.T) - 1

    def constants(self):
        constants = {"causal": self.causal}
        if self.focus == "clips":
            constants["focus_present"] = torch.arange(self.B) % 2 == 0
        elif self.focus == "frames":
            constants["focus_present"] = (torch.arange(self.T) >= self.T - self.T // 3).expand(self.B, self.T)
        if self.rotary:
            frequency = 10000.0 ** (-torch.arange(0, self.rotary, 2) / self.rotary)
            constants["rotary"] = torch.arange(self.T)[:, None] * frequency
        return constants


@dataclass(frozen=True)
class SpatialCase(AttentionCase):
    context: str | None = None  # "shared" (B, S, N, D), "frames" (B, T, S, N, D)
    S: int = 1
    # "padding": the first sample has all tokens, the last one none, others the first of them; "holes": two of three, in every
    # sample others; "late": the last third
    key_mask: str | None = None
    operator = "spatial_attention"

    def _keys(self):
        L = self.H * self.W
        if self.context == "shared":
            return (self.B, self.S, self.N, self.D), L, self.S
        if self.context == "frames":
            return (self.B, self.T, self.S, self.N, self.D), L, self.S
        return (self.B, self.T, self.H, self.W, self.N, self.D), L, L

    def _rel_shape(self):
        return self.N, 2 * self.H - 1, 2 * self.W - 1

    def constants(self):
        if self.key_mask is None:
            return {}
        token, sample = torch.arange(self.S), torch.arange(self.B)[:, None]
        if self.key_mask == "padding":
            return {"key_mask": token < self.S * (self.B - 1 - sample) // max(1, self.B - 1)}
        if self.key_mask == "holes":
            return {"key_mask": (token + sample) % 3 != 0}
        return {"key_mask": (token >= self.S - self.S // 3).expand(self.B, self.S)}


@dataclass(frozen=True)
class NormCase(Case):
    B: int = 1
    C: int = 8
    T: int = 3
    H: int = 3
    W: int = 5
    norm: str | None = "group"
    groups: int | None = 4
    scope: str = "frame"
    eps: float = 1e-5
    affine: bool = True
    modulated: bool = False  # scale and shift (B, C)
    act: str | None = "silu"
    residual: bool = False
    mean: float = 0.0  # of x: group statistics must survive a large one
    layout: str = "channels_last"  # or "contiguous", which is copied once, or "sliced" frames of longer clips
    operator = "norm_act"
    tables = ("norm.weight", "norm.bias", "norm.scale", "norm.shift")

    def leaves(self, generator):
        B, C, T, H, W = self.B, self.C, self.T * (2 if self.layout == "sliced" else 1), self.H, self.W
        leaves = {"x": rand(generator, B, T, H, W, C) + self.mean}
        if self.norm and self.affine:
            leaves["norm.weight"] = 1 + rand(generator, C, scale=0.5)
            if self.norm != "rms":
                leaves["norm.bias"] = rand(generator, C, scale=0.5)
        if self.norm and self.modulated:
            leaves["norm.scale"], leaves["norm.shift"] = (rand(generator, B, C, scale=0.5) for _ in range(2))
        if self.residual:
            leaves["residual"] = rand(generator, B, T, H, W, self.out_channels())
        return leaves

    def out_channels(self) -> int:
        return self.C

    def view(self, leaves):
        leaves = dict(leaves)
        for name in ("x", "residual"):
            if name in leaves:
                leaves[name] = leaves[name].movedim(-1, 1)
                if self.layout == "sliced":
                    leaves[name] = leaves[name][:, :, ::2]
                if self.layout == "contiguous":
                    leaves[name] = leaves[name].contiguous()
        parameters = {name.removeprefix("norm."): leaves.pop(name) for name in list(leaves) if name.startswith("norm.")}
        if self.norm:
            groups = self.groups if self.norm == "group" else None
            leaves["norm"] = Norm(self.norm, groups=groups, eps=self.eps, scope=self.scope, **parameters)
        return leaves

    def call(self, function, leaves, **arguments):
        leaves = self.view(leaves)
        return function(leaves.pop("x"), act=self.act, **leaves, **arguments)


@dataclass(frozen=True)
class StatsCase(NormCase):
    """Of a constant: there is no gradient to hold."""

    operator = "channel_stats"

    def leaves(self, generator):
        return {"x": super().leaves(generator)["x"]}

    def call(self, function, leaves, **arguments):
        return function(self.view(leaves)["x"], **arguments)


@dataclass(frozen=True)
class ConvCase(NormCase):
    Co: int = 6
    kernel: str = "spatial"  # or "temporal"
    bias: bool = True
    temb: str | None = None  # "clip" (B, Co), "frame" (B, T, Co)
    mix: str | None = None  # "scalar" (), "clip" (B,), "frame" (B, T)
    operator = "norm_act_conv"
    tables = (*NormCase.tables, "mix")

    def out_channels(self):
        return self.Co

    def leaves(self, generator):
        leaves = super().leaves(generator)
        taps = (1, 3, 3) if self.kernel == "spatial" else (3, 1, 1)
        fan_in = self.C * taps[0] * taps[1] * taps[2]
        leaves["weight"] = rand(generator, self.Co, self.C, *taps, scale=fan_in**-0.5)
        if self.bias:
            leaves["bias"] = rand(generator, self.Co)
        if self.temb:
            leaves["temb"] = rand(generator, self.B, *((self.T,) if self.temb == "frame" else ()), self.Co)
        if self.mix:
            shape = {"scalar": (), "clip": (self.B,), "frame": (self.B, self.T)}[self.mix]
            leaves["mix"] = torch.rand(shape, generator=generator)
        return leaves

    def call(self, function, leaves, **arguments):
        leaves = self.view(leaves)
        x, weight, bias = leaves.pop("x"), leaves.pop("weight"), leaves.pop("bias", None)
        return function(x, weight, bias, act=self.act, **leaves, **arguments)


@dataclass(frozen=True)
class Pseudo3DCase(Case):
    B: int = 1
    C: int = 5
    Cm: int = 7
    Co: int = 4
    T: int = 3
    H: int = 4
    W: int = 5
    bias: bool = True
    operator = "pseudo3d_conv"

    def leaves(self, generator):
        leaves = {
            "x": rand(generator, self.B, self.C, self.T, self.H, self.W),
            "w_spatial": rand(generator, self.Cm, self.C, 1, 3, 3, scale=0.2),
            "w_temporal": rand(generator, self.Co, self.Cm, 3, 1, 1, scale=0.2),
        }
        if self.bias:
            leaves["b_spatial"], leaves["b_temporal"] = rand(generator, self.Cm), rand(generator, self.Co)
        return leaves

    def call(self, function, leaves, **arguments):
        names = ("x", "w_spatial", "b_spatial", "w_temporal", "b_temporal")
        return function(*(leaves.get(name) for name in names), **arguments)


@dataclass(frozen=True)
class LayerCase(Case):
    """A temporal or spatial layer. attention: the case whose biases, masks and shapes it takes."""

    attention: AttentionCase = field(default_factory=lambda: TemporalCase("inner"))
    C: int = 12
    Co: int = 12
    norm: str | None = "layer"
    scope: str = "frame"
    biases: bool = True
    pos_emb: bool = False
    gate: bool = False
    residual: str | None = "other"  # or "x": x itself
    eps: float = 1e-5
    layout: str = "contiguous"  # of x and the residual: or another of AttentionCase's, but for those of heads
    tables = ("bias", "rel_bias", "norm.weight", "norm.bias")

    @property
    def operator(self):
        return self.attention.operator.replace("attention", "layer")

    def leaves(self, generator):
        a = self.attention
        inner = a.N * a.D
        tables = {k: v for k, v in a.leaves(generator).items() if k not in ("q", "k", "v", "qkv")}
        leaves = {
            "x": _laid_out(self.layout, rand(generator, a.B, a.T, a.H, a.W, self.C)),
            "w_qkv": rand(generator, 3 * inner, self.C, scale=self.C**-0.5),
            "w_out": rand(generator, self.Co, inner, scale=inner**-0.5),
            **tables,
        }
        if self.biases:
            leaves["b_qkv"], leaves["b_out"] = rand(generator, 3 * inner), rand(generator, self.Co)
        if self.norm:
            leaves["norm.weight"], leaves["norm.bias"] = 1 + rand(generator, self.C, scale=0.5), rand(generator, self.C)
        if self.pos_emb:
            leaves["pos_emb"] = rand(generator, a.T, self.C)
        if self.gate:
            leaves["gate"] = rand(generator, a.B, self.Co)
        if self.residual == "other":
            leaves["residual"] = _laid_out(self.layout, rand(generator, a.B, a.T, a.H, a.W, self.Co))
        return leaves

    def call(self, function, leaves, **arguments):
        leaves, a = dict(leaves), self.attention
        for name, channels in (("x", self.C), ("residual", self.Co)):
            if name in leaves:
                leaves[name] = _viewed(self.layout, leaves[name], a.W, channels)
        positional = [leaves.pop(name, None) for name in ("x", "w_qkv", "b_qkv", "w_out", "b_out")]
        if self.norm:
            groups = 4 if self.norm == "group" else None
            parameters = leaves.pop("norm.weight"), leaves.pop("norm.bias")
            leaves["norm"] = Norm(self.norm, *parameters, groups, eps=self.eps, scope=self.scope)
        if self.residual == "x":
            leaves["residual"] = positional[0]
        return function(*positional, num_heads=a.N, scale=a.scale, **a.constants(), **leaves, **arguments)


@dataclass(frozen=True)
class LinearCase(NormCase):
    Co: int = 6
    act: str | None = None
    bias: bool = True
    pos_emb: bool = False
    gate: bool = False
    layout: str = "channels_last"  # "sliced", or "padded_lines": an element after each line of pixels
    operator = "norm_linear"

    def out_channels(self):
        return self.Co

    def leaves(self, generator):
        leaves = super().leaves(generator)
        if self.layout == "padded_lines":
            leaves["x"] = rand(generator, *leaves["x"].shape[:3], self.W * self.C + 1)
        leaves["weight"] = rand(generator, self.Co, self.C, scale=self.C**-0.5)
        if self.bias:
            leaves["bias"] = rand(generator, self.Co)
        if self.pos_emb:
            leaves["pos_emb"] = rand(generator, self.T, self.C)
        if self.gate:
            leaves["gate"] = rand(generator, self.B, self.Co)
        return leaves

    def call(self, function, leaves, **arguments):
        leaves = super().view(leaves)
        x, residual = leaves.pop("x").movedim(1, -1), leaves.pop("residual", None)
        if self.layout == "padded_lines":
            x = x[..., :-1].unflatten(-1, (self.W, self.C))
        residual = None if residual is None else residual.movedim(1, -1)
        return function(x, leaves.pop("weight"), leaves.pop("bias", None), residual=residual, **leaves, **arguments)


@dataclass(frozen=True)
class GegluCase(Case):
    shape: tuple[int, ...] = (2, 3, 10)
    E: int = 7
    bias: bool = True
    # Elements after each row of x, and of weight, which are NaN: 0 times one shows that it was read. Beside them every second
    # element of a longer bias is the bias.
    padding: tuple[int, int] | None = None
    operator = "geglu"

    def leaves(self, generator):
        *outer, C = self.shape
        leaves = {"x": rand(generator, *outer, C), "weight": rand(generator, 2 * self.E, C, scale=C**-0.5)}
        if self.padding:
            for name, after in zip(leaves, self.padding):
                leaves[name] = F.pad(leaves[name], (0, after), value=torch.nan)
        if self.bias:
            leaves["bias"] = rand(generator, (4 if self.padding else 2) * self.E)
        return leaves

    def call(self, function, leaves, **arguments):
        C = self.shape[-1]
        bias = leaves.get("bias")
        if self.padding and self.bias:
            bias = bias[::2]
        return function(leaves["x"][..., :C], leaves["weight"][..., :C], bias, **arguments)
