"""The compiled library: loading it, what it holds, and the instruction set that its CPU kernels use."""

import ctypes
import os
from pathlib import Path

import torch

from ..ops.schema import NAMESPACE

LIBRARY_FILE = Path(__file__).resolve().parent.parent / "_C.so"

def load() -> str | None:
    """Loads the compiled library, once, at import. Returns why it could not, or None."""
    if not LIBRARY_FILE.exists():
        return "the compiled library is missing: install with a C++ compiler at hand (pip install --no-build-isolation .)"
    try:
        torch.ops.load_library(LIBRARY_FILE)
    except OSError as error:
        return f"the compiled library did not load: {error}"
    wanted = os.environ.get("VDIFF_CPU_ISA")
    if wanted:
        try:
            use_instruction_set(wanted)
        except ValueError as error:
            return f"the environment variable VDIFF_CPU_ISA: {error}"
    return None


def instruction_sets() -> list[str]:
    """Those that the library has CPU kernels for and this processor has, the best last: it is used unless another is chosen."""
    has = ctypes.CDLL(str(LIBRARY_FILE)).vdiff_has_isa
    return [name for name in ("baseline", "avx2", "avx512") if has(name.encode())]


def instruction_set() -> str:
    """The one whose CPU kernels are in use."""
    name = ctypes.CDLL(str(LIBRARY_FILE)).vdiff_isa
    name.restype = ctypes.c_char_p
    return name().decode()


def use_instruction_set(name: str) -> None:
    """Chooses the CPU kernels, for tests and measurements; while none runs. Raises ValueError for one that is not there."""
    if name not in instruction_sets():
        raise ValueError(f"instruction set is {name!r}; expected one of {', '.join(instruction_sets())}")
    ctypes.CDLL(str(LIBRARY_FILE)).vdiff_use_isa(name.encode())


def has_kernel(name: str, dispatch_key: str) -> bool:
    """Whether a compiled kernel serves `vdiff_kernels::name` for "CPU" or "CUDA"."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{name}", dispatch_key)


def cuda_versions() -> tuple[int, int]:
    """(that of the CUDA runtime in the compiled library, the newest that the driver serves or 0 without one); 13000 is 13.0."""
    library = ctypes.CDLL(str(LIBRARY_FILE))
    return library.vdiff_cuda_runtime_version(), library.vdiff_cuda_driver_version()
