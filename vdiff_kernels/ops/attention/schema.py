"""Attention and its layers in the compiled library: schemas, fake kernels, and the calls taken apart."""

from torch import Tensor

from ...library import longest_short_backward
from ..schema import Kernels, absent, contiguous, define, defined, named, shape_of, sums
from ..tensors import like_parameter, power_of_2, unit_stride
from .call import AttentionCall, AttentionFamily, LayerCall

_TEMPORAL = "Tensor? bias, Tensor? rel_bias, float scale, bool causal, Tensor? focus_present, Tensor? rotary"
_SPATIAL = "Tensor? bias, Tensor? rel_bias, float scale"
_SPATIAL_OR_CONTEXT = f"{_SPATIAL}, Tensor? key_mask"


# ---------------------------------------------------------------------------------------------------------- attention
# out (B, T, H, W, N, D) in q's dtype; lse (B, T, H, W, N), acc: natural log of each row's sum of exponentials, -inf where
# the row is fully masked, absent unless return_lse.
# Backward takes forward's out and lse where `backward_needs` says that its kernels need them.
# Gradients: packed False: (dq, dk, dv, dbias); packed True: q, k and v are the three slices of one (B, T, H, W, 3, N, D), and
# so is the first result, the next two absent. dbias, acc, has the shape of the bias or rel_bias given; absent unless
# need_bias_grad.


def _attention_forward(q, return_lse):
    return contiguous(q), sums(q, q.shape[:-1] if return_lse else None)


def _attention_backward(q, k, v, bias, rel_bias, packed, need_bias_grad):
    dbias = sums(q, shape_of(bias if rel_bias is None else rel_bias) if need_bias_grad else None)
    if packed:
        return q.new_empty((*q.shape[:4], 3, *q.shape[4:])), absent(q), absent(q), dbias
    return contiguous(q), contiguous(k), contiguous(v), dbias


@define(
    "temporal_attention",
    f"Tensor q, Tensor k, Tensor v, {_TEMPORAL}, bool return_lse",
    "(Tensor out, Tensor lse)",
)
def _(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary, return_lse):
    return _attention_forward(q, return_lse)


@define(
    "temporal_attention_backward",
    f"Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor? out, Tensor? lse, {_TEMPORAL}, bool packed, bool need_bias_grad",
    "(Tensor dq, Tensor dk, Tensor dv, Tensor dbias)",
)
def _(grad_out, q, k, v, out, lse, bias, rel_bias, scale, causal, focus_present, rotary, packed, need_bias_grad):
    return _attention_backward(q, k, v, bias, rel_bias, packed, need_bias_grad)


# k, v (B, T, H, W, N, D), or context (B, S, N, D) shared by the frames, or (B, T, S, N, D) per frame.
@define(
    "spatial_attention",
    f"Tensor q, Tensor k, Tensor v, {_SPATIAL_OR_CONTEXT}, bool return_lse",
    "(Tensor out, Tensor lse)",
)
def _(q, k, v, bias, rel_bias, scale, key_mask, return_lse):
    return _attention_forward(q, return_lse)


@define(
    "spatial_attention_backward",
    "Tensor grad_out, Tensor q, Tensor k, Tensor v, Tensor? out, Tensor? lse, "
    f"{_SPATIAL_OR_CONTEXT}, bool packed, bool need_bias_grad",
    "(Tensor dq, Tensor dk, Tensor dv, Tensor dbias)",
)
def _(grad_out, q, k, v, out, lse, bias, rel_bias, scale, key_mask, packed, need_bias_grad):
    return _attention_backward(q, k, v, bias, rel_bias, packed, need_bias_grad)


# ----------------------------------------------------------------------------------------------------- attention layers
# x (B, T, H, W, C); w_qkv (3*N*D, C), w_out (Co, N*D); pos_emb (T, C); residual and out (B, T, H, W, Co). norm_kind "layer",
# "rms" or "none". Backward computes all again from x; residual_is_x: x was the residual too, and dx is of both. dx is in x's
# dtype, the other gradients acc; absent where the argument is, dbias unless need_bias_grad.
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
    return contiguous(x), *(sums(x, shape_of(tensor)) for tensor in tensors)


@define("temporal_layer", f"{_LAYER}, Tensor? residual, {_TEMPORAL}", "Tensor")
def _(x, *rest):
    return _layer_forward(x, *rest)


@define(
    "temporal_layer_backward",
    f"Tensor grad_out, {_LAYER}, {_TEMPORAL}, bool residual_is_x, bool need_bias_grad",
    _LAYER_GRADIENTS,
)
def _(grad_out, *rest):
    *layer, bias, rel_bias, _scale, _causal, _focus_present, _rotary, _residual_is_x, need_bias_grad = rest
    return _layer_backward(*layer, bias, rel_bias, need_bias_grad)


@define("spatial_layer", f"{_LAYER}, Tensor? residual, {_SPATIAL}", "Tensor", kinds=("native",))
def _(x, *rest):
    return _layer_forward(x, *rest)


@define(
    "spatial_layer_backward",
    f"Tensor grad_out, {_LAYER}, {_SPATIAL}, bool residual_is_x, bool need_bias_grad",
    _LAYER_GRADIENTS,
    kinds=("native",),
)
def _(grad_out, *rest):
    *layer, bias, rel_bias, _scale, _residual_is_x, need_bias_grad = rest
    return _layer_backward(*layer, bias, rel_bias, need_bias_grad)


# --------------------------------------------------------------------------------------------- calls, taken apart and served


def _options(call: AttentionFamily) -> tuple:
    """The schemas' _TEMPORAL, _SPATIAL_OR_CONTEXT or, of a layer, _SPATIAL."""
    options = call.options
    biases = options.bias, options.rel_bias, call.scale
    if call.is_temporal:
        return *biases, options.causal, options.focus_present, options.rotary
    return biases if isinstance(call, LayerCall) else (*biases, options.key_mask)


def _option_gradients(call: AttentionFamily, dtable: Tensor | None) -> tuple:
    """In the order of the options' tensors: that of whichever bias there is."""
    return like_parameter(dtable, call.options.bias), like_parameter(dtable, call.options.rel_bias), None, None, None


def _needs_table(call: AttentionFamily, needs) -> bool:
    return any(needs[place] for place in call.tables)


def attention_kernels(forward, backward, backward_needs, schemas=()) -> Kernels:
    """An attention by its two operators. backward_needs(call): whether backward takes forward's out, and its log-sum-exp."""

    def run(call: AttentionCall, save: bool):
        need_out, need_lse = backward_needs(call) if save else (False, False)
        out, lse = forward(call.q, call.k, call.v, *_options(call), need_lse)
        return out, (out if need_out else None, lse if need_lse else None)

    def differentiate(call: AttentionCall, saved, grad_out, needs):
        is_packed, need_bias_grad = call.qkv is not None, _needs_table(call, needs)
        dq, dk, dv, dtable = backward(
            unit_stride(grad_out), call.q, call.k, call.v, *saved, *_options(call), is_packed, need_bias_grad
        )
        if is_packed:
            dk = dv = None
        return dq, dk, dv, *_option_gradients(call, dtable if need_bias_grad else None)

    return Kernels(run, differentiate, schemas)


def _layer_arguments(call: LayerCall) -> tuple:
    """The schemas' _LAYER."""
    norm = ("none", None, None, 0.0)
    if call.norm is not None:
        norm = call.norm.kind, call.norm.weight, call.norm.bias, float(call.norm.eps)
    return call.x, call.w_qkv, call.b_qkv, call.w_out, call.b_out, call.num_heads, *norm, call.pos_emb


def layer_kernels(forward, backward, schemas=()) -> Kernels:
    """A whole layer by its two operators."""

    def run(call: LayerCall, save: bool):
        residual = call.x if call.residual_is_x else call.residual
        return forward(*_layer_arguments(call), residual, *_options(call)), ()

    def differentiate(call: LayerCall, saved, grad_out, needs):
        need_bias_grad, grad_out = _needs_table(call, needs), unit_stride(grad_out)
        dx, *found, dtable = backward(grad_out, *_layer_arguments(call), *_options(call), call.residual_is_x, need_bias_grad)
        norm_weight, norm_bias = (None, None) if call.norm is None else (call.norm.weight, call.norm.bias)
        parameters = call.w_qkv, call.b_qkv, call.w_out, call.b_out, norm_weight, norm_bias, call.pos_emb
        *dweights, dnorm_weight, dnorm_bias, dpos_emb = map(like_parameter, found, parameters)
        dresidual = grad_out if needs[1] else None
        dnorm = dnorm_weight, dnorm_bias, None, None
        return dx, dresidual, *dweights, *dnorm, dpos_emb, None, *_option_gradients(call, dtable if need_bias_grad else None)

    return Kernels(run, differentiate, schemas)


def backward_needs(call: AttentionCall) -> tuple[bool, bool]:
    """Whether the backward on q's device needs forward's out, and its log-sum-exp. The CPU's computes both again."""
    return (False, False) if call.q.device.type == "cpu" else cuda_backward_needs(call)


def cuda_backward_needs(call: AttentionCall) -> tuple[bool, bool]:
    """Short sequences are computed again on chip, from q, k and v alone; what all frames share is not summed there."""
    is_long = max(call.lengths) > longest_short_backward[call.q.element_size(), call.is_shared_context][call.q.shape[-1]]
    return is_long, is_long


def triton_backward_needs(call: AttentionCall) -> tuple[bool, bool]:
    """Short sequences of frames are computed again on chip, as by CUDA's."""
    is_long = not (call.is_temporal and is_short(*call.lengths, call.head_dim, call.q.element_size()))
    return is_long, is_long


# Of a sequence that a Triton program has the registers to hold whole: its rows, by the bytes of an element, and the bytes of one
# operand.
MAX_SHORT, SHORT_BYTES = {2: 64, 4: 32}, 1 << 14


def is_short(T: int, S: int, D: int, element_size: int) -> bool:
    """Whether a Triton program holds whole sequences: in powers of two, as many frames and channels as its tiles have."""
    return max(T, S) <= min(MAX_SHORT[element_size], SHORT_BYTES // (power_of_2(D) * element_size))  # powers of two, both


def _served(build, kind: str, name: str, *more) -> Kernels:
    schemas = name, f"{name}_backward"
    return build(*defined(kind, *schemas), *more, tuple(named(schema, kind) for schema in schemas))


NATIVE = {
    "temporal_attention": _served(attention_kernels, "native", "temporal_attention", backward_needs),
    "spatial_attention": _served(attention_kernels, "native", "spatial_attention", backward_needs),
    "temporal_layer": _served(layer_kernels, "native", "temporal_layer"),
    "spatial_layer": _served(layer_kernels, "native", "spatial_layer"),
}
TRITON = {
    "temporal_attention": _served(attention_kernels, "triton", "temporal_attention", triton_backward_needs),
    "spatial_attention": _served(attention_kernels, "triton", "spatial_attention", triton_backward_needs),
    "temporal_layer": _served(layer_kernels, "triton", "temporal_layer"),
}
