"""Faults to rehearse with: the third kernel call of a group's first process crashes, hangs, or returns a wrong number."""

import ctypes
import time
from dataclasses import replace

from vdiff_kernels.backends import registry

AT_CALL = 3


def plant(kind: str) -> None:
    calls = 0

    def planted(forward):
        def run(call, save):
            nonlocal calls
            calls += 1
            if calls != AT_CALL:
                return forward(call, save)
            if kind == "crash":
                ctypes.string_at(0)
            while kind == "hang":
                time.sleep(1)
            out, saved = forward(call, save)
            return 1.5 * out, saved

        return run

    for backend in ("cpu", "cuda"):
        kernels = registry.BACKENDS[backend].kernels
        for operator in ("temporal_attention", "spatial_attention"):
            if operator in kernels:
                kernels[operator] = replace(kernels[operator], forward=planted(kernels[operator].forward))
    registry.forget()
