"""The CUDA operator norm_linear, simulated: what csrc/linear/operators.cpp does, with launches that tests/ptxsim executes."""

import torch

from tests import ptxsim
from tests.ops.norm.simulated import NORM_PARAMS, SimulatedNorms
from tests.ops.simulated import DTYPES, STREAM, float_vector, launchers_of, pointer, taken_by_auto
from vdiff_kernels.ops.linear.schema import served


def launchers():
    return launchers_of("linear", "norm")


def kernels_of(run):
    """Those of each operator. run: `simulate.launcher`, or its like."""
    operators = SimulatedLinear(run)
    return {"norm_linear": served(operators.norms.channel_stats, operators.forward, operators.backward)}


def simulated_by_default(run):
    """Auto takes the simulated CUDA kernels on the CPU."""
    return taken_by_auto(kernels_of(run))


class SimulatedLinear:
    """The compiled library's operators, with the arguments of their schemas (vdiff_kernels/ops/linear/schema.py).

    run: `simulate.launcher`, `clean_run(..)`, or their like. outputs: makes them; those of ptxsim are held to be written whole.
    reports: of each kernel that the last operator launched, in order.
    """

    def __init__(self, run, outputs=ptxsim.empty):
        self.run, self.empty, self.norms, self.reports = run, outputs, SimulatedNorms(run, outputs), []

    def forward(self, x, weight, bias, *arguments):
        *norm, pos_emb, gate, residual = arguments
        Co, vectors = weight.shape[0], [float_vector(t) for t in (bias, pos_emb, gate)]
        norm_values, held = self.norms.values_of(x, *norm)
        x, stride_x = _rows(x)
        added, stride_added = (None, 0) if residual is None else _rows(residual)
        out = self.empty(*x.shape[:4], Co, dtype=x.dtype)
        params = ptxsim.Struct(
            f"<7Q9q{NORM_PARAMS}i4x", x, weight, *map(pointer, vectors), pointer(added), out, *x.shape, Co,
            stride_x, weight.stride(0), stride_added, *norm_values, DTYPES.index(x.dtype),
        )  # fmt: skip
        self._launch("fwd", params, held, (out,))
        return out

    def backward(self, grad_out, x, weight, bias, *arguments):
        *norm, pos_emb, gate, need_x, need_weight = arguments
        vectors = [float_vector(t) for t in (bias, pos_emb, gate)]
        norm_values, held = self.norms.values_of(x, *norm)
        (grad, stride_grad), (x, stride_x) = _rows(grad_out), _rows(x)
        dx = self.empty(*x.shape, dtype=x.dtype) if need_x else torch.empty(0, dtype=x.dtype)
        dweight = self.empty(*weight.shape, dtype=x.dtype) if need_weight else torch.empty(0)
        on_way_to_x = [t if need_x else None for t in (pos_emb, *(norm[i] for i in (1, 2, 6, 7)))]
        sums = [torch.empty(0) if t is None else self.empty(*t.shape) for t in (bias, gate, *on_way_to_x)]
        wanted = need_x, need_weight, *(t is not None for t in (bias, gate, *on_way_to_x))
        results = [t if is_wanted else 0 for t, is_wanted in zip((dx, dweight, *sums), wanted)]
        params = ptxsim.Struct(
            f"<15Q9q{NORM_PARAMS}i4x", grad, x, weight, *map(pointer, vectors), *results, *x.shape, weight.shape[0],
            stride_grad, stride_x, weight.stride(0), *norm_values, DTYPES.index(x.dtype),
        )  # fmt: skip
        self._launch("bwd", params, held, (dx, dweight, *sums))
        return dx, dweight, *sums

    def _launch(self, direction, params, held, outputs):
        # Of the results' dtype, of which it holds dh: findings are by elements.
        count = launchers().call(f"norm_linear_{direction}_scratch", params) // outputs[0].itemsize
        scratch = self.empty(max(8, count), dtype=outputs[0].dtype)
        memory = tuple(t for t in held if t is not None)
        self.reports = self.run(launchers(), f"launch_norm_linear_{direction}", params, scratch, STREAM, memory=memory)
        assert launchers().streams <= {STREAM}
        if self.empty is ptxsim.empty:
            assert all(ptxsim.unwritten(t) == 0 for t in outputs if t.numel())


def _rows(image):
    """(an image, or a copy, whose pixels lie at even steps, that step)"""
    stride, pixels = 0, 1
    for size, step in zip(reversed(image.shape[:4]), reversed(image.stride()[:4])):
        if size == 1:
            continue
        stride = step if pixels == 1 else stride
        if step != pixels * stride:
            return image.contiguous(), image.shape[4]
        pixels *= size
    return image, stride
