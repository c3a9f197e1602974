"""The compiled library: loading it, what it holds, and the instruction set that its CPU kernels use."""

import ctypes
import functools
import hashlib
import itertools
import os
from pathlib import Path

import torch

NAMESPACE = "vdiff_kernels"
FOLDER = Path(__file__).absolute().parent  # links not followed: in a cache of files each may lead to a folder of its own
LIBRARY_FILE = FOLDER / "_C.so"

# By (bytes of an element, whether frames share their keys), then by head dim: the longest sequences whose CUDA backward needs of
# forward neither out nor lse. csrc/attention/cuda/plan.h has the rule; `load` asks it for all, because torch.compile cannot trace
# a call by ctypes, while it reads a table, and compares symbolic lengths with what it finds there.
longest_short_backward: dict[tuple[int, bool], tuple[int, ...]] = {}
_MAX_HEAD_DIM = 256


def load() -> str | None:
    """Loads the compiled library, once, at import. Returns why it could not, or None."""
    if not LIBRARY_FILE.exists():
        return "the compiled library is missing: install with a C++ compiler at hand (pip install --no-build-isolation .)"
    try:
        torch.ops.load_library(LIBRARY_FILE)
    except OSError as error:
        return f"the compiled library did not load: {error}"
    try:
        longest = ctypes.CDLL(str(LIBRARY_FILE)).vdiff_attention_longest_short_bwd
    except AttributeError:
        return "the compiled library is of an older version: build it again"
    longest.argtypes, longest.restype = (ctypes.c_int64, ctypes.c_int64, ctypes.c_int), ctypes.c_int64
    for size, shared in itertools.product((2, 4, 8), (False, True)):
        longest_short_backward[size, shared] = tuple(longest(D, size, shared) for D in range(_MAX_HEAD_DIM + 1))
    wanted = os.environ.get("VDIFF_CPU_ISA")
    if wanted:
        try:
            use_instruction_set(wanted)
        except ValueError as error:
            return f"the environment variable VDIFF_CPU_ISA: {error}"
    return None


@functools.cache
def digest() -> str:
    """Of the file: another build has another."""
    return hashlib.sha256(LIBRARY_FILE.read_bytes()).hexdigest()[:16]


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
