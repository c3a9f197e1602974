"""The schema and the fake kernel of every native operator, so that they exist without the compiled library.

C++ implements these names (csrc/registration.cpp) and defines none; `load()` brings the implementations in. Nothing here
is differentiable: the rules live in `autograd.py` of each folder, and call forward and backward operators alike.

Conventions of every schema below:
- Attention tensors are (B, T, H, W, N, D), image tensors (B, T, H, W, C): channels innermost, unit stride there, any outer
  strides. Results are contiguous.
- "acc" dtype is float64 for float64 inputs, else float32. Statistics, log-sum-exps and every gradient that is a sum over
  pixels are acc.
- An output that was not asked for is a tensor of shape (0,).
"""

import ctypes
import itertools
import os
from pathlib import Path

import torch

NAMESPACE = "vdiff_kernels"
LIBRARY_FILE = Path(__file__).resolve().parent.parent / "_C.so"

_library = torch.library.Library(NAMESPACE, "DEF")

# How a Norm (ops/norm/spec.py) travels through a schema. kind "none" normalises nothing; "group" needs stats.
_NORM = (
    "str norm_kind, Tensor? norm_weight, Tensor? norm_bias, int norm_groups, float norm_eps, str norm_scope, "
    "Tensor? norm_scale, Tensor? norm_shift, str act, Tensor? stats"
)
_TEMPORAL = "Tensor? bias, Tensor? rel_bias, float scale, bool causal, Tensor? focus_present, Tensor? rotary"
_SPATIAL = "Tensor? bias, Tensor? rel_bias, float scale"


def acc_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums are kept in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def define(name: str, arguments: str, returns: str):
    """Decorator: defines `vdiff_kernels::name` with this schema and the decorated function as its fake kernel."""

    def register(fake):
        _library.define(f"{name}({arguments}) -> {returns}", tags=torch.Tag.pt2_compliant_tag)
        torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
        torch.library.register_vmap(f"{NAMESPACE}::{name}", _refuse_vmap(name), lib=_library)
        return fake

    return register


def _refuse_vmap(name: str):
    def vmap(info, in_dims, *args):
        raise RuntimeError(f"{name}: vmap is not supported; give the batch as dimension B")

    return vmap


def _absent(like: torch.Tensor) -> torch.Tensor:
    return like.new_empty((0,), dtype=acc_dtype(like.dtype))


def _sums(like: torch.Tensor, shape) -> torch.Tensor:
    """A gradient or statistic summed over pixels: acc dtype; absent where shape is None."""
    return _absent(like) if shape is None else like.new_empty(shape, dtype=acc_dtype(like.dtype))


def _contiguous(like: torch.Tensor) -> torch.Tensor:
    return like.new_empty(like.shape)


def _shape(tensor):
    return None if tensor is None else tensor.shape


# ---------------------------------------------------------------------------------------------------------- attention
# out (B, T, H, W, N, D) in q's dtype; lse (B, T, H, W, N), acc: natural log of each row's sum of exponentials, -inf where
# the row is fully masked, absent unless return_lse.
# Backward takes forward's out and lse where ops/attention/native.py says that its kernels need them.
# Gradients: packed False: (dq, dk, dv, dbias); packed True: q, k and v are the three slices of one (B, T, H, W, 3, N, D), and
# so is the first result, the next two absent. dbias, acc, has the shape of the bias or rel_bias given; absent unless
# need_bias_grad.


def _attention_forward(q, return_lse):
    return _contiguous(q), _sums(q, q.shape[:-1] if return_lse else None)


def _attention_backward(q, k, v, bias, rel_bias, packed, need_bias_grad):
    dbias = _sums(q, _shape(bias if rel_bias is None else rel_bias) if need_bias_grad else None)
    if packed:
        return q.new_empty((*q.shape[:4], 3, *q.shape[4:])), _absent(q), _absent(q), dbias
    return _contiguous(q), _contiguous(k), _contiguous(v), dbias


@define(
    "temporal_attention_native",
    f"Tensor q, Tensor k, Tensor v, {_TEMPORAL}, bool return_lse",
    "(Tensor out, Tensor lse)",
)
def _(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary, return_lse):
    return _attention_forward(q, return_lse)


@define(
    "temporal_attention_native_backward",
    f"Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor? out, Tensor? lse, {_TEMPORAL}, bool packed, bool need_bias_grad",
    "(Tensor dq, Tensor dk, Tensor dv, Tensor dbias)",
)
def _(grad_out, q, k, v, out, lse, bias, rel_bias, scale, causal, focus_present, rotary, packed, need_bias_grad):
    return _attention_backward(q, k, v, bias, rel_bias, packed, need_bias_grad)


# k, v (B, T, H, W, N, D), or context (B, S, N, D) shared by the frames, or (B, T, S, N, D) per frame.
@define(
    "spatial_attention_native",
    f"Tensor q, Tensor k, Tensor v, {_SPATIAL}, bool return_lse",
    "(Tensor out, Tensor lse)",
)
def _(q, k, v, bias, rel_bias, scale, return_lse):
    return _attention_forward(q, return_lse)


@define(
    "spatial_attention_native_backward",
    f"Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor? out, Tensor? lse, {_SPATIAL}, bool packed, bool need_bias_grad",
    "(Tensor dq, Tensor dk, Tensor dv, Tensor dbias)",
)
def _(grad_out, q, k, v, out, lse, bias, rel_bias, scale, packed, need_bias_grad):
    return _attention_backward(q, k, v, bias, rel_bias, packed, need_bias_grad)


# ----------------------------------------------------------------------------------------------------- attention layers
# x (B, T, H, W, C); w_qkv (3*N*D, C), w_out (Co, N*D); pos_emb (T, C); residual and out (B, T, H, W, Co). norm_kind "layer", "rms"
# or "none". Backward computes all again from x; residual_is_x: x was the residual too, and dx is of both. dx is in x's dtype, the
# other gradients acc; absent where the argument is, dbias unless need_bias_grad.
_LAYER = (
    "Tensor x, Tensor w_qkv, Tensor? b_qkv, Tensor w_out, Tensor? b_out, int num_heads, str norm_kind, Tensor? norm_weight, "
    "Tensor? norm_bias, float norm_eps, Tensor? pos_emb"
)
_LAYER_GRADIENTS = (
    "(Tensor dx, Tensor dw_qkv, Tensor db_qkv, Tensor dw_out, Tensor db_out, Tensor dnorm_weight, Tensor dnorm_bias, "
    "Tensor dpos_emb, Tensor dbias)"
)


def _layer_forward(x, w_qkv, b_qkv, w_out, *_):
    return x.new_empty((*x.shape[:4], w_out.shape[0]))


def _layer_backward(
    x, w_qkv, b_qkv, w_out, b_out, num_heads, norm_kind, norm_weight, norm_bias, norm_eps, pos_emb, bias, rel_bias, need_bias_grad
):  # fmt: skip
    table = (bias if rel_bias is None else rel_bias) if need_bias_grad else None
    tensors = (w_qkv, b_qkv, w_out, b_out, norm_weight, norm_bias, pos_emb, table)
    return _contiguous(x), *(_sums(x, _shape(tensor)) for tensor in tensors)


@define("temporal_layer_native", f"{_LAYER}, Tensor? residual, {_TEMPORAL}", "Tensor")
def _(x, *rest):
    return _layer_forward(x, *rest)


@define("temporal_layer_native_backward", f"Tensor grad_out, {_LAYER}, {_TEMPORAL}, bool residual_is_x, bool need_bias_grad", _LAYER_GRADIENTS)
def _(grad_out, *rest):
    *layer, bias, rel_bias, _scale, _causal, _focus_present, _rotary, _residual_is_x, need_bias_grad = rest
    return _layer_backward(*layer, bias, rel_bias, need_bias_grad)


@define("spatial_layer_native", f"{_LAYER}, Tensor? residual, {_SPATIAL}", "Tensor")
def _(x, *rest):
    return _layer_forward(x, *rest)


@define("spatial_layer_native_backward", f"Tensor grad_out, {_LAYER}, {_SPATIAL}, bool residual_is_x, bool need_bias_grad", _LAYER_GRADIENTS)
def _(grad_out, *rest):
    *layer, bias, rel_bias, _scale, _residual_is_x, need_bias_grad = rest
    return _layer_backward(*layer, bias, rel_bias, need_bias_grad)


# --------------------------------------------------------------------------------------------------------------- norm
# stats (B, T, C, 2), acc: mean and biased variance over (H, W) of each frame's channel. Every group norm, whatever its groups
# and scope, follows from them.


@define("channel_stats_native", "Tensor x", "Tensor")
def _(x):
    return _sums(x, (x.shape[0], x.shape[1], x.shape[4], 2))


@define("norm_act_native", f"Tensor x, {_NORM}, Tensor? residual", "Tensor")
def _(x, kind, weight, bias, groups, eps, scope, scale, shift, act, stats, residual):
    return _contiguous(x)


# dnorm_weight, dnorm_bias (C,), dscale, dshift (B, C): acc; absent where the argument is.
@define(
    "norm_act_native_backward",
    f"Tensor grad_out, Tensor x, {_NORM}",
    "(Tensor dx, Tensor dnorm_weight, Tensor dnorm_bias, Tensor dscale, Tensor dshift)",
)
def _(grad_out, x, kind, weight, bias, groups, eps, scope, scale, shift, act, stats):
    return _contiguous(x), *(_sums(x, _shape(t)) for t in (weight, bias, scale, shift))


# --------------------------------------------------------------------------------------------------------------- conv
# weight (Co, Ci, 1, 3, 3) or (Co, Ci, 3, 1, 1), any strides; temb (B, T, Co); residual (B, T, H, W, Co); mix (B, T).
# out (B, T, H, W, Co); out_stats (B, T, Co, 2): the channel statistics of out, absent unless return_stats.


@define(
    "norm_act_conv_native",
    f"Tensor x, Tensor weight, Tensor? bias, {_NORM}, Tensor? temb, Tensor? residual, Tensor? mix, bool return_stats",
    "(Tensor out, Tensor out_stats)",
)
def _(x, weight, bias, kind, nw, nb, groups, eps, scope, scale, shift, act, stats, temb, residual, mix, return_stats):
    B, T, H, W, _C = x.shape
    Co = weight.shape[0]
    return x.new_empty((B, T, H, W, Co)), _sums(x, (B, T, Co, 2) if return_stats else None)


# dx and dweight are in x's dtype, the others acc; dx (and the norm's four), dweight and dmix are absent unless asked for.
@define(
    "norm_act_conv_native_backward",
    f"Tensor grad_out, Tensor x, Tensor weight, Tensor? bias, {_NORM}, Tensor? temb, Tensor? mix, "
    "bool need_x, bool need_weight, bool need_mix",
    "(Tensor dx, Tensor dweight, Tensor dbias, Tensor dnorm_weight, Tensor dnorm_bias, Tensor dscale, Tensor dshift, "
    "Tensor dtemb, Tensor dmix)",
)
def _(
    grad_out, x, weight, bias, kind, norm_weight, norm_bias, groups, eps, scope, scale, shift, act, stats, temb, mix,
    need_x, need_weight, need_mix,
):  # fmt: skip
    norm_shapes = [_shape(t) if need_x else None for t in (norm_weight, norm_bias, scale, shift)]
    return (
        _contiguous(x) if need_x else _absent(x),
        _contiguous(weight) if need_weight else _absent(x),
        _sums(x, _shape(bias)),
        *(_sums(x, shape) for shape in norm_shapes),
        _sums(x, _shape(temb)),
        _sums(x, mix.shape if need_mix else None),
    )


# -------------------------------------------------------------------------------------------------------- feedforward
# x (M, C); weight (2E, C); out (M, E) = a * gelu(b), [a | b] = x weight^T + bias.


@define("geglu_native", "Tensor x, Tensor weight, Tensor? bias", "Tensor")
def _(x, weight, bias):
    return x.new_empty((x.shape[0], weight.shape[0] // 2))


@define(
    "geglu_native_backward",
    "Tensor grad_out, Tensor x, Tensor weight, Tensor? bias",
    "(Tensor dx, Tensor dweight, Tensor dbias)",
)
def _(grad_out, x, weight, bias):
    return _contiguous(x), _contiguous(weight), _sums(x, _shape(bias))


# ------------------------------------------------------------------------------------------------------------ loading

# By (bytes of an element, whether frames share their keys), then by head dim: the longest sequences whose CUDA backward needs of
# forward neither out nor lse. csrc/attention/cuda/plan.h has the rule; `load` asks it for all, because torch.compile cannot trace a
# call by ctypes, while it reads a table, and compares symbolic lengths with what it finds there.
longest_short_backward: dict[tuple[int, bool], tuple[int, ...]] = {}
_MAX_HEAD_DIM = 256


def load() -> str | None:
    """Loads the compiled library, once, at import. Returns why it could not, or None."""
    if not LIBRARY_FILE.exists():
        return "the compiled library is missing: install with a C++ compiler at hand (pip install --no-build-isolation .)"
    try:
        torch.ops.load_library(LIBRARY_FILE)
    except OSError as error:
        return f"the compiled library did not load: {error}"
    try:
        longest = ctypes.CDLL(str(LIBRARY_FILE)).vdiff_attention_longest_short_bwd
    except AttributeError:
        return "the compiled library is of an older version: build it again"
    longest.argtypes, longest.restype = (ctypes.c_int64, ctypes.c_int64, ctypes.c_int), ctypes.c_int64
    for size, shared in itertools.product((2, 4, 8), (False, True)):
        longest_short_backward[size, shared] = tuple(longest(D, size, shared) for D in range(_MAX_HEAD_DIM + 1))
    wanted = os.environ.get("VDIFF_CPU_ISA")
    if wanted:
        try:
            use_instruction_set(wanted)
        except ValueError as error:
            return f"the environment variable VDIFF_CPU_ISA: {error}"
    return None


def instruction_sets() -> list[str]:
    """Those that the library has CPU kernels for and this processor has, the best last: it is used unless another is chosen."""
    has = ctypes.CDLL(str(LIBRARY_FILE)).vdiff_has_isa
    return [name for name in ("baseline", "avx2", "avx512") if has(name.encode())]


def instruction_set() -> str:
    """The one whose CPU kernels are in use."""
    name = ctypes.CDLL(str(LIBRARY_FILE)).vdiff_isa
    name.restype = ctypes.c_char_p
    return name().decode()


def use_instruction_set(name: str) -> None:
    """Chooses the CPU kernels, for tests and measurements; while none runs. Raises ValueError for one that is not there."""
    if name not in instruction_sets():
        raise ValueError(f"instruction set is {name!r}; expected one of {', '.join(instruction_sets())}")
    ctypes.CDLL(str(LIBRARY_FILE)).vdiff_use_isa(name.encode())


def has_kernel(name: str, dispatch_key: str) -> bool:
    """Whether a compiled kernel serves `vdiff_kernels::name` for "CPU" or "CUDA"."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{name}", dispatch_key)


def cuda_versions() -> tuple[int, int]:
    """(that of the CUDA runtime in the compiled library, the newest that the driver serves or 0 without one); 13000 is 13.0."""
    library = ctypes.CDLL(str(LIBRARY_FILE))
    return library.vdiff_cuda_runtime_version(), library.vdiff_cuda_driver_version()
