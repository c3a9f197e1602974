"""What ptxas makes of PTX: registers, spills, stack and shared memory of each kernel."""

import functools
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .compile import nvcc


@dataclass(frozen=True)
class Resources:
    registers: int  # of a thread
    spilled_bytes: int  # of a thread, stores and loads
    stack_bytes: int  # of a thread
    shared_bytes: int  # static


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
        number = {what: int((re.search(rf"(\d+) bytes {what}", text) or "00")[1]) for what in ("smem", "stack")}
        registers = int(re.search(r"Used (\d+) registers", text)[1])
        found[name] = Resources(registers, stores + loads, number["stack"], number["smem"])
    return found
