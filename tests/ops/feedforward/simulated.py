"""The CUDA GEGLU operators, simulated: what csrc/feedforward/operators.cpp does, with launches that tests/ptxsim executes."""

import torch

from tests import ptxsim
from tests.ops.simulated import DTYPES, STREAM, launchers_of, taken_by_auto
from vdiff_kernels.ops.feedforward.schema import served


def launchers():
    return launchers_of("feedforward")


def kernels_of(run):
    """Those of each operator. run: `simulate.launcher`, or its like."""
    operators = SimulatedKernels(run)
    return {"geglu": served(operators.geglu, operators.geglu_backward)}


def simulated_by_default(run):
    """Auto takes the simulated CUDA kernels on the CPU."""
    return taken_by_auto(kernels_of(run))


class SimulatedKernels:
    """The compiled library's operators, with the arguments of their schemas (vdiff_kernels/ops/feedforward/schema.py).

    run: `simulate.launcher`, `clean_run(..)`, or their like. outputs: makes them; those of ptxsim are held to be written whole.
    """

    def __init__(self, run, outputs=ptxsim.empty):
        self.run, self.empty = run, outputs
        self.reports = []

    def geglu(self, x, weight, bias):
        (M, C), E = x.shape, weight.shape[0] // 2
        weight, bias = _unit(weight), _vector(bias)
        out = self.empty(M, E, dtype=x.dtype)
        values = [x, weight, _pointer(bias), out, M, C, E, x.stride(0), *weight.stride(), DTYPES.index(x.dtype)]
        self._launch("launch_geglu_fwd", ptxsim.Struct("<4Q6qi4x", *values), STREAM, outputs=(out,))
        return out

    def geglu_backward(self, grad_out, x, weight, bias):
        (M, C), E = x.shape, weight.shape[0] // 2
        weight, bias = _unit(weight), _vector(bias)
        dx, dweight = self.empty(M, C, dtype=x.dtype), self.empty(2 * E, C, dtype=x.dtype)
        dbias = torch.empty(0) if bias is None else self.empty(2 * E)
        values = [
            grad_out, x, weight, _pointer(bias), dx, dweight, dbias if dbias.numel() else 0, M, C, E,
            grad_out.stride(0), x.stride(0), *weight.stride(), DTYPES.index(x.dtype),
        ]  # fmt: skip
        params = ptxsim.Struct("<7Q7qi4x", *values)
        scratch = self.empty(max(1, launchers().call("geglu_bwd_scratch", params) // 4))
        self._launch("launch_geglu_bwd", params, scratch, STREAM, outputs=(dx, dweight, dbias))
        return dx, dweight, dbias

    def _launch(self, function, *arguments, outputs):
        self.reports = self.run(launchers(), function, *arguments)
        assert launchers().streams <= {STREAM}
        if self.empty is ptxsim.empty:
            assert all(ptxsim.unwritten(t) == 0 for t in outputs if t.numel())


def _unit(weight):
    return weight if weight.stride(1) == 1 or weight.shape[1] == 1 else weight.contiguous()


def _vector(bias):
    return None if bias is None else bias.float().contiguous()


def _pointer(tensor):
    return 0 if tensor is None else tensor
