"""Faults to rehearse with: the third kernel call of a group's first process crashes, hangs, or returns a wrong number."""

import ctypes
import time

from vdiff_kernels.ops.attention import native

AT_CALL = 3


def plant(kind: str) -> None:
    calls = 0

    def planted(kernel):
        def call(*arguments):
            nonlocal calls
            calls += 1
            if calls != AT_CALL:
                return kernel(*arguments)
            if kind == "crash":
                ctypes.string_at(0)
            while kind == "hang":
                time.sleep(1)
            out, *rest = kernel(*arguments)
            return 1.5 * out, *rest

        return call

    for attention, kernel in native.forward.items():
        native.forward[attention] = planted(kernel)
