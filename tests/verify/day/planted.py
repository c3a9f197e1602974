"""Faults to rehearse with: the third kernel call of a group crashes, hangs, wants too much memory, or returns a wrong number."""

import ctypes
import functools
import time
from dataclasses import replace
from pathlib import Path

import torch

from vdiff_kernels.backends import registry

AT_CALL = 3


def prepare(faults: dict[str, str], markers: Path, group: str) -> None:
    """Plants the fault of that group, once: a marker says that it has struck."""
    if group in faults:
        plant(faults[group], markers / group)


def plant(kind: str, marker: Path) -> None:
    calls = 0

    def planted(forward):
        @functools.wraps(forward)
        def run(call, save):
            nonlocal calls
            calls += 1
            if calls != AT_CALL or marker.exists():
                return forward(call, save)
            marker.touch()
            if kind == "crash":
                ctypes.string_at(0)
            while kind == "hang":
                time.sleep(1)
            if kind == "memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 TiB")
            out, saved = forward(call, save)
            return 1.5 * out, saved

        return run

    kernels = registry.BACKENDS["cpu"].kernels
    for operator in ("temporal_attention", "spatial_attention"):
        kernels[operator] = replace(kernels[operator], forward=planted(kernels[operator].forward))
    registry.forget()
