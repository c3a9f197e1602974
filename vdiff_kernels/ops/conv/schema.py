"""The factorized convolutions in the compiled library: schemas, fake kernels, and the call taken apart."""

from torch import Tensor

from ..norm.schema import NORM, kept_stats, norm_arguments
from ..schema import KINDS, Kernels, absent, contiguous, define, defined, named, shape_of, sums
from ..tensors import acc_dtype, like_parameter, unit_stride
from .call import ConvCall
from .reference import per_frame

# weight (Co, Ci, 1, 3, 3) or (Co, Ci, 3, 1, 1), any strides; temb (B, T, Co); residual (B, T, H, W, Co); mix (B, T).
# out (B, T, H, W, Co); out_stats (B, T, Co, 2): the channel statistics of out, absent unless return_stats.


@define(
    "norm_act_conv",
    f"Tensor x, Tensor weight, Tensor? bias, {NORM}, Tensor? temb, Tensor? residual, Tensor? mix, bool return_stats",
    "(Tensor out, Tensor out_stats)",
)
def _(x, weight, bias, kind, nw, nb, groups, eps, scope, scale, shift, act, stats, temb, residual, mix, return_stats):
    B, T, H, W, _C = x.shape
    Co = weight.shape[0]
    return x.new_empty((B, T, H, W, Co)), sums(x, (B, T, Co, 2) if return_stats else None)


# dx and dweight are in x's dtype, the others acc; dx (and the norm's four), dweight and dmix are absent unless asked for.
@define(
    "norm_act_conv_backward",
    f"Tensor grad_out, Tensor x, Tensor weight, Tensor? bias, {NORM}, Tensor? temb, Tensor? mix, "
    "bool need_x, bool need_weight, bool need_mix",
    "(Tensor dx, Tensor dweight, Tensor dbias, Tensor dnorm_weight, Tensor dnorm_bias, Tensor dscale, Tensor dshift, "
    "Tensor dtemb, Tensor dmix)",
)
def _(
    grad_out, x, weight, bias, kind, norm_weight, norm_bias, groups, eps, scope, scale, shift, act, stats, temb, mix,
    need_x, need_weight, need_mix,
):  # fmt: skip
    norm_shapes = [shape_of(t) if need_x else None for t in (norm_weight, norm_bias, scale, shift)]
    return (
        contiguous(x) if need_x else absent(x),
        contiguous(weight) if need_weight else absent(x),
        sums(x, shape_of(bias)),
        *(sums(x, shape) for shape in norm_shapes),
        sums(x, shape_of(temb)),
        sums(x, mix.shape if need_mix else None),
    )


# ---------------------------------------------------------------------------------------------- the call, taken apart and served


def _operands(call: ConvCall) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(x (B, T, H, W, Ci), temb (B, T, Co), mix (B, T)), the two small ones acc, without a copy of what they repeat."""
    x, acc = call.x.movedim(1, -1), acc_dtype(call.x.dtype)
    B, T = x.shape[:2]
    temb = None if call.temb is None else per_frame(call.temb.to(acc), 2).expand(B, T, call.weight.shape[0])
    mix = None if call.mix is None else per_frame(call.mix.to(acc), 1).expand(B, T)
    return x, temb, mix


def _summed(gradient: Tensor | None, given: Tensor | None, trailing: int) -> Tensor | None:
    """The gradient of what `per_frame` spread: summed over what it repeats."""
    if given is None or gradient is None:
        return None
    return gradient.sum_to_size(per_frame(given, trailing).shape).view(given.shape).to(given.dtype)


_NAMES = "norm_act_conv", "norm_act_conv_backward"


def conv_kernels(kind: str) -> Kernels:
    return served(*defined(kind, "channel_stats", *_NAMES), tuple(named(name, kind) for name in _NAMES))


def served(channel_stats, forward, backward, schemas: tuple[str, ...] = ()) -> Kernels:
    """By these operators."""

    def run(call: ConvCall, save: bool):
        x, temb, mix = _operands(call)
        stats = kept_stats(channel_stats, x, call.norm, call.stats, save)
        residual = None if call.residual is None else call.residual.movedim(1, -1)
        norm = norm_arguments(call.norm, call.act, stats)
        out, out_stats = forward(x, call.weight, call.bias, *norm, temb, residual, mix, call.return_stats)
        out = out.movedim(-1, 1)
        return (out, out_stats) if call.return_stats else out, (stats,)

    def differentiate(call: ConvCall, saved, grad_out, needs):
        need_x, need_weight, _, _, need_residual, need_mix, *need_norm, _ = needs
        need_x = need_x or any(need_norm)
        x, temb, mix = _operands(call)
        grad_out = unit_stride(grad_out.movedim(1, -1))
        norm = norm_arguments(call.norm, call.act, saved[0])
        dx, dweight, dbias, *found, dtemb, dmix = backward(
            grad_out, x, call.weight, call.bias, *norm, temb, mix, need_x, need_weight, need_mix
        )
        norm_tensors = (None, None, None, None) if call.norm is None else call.norm.tensors
        dnorm = [like_parameter(gradient, parameter) if need_x else None for gradient, parameter in zip(found, norm_tensors)]
        return (
            dx.movedim(-1, 1) if need_x else None,
            dweight if need_weight else None,
            like_parameter(dbias, call.bias),
            _summed(dtemb, call.temb, 2),
            grad_out.movedim(-1, 1) if need_residual else None,
            _summed(dmix, call.mix, 1) if need_mix else None,
            *dnorm,
            None,
        )

    return Kernels(run, differentiate, schemas)


NATIVE, TRITON = ({"norm_act_conv": conv_kernels(kind)} for kind in KINDS)
