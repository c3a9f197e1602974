"""Where this runs, and whether the kernels may: what fails here ends the day."""

import hashlib
import platform
import shutil
import subprocess

import torch

from .... import library
from ....backends import gpu
from ....backends.registry import availability
from ....bench.place import installed_version, processor
from ..rows import Day

PACKAGES = ("triton", "diffusers", "matplotlib", "av", "typer")
PROGRAMS = ("ncu", "compute-sanitizer")


def run(day: Day) -> None:
    holds_cubins = b".nv_fatbin" in content()
    day.add("fact", "library", bytes=len(content()), sha256=digest(), holds_cubins=holds_cubins)
    state = availability(day.backend)
    day.add("fact", "availability", text=str(state))
    packages = {name: installed_version(name) for name in PACKAGES}
    versions = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda, **packages}
    day.add("fact", "versions", **versions)
    absent = [name for name, found in packages.items() if found is None] + [name for name in PROGRAMS if not shutil.which(name)]
    day.add("fact", "absent", names=absent)
    day.add("fact", "processor", processor=processor())
    assert state, f"{state}; {library.LIBRARY_FILE.name} {'holds' if holds_cubins else 'holds no'} CUDA kernels"
    if day.device.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        day.add(
            "fact", "gpu", gpu=gpu.name(0), multiprocessors=properties.multi_processor_count, L2_bytes=properties.L2_cache_size,
            bytes=properties.total_memory, cudnn=torch.backends.cudnn.version(), smi=smi(),
        )  # fmt: skip


def content() -> bytes:
    return library.LIBRARY_FILE.read_bytes() if library.LIBRARY_FILE.exists() else b""


def digest() -> str:
    """Of the compiled library."""
    return hashlib.sha256(content()).hexdigest()[:16]


def smi() -> str:
    fields = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,temperature.gpu"
    try:
        found = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv"], capture_output=True, text=True)
    except OSError as error:
        return str(error)
    return found.stdout.strip() or found.stderr.strip()
