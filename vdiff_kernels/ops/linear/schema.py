"""A linear layer with what stands around it, as kernels take it: schemas, fake kernels, and the call taken apart."""

from ..norm.schema import NORM, kept_stats, norm_arguments
from ..schema import KINDS, Kernels, absent, contiguous, define, defined, named, shape_of, sums
from ..tensors import like_parameter, unit_stride
from .call import LinearCall

# x (B, T, H, W, C); weight (Co, C); pos_emb (T, C); gate (B, Co); residual and out (B, T, H, W, Co). The norm has no activation.


@define(
    "norm_linear",
    f"Tensor x, Tensor weight, Tensor? bias, {NORM}, Tensor? pos_emb, Tensor? gate, Tensor? residual",
    "Tensor",
)
def _(x, weight, bias, kind, nw, nb, groups, eps, scope, scale, shift, act, stats, pos_emb, gate, residual):
    return x.new_empty((*x.shape[:4], weight.shape[0]))


# dx and dweight are in x's dtype, the others acc; dx (and the norm's four, and dpos_emb) and dweight are absent unless asked for.
@define(
    "norm_linear_backward",
    f"Tensor grad_out, Tensor x, Tensor weight, Tensor? bias, {NORM}, Tensor? pos_emb, Tensor? gate, "
    "bool need_x, bool need_weight",
    "(Tensor dx, Tensor dweight, Tensor dbias, Tensor dgate, Tensor dpos_emb, Tensor dnorm_weight, Tensor dnorm_bias, "
    "Tensor dscale, Tensor dshift)",
)
def _(
    grad_out, x, weight, bias, kind, norm_weight, norm_bias, groups, eps, scope, scale, shift, act, stats, pos_emb, gate,
    need_x, need_weight,
):  # fmt: skip
    on_way_to_x = [shape_of(t) if need_x else None for t in (pos_emb, norm_weight, norm_bias, scale, shift)]
    return (
        contiguous(x) if need_x else absent(x),
        contiguous(weight) if need_weight else absent(x),
        sums(x, shape_of(bias)),
        sums(x, shape_of(gate)),
        *(sums(x, shape) for shape in on_way_to_x),
    )


# ---------------------------------------------------------------------------------------------- the call, taken apart and served


def linear_kernels(kind: str) -> Kernels:
    names = "norm_linear", "norm_linear_backward"
    return served(*defined(kind, "channel_stats", *names), tuple(named(name, kind) for name in names))


def served(channel_stats, forward, backward, schemas: tuple[str, ...] = ()) -> Kernels:
    """channel_stats, forward, backward: with the arguments of the schemas."""

    def run(call: LinearCall, save: bool):
        stats = kept_stats(channel_stats, call.x, call.norm, None, save)
        norm = norm_arguments(call.norm, None, stats)
        return forward(call.x, call.weight, call.bias, *norm, call.pos_emb, call.gate, call.residual), (stats,)

    def differentiate(call: LinearCall, saved, grad_out, needs):
        need_x, need_weight, _, _, need_residual, *on_way_to_x = needs
        need_x = need_x or any(on_way_to_x)
        norm, grad_out = norm_arguments(call.norm, None, saved[0]), unit_stride(grad_out)
        dx, dweight, *found = backward(
            grad_out, call.x, call.weight, call.bias, *norm, call.pos_emb, call.gate, need_x, need_weight
        )
        norm_tensors = (None, None, None, None) if call.norm is None else call.norm.tensors
        dbias, dgate, *found = map(like_parameter, found, (call.bias, call.gate, call.pos_emb, *norm_tensors))
        return (
            dx if need_x else None,
            dweight if need_weight else None,
            dbias,
            dgate,
            grad_out if need_residual else None,
            *(gradient if need_x else None for gradient in found),
        )

    return Kernels(run, differentiate, schemas)


NATIVE, TRITON = ({"norm_linear": linear_kernels(kind)} for kind in KINDS)
