"""What ptxas makes of PTX: registers, spills and shared memory of each kernel; how many blocks a multiprocessor then holds."""

import functools
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .compile import nvcc

# Of a multiprocessor of compute capability 8.0 (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
SM80_REGISTERS, SM80_SHARED, SM80_THREADS, SM80_BLOCKS = 65536, 164 * 1024, 2048, 32
SHARED_OF_A_BLOCK = 1024  # that the system takes of each block's share
REGISTER_UNIT = 256  # registers of a warp are given out in this many


@dataclass(frozen=True)
class Resources:
    registers: int  # of a thread
    spilled_bytes: int  # of a thread, stores and loads
    shared_bytes: int  # static

    def blocks_of_sm80(self, threads: int, dynamic_shared: int = 0) -> int:
        """How many blocks of so many threads a multiprocessor holds at once."""
        warps = -(-threads // 32)
        of_warp = -(-self.registers * 32 // REGISTER_UNIT) * REGISTER_UNIT
        shared = -(-(self.shared_bytes + dynamic_shared + SHARED_OF_A_BLOCK) // 128) * 128
        return min(SM80_REGISTERS // (of_warp * warps), SM80_SHARED // shared, SM80_THREADS // threads, SM80_BLOCKS)


@functools.cache
def ptxas() -> str:
    """The path of ptxas: beside nvcc, on PATH, or Triton's. Raises FileNotFoundError."""
    beside = Path(nvcc()).resolve().with_name("ptxas")
    if beside.exists():
        return str(beside)
    found = shutil.which("ptxas")
    if found is None:
        raise FileNotFoundError("no ptxas beside nvcc, nor on PATH")
    return found


@functools.cache
def version() -> str:
    """Of ptxas, such as "13.0.88"."""
    text = subprocess.run([ptxas(), "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"V([\d.]+)", text)[1]


@functools.lru_cache(maxsize=64)
def resources(ptx: str, arch: int = 80) -> dict[str, Resources]:
    """By the name of each kernel. Raises CalledProcessError where ptxas refuses the PTX."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ptx")
        path.write_text(ptx)
        command = [ptxas(), "-v", f"-arch=sm_{arch}", str(path), "-o", os.devnull]
        return parsed_resources(subprocess.run(command, capture_output=True, text=True, check=True).stderr)


def parsed_resources(log: str) -> dict[str, Resources]:
    """What `ptxas -v` says, by the name of each kernel."""
    found = {}
    for name, text in re.findall(r"Compiling entry function '(.+?)'(.*?)(?=Compiling entry function|\Z)", log, re.S):
        stores, loads = map(int, re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", text).groups())
        shared = re.search(r"(\d+) bytes smem", text)
        found[name] = Resources(int(re.search(r"Used (\d+) registers", text)[1]), stores + loads, int(shared[1]) if shared else 0)
    return found
