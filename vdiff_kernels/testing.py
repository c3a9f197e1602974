"""Hostile named cases, input makers and the one derived error budget. Tests and benchmarks share them.

A case knows its shapes and arguments; `check` runs one forward and in every gradient against the definition in float64.
"""

import contextlib
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .ops.attention import api as attention_api
from .ops.attention import reference as attention_reference
from .ops.conv import api as conv_api
from .ops.conv import reference as conv_reference
from .ops.feedforward import api as feedforward_api
from .ops.feedforward import reference as feedforward_reference
from .ops.library import acc_dtype
from .ops.norm import api as norm_api
from .ops.norm import reference as norm_reference
from .ops.norm.spec import Norm

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


# --------------------------------------------------------------------------------------------------------------- budget
def budget(dtype: torch.dtype, truth: Tensor, eager: Tensor, largest: float) -> tuple[float, float]:
    """(maximum, mean) error allowed against float64: twice what eager PyTorch makes in the same precision, plus rounding.

    dtype: of the candidate. truth: float64, from the same rounded inputs. eager: the plain PyTorch result in dtype, or in
    float32 where dtype is float64: rounding errors scale with the unit roundoff, so that error is scaled down. largest: the
    largest magnitude among everything computed in the call; sums that cancel to nothing still carry its rounding.
    """
    error = (eager.double() - truth).abs()
    if dtype == torch.float64:
        error = error * (torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps)
    eps, acc_eps = torch.finfo(dtype).eps, torch.finfo(acc_dtype(dtype)).eps
    magnitude = truth.abs()
    accumulation = acc_eps * largest
    return (
        2 * error.max().item() + eps * magnitude.max().item() + accumulation,
        2 * error.mean().item() + eps * magnitude.mean().item() + accumulation,
    )


def assert_within_budget(
    candidate: dict[str, Tensor], truth: dict[str, Tensor], eager: dict[str, Tensor], label: str
) -> float:
    """Raises AssertionError, naming every result over its budget. Returns the largest share of a budget that was used.

    The three map the same names (an output, gradients) to tensors of the same shapes. Non-finite values must stand in the
    same places; the rest is compared.
    """
    finite = {name: torch.isfinite(tensor) for name, tensor in truth.items()}
    largest = max((t[finite[n]].abs().max().item() for n, t in truth.items() if finite[n].any()), default=0.0)
    worst, failures = 0.0, []
    for name, expected in truth.items():
        actual, plain, ok = candidate[name], eager[name], finite[name]
        if actual.shape != expected.shape:
            failures.append(f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
            continue
        if not torch.equal(torch.isfinite(actual), ok):
            failures.append(f"{name}: non-finite values where none belong, or none where they do")
            continue
        if not ok.any():
            continue
        expected, plain = expected[ok], torch.nan_to_num(plain[ok], nan=torch.inf)
        error = (actual[ok].double() - expected).abs()
        allowed = budget(actual.dtype, expected, plain, largest)
        for kind, got, limit in zip(("maximum", "mean"), (error.max().item(), error.mean().item()), allowed):
            share = got / limit if limit > 0 else (0.0 if got == 0 else float("inf"))
            worst = max(worst, share)
            if not share <= 1:
                failures.append(f"{name}: {kind} error {got:.3g}, allowed {limit:.3g}")
    if failures:
        raise AssertionError(f"{label}: " + "; ".join(failures))
    return worst


@contextlib.contextmanager
def poisoned_memory():
    """Every `torch.empty`, in Python and C++, comes filled with NaN: what a kernel forgets to write shows."""
    was = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was[0])
        torch.utils.deterministic.fill_uninitialized_memory = was[1]


# ---------------------------------------------------------------------------------------------------------------- cases
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


@dataclass(frozen=True)
class AttentionCase(Case):
    B: int = 1
    T: int = 4
    H: int = 2
    W: int = 3
    N: int = 2
    D: int = 8
    bias: str | None = None  # "dense", "rel", "expanded" (stride 0 over heads), "masked" (-inf, whole rows too)
    layout: str = "contiguous"  # "packed" slices of one qkv, "channels_first" views of (B, N*D, T, H, W), "sliced" frames
    magnitude: float = 1.0
    scale: float | None = None
    tables = ("bias", "rel_bias")

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
        elif self.layout == "sliced":
            longer = (self.B, 2 * self.T, *shape[2:])
            leaves = {name: rand(generator, *longer, scale=self.magnitude) for name in "qkv"}
        else:
            leaves = {name: rand(generator, *(shape if name == "q" else keys), scale=self.magnitude) for name in "qkv"}
        if self.bias == "rel":
            leaves["rel_bias"] = rand(generator, *self._rel_shape())
        elif self.bias == "expanded":
            leaves["bias"] = rand(generator, 1, L, 1)
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
        elif self.layout == "sliced":
            for name in "qkv":
                leaves[name] = leaves[name][:, ::2]
        if self.bias == "expanded":
            leaves["bias"] = leaves["bias"].expand(self.N, L, S)
        elif self.bias == "masked":
            hidden = torch.ones(self.N, L, S, dtype=torch.bool)
            hidden[:, ::2, : S // 2 + 1] = False  # every second row is fully masked, the others half
            leaves["bias"] = leaves["bias"].masked_fill(hidden, -torch.inf)
        return leaves

    def call(self, function, leaves, **arguments):
        leaves = self.view(leaves)
        q, k, v = (leaves.pop(name) for name in "qkv")
        return function(q, k, v, scale=self.scale, **leaves, **self.constants(), **arguments)

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
    layout: str = "channels_last"  # or "contiguous", which is copied once
    operator = "norm_act"
    tables = ("norm.weight", "norm.bias", "norm.scale", "norm.shift")

    def leaves(self, generator):
        B, C, T, H, W = self.B, self.C, self.T, self.H, self.W
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
    residual: bool = True
    tables = ("bias", "rel_bias", "norm.weight", "norm.bias")

    @property
    def operator(self):
        return self.attention.operator.replace("attention", "layer")

    def leaves(self, generator):
        a = self.attention
        inner = a.N * a.D
        tables = {k: v for k, v in a.leaves(generator).items() if k not in ("q", "k", "v", "qkv")}
        leaves = {
            "x": rand(generator, a.B, a.T, a.H, a.W, self.C),
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
        if self.residual:
            leaves["residual"] = rand(generator, a.B, a.T, a.H, a.W, self.Co)
        return leaves

    def call(self, function, leaves, **arguments):
        leaves = dict(leaves)
        positional = [leaves.pop(name, None) for name in ("x", "w_qkv", "b_qkv", "w_out", "b_out")]
        if self.norm:
            groups = 4 if self.norm == "group" else None
            parameters = leaves.pop("norm.weight"), leaves.pop("norm.bias")
            leaves["norm"] = Norm(self.norm, *parameters, groups, scope=self.scope)
        a = self.attention
        return function(*positional, num_heads=a.N, scale=a.scale, **a.constants(), **leaves, **arguments)


@dataclass(frozen=True)
class GegluCase(Case):
    shape: tuple[int, ...] = (2, 3, 10)
    E: int = 7
    bias: bool = True
    operator = "geglu"

    def leaves(self, generator):
        C = self.shape[-1]
        leaves = {"x": rand(generator, *self.shape), "weight": rand(generator, 2 * self.E, C, scale=C**-0.5)}
        if self.bias:
            leaves["bias"] = rand(generator, 2 * self.E)
        return leaves

    def call(self, function, leaves, **arguments):
        return function(leaves["x"], leaves["weight"], leaves.get("bias"), **arguments)


TEMPORAL_CASES = [
    TemporalCase("one-frame", T=1, D=33, N=3, H=1, W=1),
    TemporalCase("odd-hw", B=2, T=5, H=5, W=7, N=3, D=40, bias="dense"),
    TemporalCase("eight-rel", T=8, D=64, bias="rel", layout="packed"),
    TemporalCase("sixteen-causal", T=16, H=3, D=16, bias="rel", causal=True),
    TemporalCase("seventeen", T=17, N=1, D=80, bias="dense", rotary=32),
    TemporalCase("thirty-three", T=33, H=1, W=2, D=8, bias="rel", rotary=8, layout="channels_first"),
    TemporalCase("one-channel", T=6, D=1, N=5, bias="dense"),
    TemporalCase("widest-head", T=3, H=1, W=1, N=1, D=256, rotary=2),
    TemporalCase("d160", T=7, H=1, W=2, N=1, D=160, layout="sliced"),
    TemporalCase("few-keys", B=2, T=9, S=4, D=12, bias="rel", causal=True),
    TemporalCase("many-keys", T=3, S=11, D=12, bias="dense"),
    TemporalCase("masked-rows", T=6, N=2, D=8, bias="masked"),
    TemporalCase("expanded-bias", T=5, N=3, D=8, bias="expanded"),
    TemporalCase("image-frames", B=2, T=9, N=2, D=32, focus="frames", bias="rel"),
    TemporalCase("focus-clips", B=3, T=4, D=8, focus="clips", rotary=4, causal=True),
    TemporalCase("large-scores", T=5, D=16, magnitude=20.0, scale=1.0),
    TemporalCase("no-batch", B=0, T=4, bias="dense"),
]
SPATIAL_CASES = [
    SpatialCase("one-pixel", T=2, H=1, W=1, D=33, N=3),
    SpatialCase("odd-hw-rel", B=2, T=3, H=5, W=7, N=3, D=40, bias="rel"),
    SpatialCase("one-row", H=1, W=17, D=80, bias="rel", layout="packed"),
    SpatialCase("dense-bias", T=2, H=4, W=4, D=64, bias="dense", layout="channels_first"),
    SpatialCase("masked-rows", T=2, H=3, W=3, D=8, bias="masked"),
    SpatialCase("expanded-bias", T=2, H=3, W=3, N=3, D=8, bias="expanded"),
    SpatialCase("widest-head", T=1, H=3, W=1, N=1, D=256),
    SpatialCase("one-token", B=2, T=3, H=3, W=3, D=8, context="shared", S=1),
    SpatialCase("shared-context", B=2, T=3, H=3, W=5, N=3, D=12, context="shared", S=7, bias="dense"),
    SpatialCase("frame-context", B=2, T=3, H=3, W=5, D=20, context="frames", S=5),
    SpatialCase("large-scores", T=1, H=4, W=4, D=16, magnitude=20.0, scale=1.0),
    SpatialCase("many-rows", T=1, H=16, W=16, N=1, D=8, bias="rel"),
    SpatialCase("no-batch", B=0, bias="rel"),
]
NORM_CASES = [
    NormCase("group-frame", B=2),
    NormCase("group-clip", B=2, scope="clip", residual=True, eps=1e-6),
    NormCase("group-of-one-channel", groups=8, act=None),
    NormCase("one-group", groups=1, modulated=True),
    NormCase("large-mean", C=16, mean=100.0),
    NormCase("one-value", T=1, H=1, W=1, C=4, groups=4, eps=1.0),
    NormCase("layer", norm="layer", C=33, B=2),
    NormCase("layer-adaptive", norm="layer", affine=False, modulated=True, act=None, layout="contiguous"),
    NormCase("rms", norm="rms", C=12, modulated=True, residual=True, B=2),
    NormCase("no-batch", B=0),
]
CONV_CASES = [
    ConvCase("spatial-plain", norm=None, act=None),
    ConvCase("temporal-plain", norm=None, act=None, kernel="temporal", bias=False),
    ConvCase("spatial-group", B=2, temb="clip", residual=True, Co=8),
    ConvCase("temporal-clip", B=2, T=5, scope="clip", kernel="temporal", temb="frame", residual=True, eps=1e-6),
    ConvCase("spatial-mix-frame", B=2, mix="frame", residual=True, layout="contiguous"),
    ConvCase("temporal-mix-clip", B=2, T=4, kernel="temporal", mix="clip", residual=True, temb="clip"),
    ConvCase("temporal-mix-scalar", kernel="temporal", mix="scalar", residual=True, scope="clip"),
    ConvCase("one-frame-temporal", T=1, kernel="temporal"),
    ConvCase("one-row", H=1, W=9, C=12, modulated=True),
    ConvCase("one-pixel", H=1, W=1, T=2, C=4, groups=2),
    ConvCase("rms-adaptive", norm="rms", C=33, Co=17, modulated=True),
    ConvCase("layer-temporal", norm="layer", kernel="temporal", C=10, act=None),
    ConvCase("wide", C=64, Co=64, H=5, W=7, T=2, groups=32),
    ConvCase("large-mean", C=16, mean=100.0),
    ConvCase("no-batch", B=0, temb="clip", residual=True),
]
LAYER_CASES = [
    LayerCase("plain", norm=None, biases=False, residual=False),
    LayerCase("seed", attention=TemporalCase("", B=2, T=5, H=3, W=3, N=3, D=8, bias="dense"), C=24, Co=24),
    LayerCase("inner-wider", attention=TemporalCase("", T=4, N=4, D=16, rotary=8, bias="rel"), C=10, Co=6, residual=False),
    LayerCase("animatediff", attention=TemporalCase("", T=6, N=2, D=5), C=10, Co=10, pos_emb=True),
    LayerCase("images", attention=TemporalCase("", B=2, T=6, N=2, D=8, focus="frames", causal=True), norm="rms"),
    LayerCase("spatial", attention=SpatialCase("", T=2, H=3, W=5, N=2, D=6, bias="rel"), norm="group", scope="clip"),
    LayerCase("no-batch", attention=SpatialCase("", B=0, N=2, D=6)),
]
PSEUDO3D_CASES = [Pseudo3DCase("plain", B=2), Pseudo3DCase("one-pixel", H=1, W=1, T=1, bias=False)]
GEGLU_CASES = [GegluCase("plain"), GegluCase("no-bias", (5, 33), E=16, bias=False), GegluCase("no-rows", (0, 8), E=4)]
CASES = [
    *TEMPORAL_CASES, *SPATIAL_CASES, *NORM_CASES, *CONV_CASES, *LAYER_CASES, *PSEUDO3D_CASES, *GEGLU_CASES,
]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- checking
_MODULES = {
    "temporal_attention": (attention_api, attention_reference),
    "spatial_attention": (attention_api, attention_reference),
    "temporal_layer": (attention_api, attention_reference),
    "spatial_layer": (attention_api, attention_reference),
    "norm_act": (norm_api, norm_reference),
    "norm_act_conv": (conv_api, conv_reference),
    "pseudo3d_conv": (conv_api, conv_reference),
    "geglu": (feedforward_api, feedforward_reference),
}


def functions(case: Case):
    """(the public operator, its definition)."""
    api, reference = _MODULES[case.operator]
    return getattr(api, case.operator), getattr(reference, case.operator)


def make_leaves(case: Case, dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    """Fresh random leaves rounded to dtype; beside half inputs, bias tables and norm parameters stay float32."""
    leaves = case.leaves(torch.Generator().manual_seed(seed))
    wide = acc_dtype(dtype)
    return {name: t.to(wide if name in case.tables else dtype) for name, t in leaves.items()}


def evaluate(case: Case, function, leaves: dict[str, Tensor], dtype: torch.dtype, **arguments) -> dict[str, Tensor]:
    """{"out": ..., "d_<leaf>": ...}: the result, and the gradient of every leaf for a random incoming gradient that is
    rounded to dtype first, whatever precision the function runs in.
    """
    leaves = {name: t.detach().clone().requires_grad_() for name, t in leaves.items()}
    out = case.call(function, leaves, **arguments)
    grad_out = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype).to(out)
    grads = torch.autograd.grad(out, list(leaves.values()), grad_out)
    return {"out": out.detach(), **{f"d_{name}": grad for name, grad in zip(leaves, grads)}}


def truth_and_eager(case: Case, leaves: dict[str, Tensor], dtype: torch.dtype) -> tuple[dict, dict]:
    """The definition in float64 on the same rounded leaves, and in plain low precision (float32 for float64)."""
    definition = functions(case)[1]
    truth = evaluate(case, definition, {name: t.double() for name, t in leaves.items()}, dtype)
    low = torch.float32 if dtype == torch.float64 else dtype
    narrowed = {name: t.float() if dtype == torch.float64 else t for name, t in leaves.items()}
    return truth, evaluate(case, definition, narrowed, dtype, compute_dtype=low)


def check(case: Case, dtype: torch.dtype, backend: str | None = None, function=None) -> float:
    """Runs the case on `backend` (or by `function` in its place), forward and every gradient, within the budget.

    Returns the largest share of a budget that was used. Raises AssertionError.
    """
    leaves = make_leaves(case, dtype)
    truth, eager = truth_and_eager(case, leaves, dtype)
    function = function or functions(case)[0]
    with poisoned_memory():
        candidate = evaluate(case, function, leaves, dtype, backend=backend)
    return assert_within_budget(candidate, truth, eager, f"{case} {dtype} {backend}")
