"""What simulated CUDA operators share: the launchers of families of csrc, and a backend of their kernels on the CPU."""

import contextlib

import torch

from tests.ptxsim.compile import CSRC
from tests.ptxsim.fixtures import compiled_launchers
from tests.ptxsim.launcher import Launchers
from vdiff_kernels.backends import registry
from vdiff_kernels.backends.backend import Backend
from vdiff_kernels.ops.schema import Kernels

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)  # DType, of csrc/common/scalar.h
STREAM = 0x5000  # any


def launchers_of(*families: str) -> Launchers:
    sources = [source for family in families for source in sorted((CSRC / family).rglob("*.cu"))]
    sources.append(CSRC / "common" / "cuda" / "launch.cu")
    return compiled_launchers(*sources, include=(CSRC,))


@contextlib.contextmanager
def taken_by_auto(kernels: dict[str, Kernels]):
    """Within, auto takes these on the CPU, by operator."""
    auto, _ = registry.AUTO["cpu"], registry.forget()
    registry.BACKENDS["simulated"], registry.AUTO["cpu"] = Simulated(kernels), ("simulated",)
    try:
        yield
    finally:
        registry.AUTO["cpu"] = auto
        del registry.BACKENDS["simulated"]
        registry.forget()


class Simulated(Backend):
    name = "simulated"

    def __init__(self, kernels: dict[str, Kernels]):
        self.kernels = kernels

    def supports(self, call):
        return None if call.operator in self.kernels else f"it has no {call.operator}"


def float_vector(tensor):
    """What the operators make of one that every kernel reads in float."""
    return None if tensor is None else tensor.float().contiguous()


def pointer(tensor):
    return 0 if tensor is None else tensor
