"""Runs the PTX that nvcc and Triton emit on the CPU: its numbers, its races and bad accesses, its traffic. See README.md."""

from .compile import from_cuda, from_triton
from .core_library import instructions
from .memory import Struct, empty, unwritten
from .module import Kernel, Module, load
from .parser import PtxError
from .report import Counts, Finding, Report

__all__ = [
    "Counts", "Finding", "Kernel", "Module", "PtxError", "Report", "Struct", "empty", "from_cuda", "from_triton", "instructions",
    "load", "unwritten",
]  # fmt: skip
