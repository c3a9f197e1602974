"""What simulated CUDA operators share: the launchers of a family of csrc, and a backend of their kernels on the CPU."""

import contextlib

import numpy as np
import torch

from tests.ptxsim.compile import CSRC
from tests.ptxsim.fixtures import compiled_launchers
from tests.ptxsim.launcher import Launchers
from tests.ptxsim.module import tensors_of
from vdiff_kernels.backends import registry
from vdiff_kernels.backends.backend import Backend
from vdiff_kernels.ops.schema import Kernels

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)  # DType, of csrc/common/scalar.h
STREAM = 0x5000  # any


LAUNCHED_BY = {"linear": ("norm",)}  # the families whose launches one makes, beside its own


def launchers_of(family: str) -> Launchers:
    families = family, *LAUNCHED_BY.get(family, ())
    sources = (*(path for one in families for path in sorted((CSRC / one).rglob("*.cu"))), CSRC / "common" / "cuda" / "launch.cu")
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


# ----------------------------------------------------------------------------------------------------------------- far out


def last_block_of(*kernels):
    """Runs the last block of each launch of these alone: without the others' results."""

    def run(launchers, function, *arguments, memory=()):
        def one(kernel, grid, block, args, shared_bytes):
            if any(name in kernel.name for name in kernels):
                options = dict(memory=(*memory, *tensors_of(arguments)), blocks=(grid[0] - 1, 1), seed=1)
                kernel.launch(grid, block, args, shared_bytes, **options).assert_clean()

        with launchers.simulated(one):
            launchers.call(function, *arguments)

    return run


def nearly(actual, expected):
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(actual.double(), expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


def far(rows, columns):
    return zeros(rows, max(columns, 2**31 // rows + 9) // 8 * 8, dtype=torch.bfloat16)[:, :columns]


def zeros(*shape, dtype=torch.float32):
    """Pages that nobody touches take no memory, and no time."""
    return torch.from_numpy(np.zeros(shape, np.uint16 if dtype == torch.bfloat16 else np.float32)).view(dtype)
