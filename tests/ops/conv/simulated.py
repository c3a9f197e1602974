"""The CUDA convolutions, simulated: what csrc/conv/operators.cpp does, with launches that tests/ptxsim executes."""

import torch

from tests import ptxsim
from tests.ops.norm.simulated import NORM_PARAMS, SimulatedNorms
from tests.ops.simulated import DTYPES, STREAM, float_vector, launchers_of, pointer, taken_by_auto
from vdiff_kernels.ops.conv.schema import served

_WEIGHT, _SIZES = "Q4q", "6q?7x"  # ConvWeight, ConvSizes


def launchers():
    return launchers_of("conv", "norm")


def kernels_of(run):
    """Those of each operator. run: `simulate.launcher`, or its like."""
    operators = SimulatedConvolutions(run)
    return {"norm_act_conv": served(operators.norms.channel_stats, operators.forward, operators.backward)}


def simulated_by_default(run):
    """Auto takes the simulated CUDA kernels on the CPU."""
    return taken_by_auto(kernels_of(run))


class SimulatedConvolutions:
    """The compiled library's operators, with the arguments of their schemas (vdiff_kernels/ops/conv/schema.py).

    run: `simulate.launcher`, `clean_run(..)`, or their like. outputs: makes them; those of ptxsim are held to be written whole.
    reports: of each kernel that the last call launched, in order.
    """

    def __init__(self, run, outputs=ptxsim.empty):
        self.run, self.empty, self.reports = run, outputs, []
        self.norms = SimulatedNorms(run, outputs)

    def forward(self, x, weight, bias, *arguments):
        *norm, temb, residual, mix, return_stats = arguments
        norm_fields, tensors = self.norms.values_of(x, *norm)
        bias, temb, mix = vectors = [float_vector(t) for t in (bias, temb, mix)]
        out = self.empty(*x.shape[:4], weight.shape[0], dtype=x.dtype)
        stats = self.empty(*x.shape[:2], weight.shape[0], 2) if return_stats else torch.empty(0)
        params = ptxsim.Struct(
            f"<Q{_WEIGHT}6Q{_SIZES}8q{NORM_PARAMS}i4x", x, *_weight(weight), *map(pointer, (bias, temb, residual, mix)), out,
            stats if return_stats else 0, *_sizes(x, weight), *x.stride()[:4],
            *((0, 0, 0, 0) if residual is None else residual.stride()[:4]), *norm_fields, DTYPES.index(x.dtype),
        )  # fmt: skip
        self._launch("fwd", params, (*tensors, *vectors), (out, stats))
        return out, stats

    def backward(self, grad_out, x, weight, bias, *arguments):
        *norm, temb, mix, need_x, need_weight, need_mix = arguments
        norm_fields, tensors = self.norms.values_of(x, *norm)
        bias, temb, mix = vectors = [float_vector(t) for t in (bias, temb, mix)]
        wanted = [
            (need_x, x.shape, x.dtype), (need_weight, weight.shape, x.dtype), (bias is not None, weight.shape[:1], torch.float32),
            *((need_x and norm[i] is not None, () if norm[i] is None else norm[i].shape, torch.float32) for i in (1, 2, 6, 7)),
            (temb is not None, (*x.shape[:2], weight.shape[0]), torch.float32), (need_mix, x.shape[:2], torch.float32),
        ]  # fmt: skip
        found = [self.empty(*shape, dtype=dtype) if is_wanted else torch.empty(0) for is_wanted, shape, dtype in wanted]
        pointers = [gradient if is_wanted else 0 for gradient, (is_wanted, *_) in zip(found, wanted)]
        params = ptxsim.Struct(
            f"<QQ{_WEIGHT}3Q?7x9Q{_SIZES}8q{NORM_PARAMS}i4x", grad_out, x, *_weight(weight), *map(pointer, (bias, temb, mix)),
            need_x, *pointers, *_sizes(x, weight), *grad_out.stride()[:4], *x.stride()[:4], *norm_fields, DTYPES.index(x.dtype),
        )  # fmt: skip
        self._launch("bwd", params, (*tensors, *vectors), found)
        return tuple(found)

    def _launch(self, direction, params, tensors, outputs):
        # By two bytes: half of it is of half types.
        scratch = self.empty(max(8, launchers().call(f"norm_act_conv_{direction}_scratch", params) // 2), dtype=torch.float16)
        memory = tuple(t for t in tensors if t is not None)
        function = f"launch_norm_act_conv_{direction}"
        self.reports = self.run(launchers(), function, params, scratch, STREAM, memory=memory)
        assert launchers().streams <= {STREAM}
        if self.empty is ptxsim.empty:
            assert all(ptxsim.unwritten(t) == 0 for t in outputs if t.numel())


def _weight(weight):
    along = 2 if weight.shape[2] == 3 else 3
    return weight, weight.stride(0), weight.stride(1), weight.stride(along), weight.stride(4)


def _sizes(x, weight):
    return *x.shape, weight.shape[0], weight.shape[2] == 3
