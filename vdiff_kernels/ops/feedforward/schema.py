"""The gated feed-forward projection in the compiled library: schemas, fake kernels, and the call taken apart."""

from ..schema import KINDS, Kernels, contiguous, define, defined, named, shape_of, sums
from ..tensors import like_parameter, unit_stride
from .call import GegluCall

# x (M, C); weight (2E, C); out (M, E) = a * gelu(b), [a | b] = x weight^T + bias.


@define("geglu", "Tensor x, Tensor weight, Tensor? bias", "Tensor")
def _(x, weight, bias):
    return x.new_empty((x.shape[0], weight.shape[0] // 2))


@define(
    "geglu_backward",
    "Tensor grad_out, Tensor x, Tensor weight, Tensor? bias",
    "(Tensor dx, Tensor dweight, Tensor dbias)",
)
def _(grad_out, x, weight, bias):
    return contiguous(x), contiguous(weight), sums(x, shape_of(bias))


# ---------------------------------------------------------------------------------------------- the call, taken apart and served


def geglu_kernels(kind: str) -> Kernels:
    names = "geglu", "geglu_backward"
    return served(*defined(kind, *names), tuple(named(name, kind) for name in names))


def served(forward, backward, schemas: tuple[str, ...] = ()) -> Kernels:
    """forward, backward: with the arguments of the schemas above."""

    def run(call: GegluCall, save: bool):
        x = call.x
        if x.dim() == 2:
            return forward(x, call.weight, call.bias), ()
        out = forward(x.view(-1, x.shape[-1]), call.weight, call.bias)
        return out.view(*x.shape[:-1], out.shape[-1]), ()

    def differentiate(call: GegluCall, saved, grad_out, needs):
        x, grad_out = call.x, grad_out.reshape(-1, grad_out.shape[-1])
        dx, dweight, dbias = backward(unit_stride(grad_out), x.reshape(-1, x.shape[-1]), call.weight, call.bias)
        return dx.view(x.shape), dweight, like_parameter(dbias, call.bias)

    return Kernels(run, differentiate, schemas)


NATIVE, TRITON = ({"geglu": geglu_kernels(kind)} for kind in KINDS)
