"""Calls of attention and of its layers: what they take, and what of it is allowed."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import checks
from ..call import Call, Described
from ..norm.call import Norm, require_norm
from ..tensors import acc_dtype, unit_stride

_Q = "(B, T, H, W, N, D)"


@dataclass(slots=True)
class AttentionOptions:
    """What is added to the scores, and what hides them. Arguments as in `temporal_attention` and `spatial_attention`."""

    bias: Tensor | None = None
    rel_bias: Tensor | None = None
    scale: float | None = None
    causal: bool = False
    focus_present: Tensor | None = None
    rotary: Tensor | None = None
    key_mask: Tensor | None = None

    @property
    def table(self) -> Tensor | None:
        """The bias of whichever kind there is."""
        return self.bias if self.rel_bias is None else self.rel_bias

    def given(self) -> dict:
        """Those that are given, by name."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None and value is not False}

    def tensors(self) -> tuple[Tensor | None, ...]:
        return tuple(getattr(self, name) for name in _OPTION_TENSORS)

    def holding(self, tensors: tuple[Tensor | None, ...]) -> "AttentionOptions":
        """The same options of other tensors, in the order of `tensors()`."""
        options = AttentionOptions(scale=self.scale, causal=self.causal)
        for name, tensor in zip(_OPTION_TENSORS, tensors):
            setattr(options, name, tensor)
        return options

    def ready(self, T: int, dtype: torch.dtype) -> "AttentionOptions":
        """With focus_present (B, T) and angles in the acc dtype of q's, both contiguous."""
        if self.focus_present is None and self.rotary is None:
            return self
        ready = self.holding(self.tensors())
        if self.focus_present is not None:
            isolated = self.focus_present if self.focus_present.dim() == 2 else self.focus_present[:, None].expand(-1, T)
            ready.focus_present = isolated.contiguous()
        if self.rotary is not None:
            ready.rotary = self.rotary.to(acc_dtype(dtype)).contiguous()
        return ready


_OPTION_TENSORS = tuple(field.name for field in dataclasses.fields(AttentionOptions) if "Tensor" in str(field.type))


class AttentionFamily(Call):
    """What a call of attention and one of its layer have in common: `operator`, `options` and `head_dim`, D."""

    __slots__ = ()

    @property
    def is_temporal(self) -> bool:
        return self.operator.startswith("temporal")

    @property
    def scale(self) -> float:
        scale = self.options.scale
        return self.head_dim**-0.5 if scale is None else float(scale)


@dataclass(slots=True)
class AttentionCall(AttentionFamily):
    """temporal_attention or spatial_attention. With qkv (B, T, H, W, 3, N, D), q, k, v are its slices; their gradient is one."""

    operator: str
    q: Tensor
    k: Tensor
    v: Tensor
    options: AttentionOptions
    qkv: Tensor | None = None

    tables = (3, 4)  # the places of bias and rel_bias in `tensors()`

    @classmethod
    def packed(cls, operator: str, qkv: Tensor, options: AttentionOptions) -> "AttentionCall":
        return cls(operator, *qkv.unbind(4), options, qkv)

    @property
    def main(self) -> Tensor:
        return self.q

    @property
    def head_dim(self) -> int:
        return self.q.shape[-1]

    @property
    def lengths(self) -> tuple[int, int]:
        """(L, S): queries and keys of a sequence."""
        _, T, H, W, _, _ = self.q.shape
        if self.is_temporal:
            return T, self.k.shape[1]
        return H * W, H * W if self.k.dim() == 6 else self.k.shape[-3]

    @property
    def is_shared_context(self) -> bool:
        """Whether k and v (B, S, N, D) are those of every frame, so that their gradients are sums over the frames."""
        return self.k.dim() == 4

    def arguments(self):
        return {"q": self.q, "k": self.k, "v": self.v, **self.options.given()}

    def tensors(self):
        rows = (self.q, self.k, self.v) if self.qkv is None else (self.qkv, None, None)
        return *rows, *self.options.tensors()

    def holding(self, tensors):
        q, k, v, *rest = tensors
        options = self.options.holding(rest)
        if q is not None and k is None:
            return AttentionCall.packed(self.operator, q, options)
        return AttentionCall(self.operator, q, k, v, options)

    def ready(self):
        options = self.options.ready(self.q.shape[1], self.q.dtype)
        if self.qkv is not None:  # as a projection wrote it
            return self if options is self.options else AttentionCall(self.operator, self.q, self.k, self.v, options, self.qkv)
        q, k, v = unit_stride(self.q), unit_stride(self.k), unit_stride(self.v)
        if options is self.options and q is self.q and k is self.k and v is self.v:
            return self
        return AttentionCall(self.operator, q, k, v, options)

    def check(self):
        op, q, k, v, options = self.operator, self.q, self.k, self.v, self.options
        checks.require_floating_tensor(op, "q", q, _Q)
        checks.require_like(op, "k", k, "q", q)
        checks.require_like(op, "v", v, "q", q)
        _require_head_dim(op, "q", q.shape, q.shape[-1])
        if self.is_temporal:
            B, T, H, W, N, D = q.shape
            checks.require_extents(op, "q", q, T=T, N=N)
            checks.require_rank(op, "k", k, "(B, S, H, W, N, D)")
            S = k.shape[1]
            for name, value in (("k", k), ("v", v)):
                checks.require_shape(op, name, value, "(B, S, H, W, N, D)", (B, S, H, W, N, D))
            checks.require_extents(op, "k", k, S=S)
            _require_temporal(op, "q", q, (B, T, S, N, D), options)
        else:
            self._check_spatial()

    def _check_spatial(self):
        op, q, k, v = self.operator, self.q, self.k, self.v
        B, T, H, W, N, D = q.shape
        checks.require_extents(op, "q", q, H=H, W=W, N=N)
        if k.dim() not in (4, 5, 6):
            raise ValueError(f"{op}: k has shape {tuple(k.shape)}; expected {_Q}, or context (B, S, N, D) or (B, T, S, N, D)")
        context = k.dim() != 6
        S = k.shape[-3] if context else H * W
        letters, sizes = {
            6: (_Q, (B, T, H, W, N, D)),
            5: ("(B, T, S, N, D)", (B, T, S, N, D)),
            4: ("(B, S, N, D)", (B, S, N, D)),
        }[k.dim()]
        checks.require_shape(op, "k", k, letters, sizes)
        checks.require_shape(op, "v", v, letters, sizes)
        checks.require_extents(op, "k", k, S=S)
        _require_spatial(op, "q", q, (H, W, S, N), self.options, context)


@dataclass(slots=True)
class LayerCall(AttentionFamily):
    """temporal_layer or spatial_layer: gate * linear(attention(linear(norm(x) + pos_emb))) + residual."""

    operator: str
    x: Tensor
    w_qkv: Tensor
    b_qkv: Tensor | None
    w_out: Tensor
    b_out: Tensor | None
    num_heads: int
    norm: Norm | None
    pos_emb: Tensor | None
    gate: Tensor | None
    residual: Tensor | None
    options: AttentionOptions
    residual_is_x: bool = False  # then residual is None: kernels read x for both, and its gradient is of both

    unsaved = (1,)
    tables = (12, 13)

    @property
    def head_dim(self) -> int:
        return self.w_out.shape[1] // self.num_heads

    def arguments(self):
        around = {
            name: getattr(self, name) for name in LayerCall.__slots__ if name not in ("operator", "options", "residual_is_x")
        }
        return {**around, **self.options.given()}

    def tensors(self):
        norm = (None, None, None, None) if self.norm is None else self.norm.tensors
        weights = self.w_qkv, self.b_qkv, self.w_out, self.b_out
        return self.x, self.residual, *weights, *norm, self.pos_emb, self.gate, *self.options.tensors()

    def holding(self, tensors):
        x, residual, w_qkv, b_qkv, w_out, b_out, *rest = tensors
        norm = None if self.norm is None else self.norm.holding(rest[:4])
        pos_emb, gate, *options = rest[4:]
        return LayerCall(
            self.operator, x, w_qkv, b_qkv, w_out, b_out, self.num_heads, norm, pos_emb, gate, residual,
            self.options.holding(options), self.residual_is_x,
        )  # fmt: skip

    def ready(self):
        x, residual, is_x = unit_stride(self.x), self.residual, self.residual_is_x
        if residual is not None:
            is_x = residual is self.x
            residual = None if is_x else unit_stride(residual)
        return LayerCall(
            self.operator, x, self.w_qkv, self.b_qkv, self.w_out, self.b_out, self.num_heads, self.norm, self.pos_emb, self.gate,
            residual, self.options.ready(x.shape[1], x.dtype), is_x,
        )  # fmt: skip

    def core(self) -> AttentionCall:
        """The attention within, of tensors that are not there yet."""
        B, T, H, W, _ = self.x.shape
        differentiable = any(t is not None and t.requires_grad for t in (self.x, self.w_qkv, self.b_qkv))
        rows = Described((B, T, H, W, self.num_heads, self.head_dim), self.x.dtype, self.x.device, differentiable)
        return AttentionCall(self.operator.replace("layer", "attention"), rows, rows, rows, self.options)

    def check(self):
        op, x = self.operator, self.x
        D = self._check_layer()
        B, T, H, W, _ = x.shape
        if self.is_temporal:
            checks.require_extents(op, "x", x, T=T)
            _require_temporal(op, "x", x, (B, T, T, self.num_heads, D), self.options)
        else:
            checks.require_extents(op, "x", x, H=H, W=W)
            _require_spatial(op, "x", x, (H, W, H * W, self.num_heads), self.options, context=False)

    def _check_layer(self) -> int:
        """Returns D."""
        op, x, N = self.operator, self.x, self.num_heads
        checks.require_floating_tensor(op, "x", x, "(B, T, H, W, C)")
        B, T, H, W, C = x.shape
        checks.require_positive_int(op, "num_heads", N)
        checks.require_like(op, "w_qkv", self.w_qkv, "x", x)
        checks.require_rank(op, "w_qkv", self.w_qkv, "(3*N*D, C)")
        inner = self.w_qkv.shape[0]
        if inner % (3 * N) != 0 or self.w_qkv.shape[1] != C:
            shape = tuple(self.w_qkv.shape)
            raise ValueError(f"{op}: w_qkv has shape {shape}; expected (3*N*D, C) with N = {N} and C = {C}")
        D = inner // (3 * N)
        _require_head_dim(op, "w_qkv", self.w_qkv.shape, D)
        checks.require_like(op, "w_out", self.w_out, "x", x)
        checks.require_rank(op, "w_out", self.w_out, "(Co, N*D)")
        Co = self.w_out.shape[0]
        checks.require_shape(op, "w_out", self.w_out, "(Co, N*D)", (Co, N * D))
        for name, value, letters, size in (("b_qkv", self.b_qkv, "(3*N*D,)", inner), ("b_out", self.b_out, "(Co,)", Co)):
            if value is not None:
                checks.require_like(op, name, value, "x", x)
                checks.require_shape(op, name, value, letters, (size,))
        if self.norm is not None:
            require_norm(op, self.norm, x, C)
        if self.pos_emb is not None:
            checks.require_parameter(op, "pos_emb", self.pos_emb, "x", x, "(T, C)", (T, C))
        if self.gate is not None:
            checks.require_parameter(op, "gate", self.gate, "x", x, "(B, Co)", (B, Co))
        if self.residual is not None:
            checks.require_like(op, "residual", self.residual, "x", x)
            checks.require_shape(op, "residual", self.residual, "(B, T, H, W, Co)", (B, T, H, W, Co))
        return D


# ---------------------------------------------------------------------------------------------------------------- checks


def _require_head_dim(op, name, shape, D):
    if not 1 <= D <= checks.MAX_HEAD_DIM:
        raise ValueError(f"{op}: {name} has shape {tuple(shape)}, so D = {D}; expected D from 1 to {checks.MAX_HEAD_DIM}")


def _require_bias(op, like_name, like, options, bias_letters, bias_sizes, rel_letters, rel_sizes):
    bias, rel_bias, scale = options.bias, options.rel_bias, options.scale
    if bias is not None and rel_bias is not None:
        raise ValueError(f"{op}: bias and rel_bias are both given; expected at most one of them")
    if bias is not None:
        checks.require_table(op, "bias", bias, like_name, like)
        checks.require_shape(op, "bias", bias, bias_letters, bias_sizes)
    if rel_bias is not None:
        checks.require_table(op, "rel_bias", rel_bias, like_name, like)
        checks.require_shape(op, "rel_bias", rel_bias, rel_letters, rel_sizes)
    if scale is not None:
        checks.require_number(op, "scale", scale)


def _require_temporal(op, like_name, like, sizes, options):
    B, T, S, N, D = sizes
    focus_present, rotary = options.focus_present, options.rotary
    _require_bias(op, like_name, like, options, "(N, T, S)", (N, T, S), "(N, T+S-1)", (N, T + S - 1))
    checks.require_bool(op, "causal", options.causal)
    for name, value in (("focus_present", focus_present), ("rotary", rotary)):
        if value is not None and S != T:
            raise ValueError(f"{op}: {name} is given with S = {S} and T = {T}; expected S == T")
    if focus_present is not None:
        require_focus_present(op, focus_present, like_name, like, B, T)
    if rotary is not None:
        checks.require_tensor(op, "rotary", rotary)
        checks.require_device(op, "rotary", rotary, like_name, like)
        if rotary.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{op}: rotary has dtype {rotary.dtype}; expected float32 or float64 angles in radians")
        if rotary.dim() != 2 or rotary.shape[0] != T or not 1 <= rotary.shape[1] <= D // 2:
            raise ValueError(
                f"{op}: rotary has shape {tuple(rotary.shape)}; expected (T, R//2) with T = {T} and R//2 from 1 to {D // 2}"
            )
        checks.require_no_grad(op, "rotary", rotary)


def require_focus_present(op, focus_present, like_name, like, B, T):
    checks.require_mask(op, "focus_present", focus_present, like_name, like, "(B,) or (B, T)", (B,), (B, T))


def _require_spatial(op, like_name, like, sizes, options, context):
    H, W, S, N = sizes
    if context and options.rel_bias is not None:
        raise ValueError(f"{op}: rel_bias is given with context k, v; expected bias (N, H*W, S) or none")
    rel_sizes = (N, 2 * H - 1, 2 * W - 1)
    _require_bias(op, like_name, like, options, "(N, H*W, S)", (N, H * W, S), "(N, 2H-1, 2W-1)", rel_sizes)
    if options.key_mask is not None:
        if not context:
            raise ValueError(f"{op}: key_mask is given without context k, v; expected bias (N, H*W, S) with -inf, or none")
        checks.require_mask(op, "key_mask", options.key_mask, like_name, like, "(B, S)", (like.shape[0], S))
