"""Is there a GPU, are its kernels in the library, and may they run? What fails here ends the day."""

import hashlib
import importlib.util
import subprocess
from pathlib import Path

import torch

import vdiff_kernels as vdiff
from vdiff_kernels import library
from vdiff_kernels.backends import gpu

from .day import Day, first_line

ROOT = Path(__file__).resolve().parents[2]


def run(day: Day) -> None:
    content = library.LIBRARY_FILE.read_bytes() if library.LIBRARY_FILE.exists() else b""
    holds_cubins = b".nv_fatbin" in content
    digest = hashlib.sha256(content).hexdigest()[:16]
    day.add("fact", "library", bytes=len(content), sha256=digest, holds_cubins=holds_cubins)
    availability = vdiff.availability(day.backend)
    day.add("fact", "availability", text=str(availability))
    print(f"library holds cubins: {holds_cubins}\n{availability}")
    day.add("fact", "packages", benchmarks=found("benchmarks"))
    day.add("fact", "versions", torch=torch.__version__, cuda=torch.version.cuda, triton=triton_version())
    if day.device.type == "cuda":
        assert holds_cubins, f"{library.LIBRARY_FILE} was built without CUDA: VDIFF_CUDA=1 VDIFF_CUDA_ARCHS=90 make build"
        assert availability, str(availability)
        properties = torch.cuda.get_device_properties(0)
        day.add(
            "fact", "gpu", gpu=gpu.name(0), multiprocessors=properties.multi_processor_count, L2_bytes=properties.L2_cache_size,
            bytes=properties.total_memory, cudnn=torch.backends.cudnn.version(), smi=smi(),
        )  # fmt: skip


def found(module: str) -> str:
    """Whether it is this checkout's, for another project's package of that name would come first."""
    try:
        origin = Path(importlib.util.find_spec(module).origin)
    except (ImportError, AttributeError) as error:
        return first_line(error)
    return str(origin.relative_to(ROOT)) if origin.is_relative_to(ROOT) else "another project's"


def triton_version() -> str | None:
    try:
        import triton

        return triton.__version__
    except ImportError:
        return None


def smi() -> str:
    fields = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,temperature.gpu"
    found = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv"], capture_output=True, text=True)
    return found.stdout.strip() or found.stderr.strip()
