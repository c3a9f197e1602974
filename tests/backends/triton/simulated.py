"""The Triton backend on tensors of the CPU: what it compiles for an A100, run by tests/ptxsim."""

import contextlib
from collections.abc import Callable, Iterator
from unittest import mock

from vdiff_kernels.backends import registry, triton
from vdiff_kernels.backends.triton import launch


@contextlib.contextmanager
def simulated_by_triton(runner: Callable) -> Iterator[None]:
    """Within, backend="triton" serves the CPU, and every launch goes to that runner of backends/triton/launch.py: `clean_triton`,
    `simulate.triton_launch`, or their like.
    """
    registry.forget()
    try:
        with mock.patch.object(launch, "runner", runner), mock.patch.object(triton, "is_interpreted", lambda: True):
            yield
    finally:
        registry.forget()
