"""What the Triton kernels take and move, without a GPU: simulated (tests/ptxsim), and compiled for five GPUs.

`python -m benchmarks.triton_static` prints a table of counts for each operator call in bfloat16, beside its floor, what the CUDA
kernels of the compiled library and eager PyTorch move for it, and one of each kernel's registers, occupancy and tensor cores.
Counts are facts, of an A100's code; they say nothing about time.
"""

import argparse
import importlib
import itertools
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from unittest import mock

import torch
import triton
from torch import Tensor

from tests.ptxsim.compile import TritonKernel, from_launch
from tests.ptxsim.report import Report
from vdiff_kernels.backends import registry
from vdiff_kernels.backends.triton import FUNCTIONS, launch, tuning
from vdiff_kernels.bench.counting import BytesMoved, bytes_of
from vdiff_kernels.bench.gpus import GPU, GPUS, RTX_5090
from vdiff_kernels.library import NAMESPACE
from vdiff_kernels.ops.call import described
from vdiff_kernels.ops.schema import Kernels

from . import gpu_static
from .gpu_static import Traffic
from .static_subjects import SUBJECTS, Subject, directions

TENSOR_MEMORY = 512  # columns of a multiprocessor, where there is one
EVERY = (*GPUS, RTX_5090)


def subjects(*dtypes: torch.dtype, only: str = "") -> Iterator[tuple[str, Subject]]:
    """Those that are served, each made when it is reached. only: those whose name has this in it."""
    for name, dtype in itertools.product((name for name in SUBJECTS if only in name), dtypes):
        subject = SUBJECTS[name](dtype)
        if is_served(subject):
            yield name, subject


def kernels_of(subject: Subject) -> Kernels:
    return registry.OPERATORS[subject.call.operator].kernels["triton"]


def is_served(subject: Subject) -> bool:
    """Whole, on a GPU."""
    return registry.BACKENDS["triton"].supports(described(subject.call, torch.device("cuda"))) is None


# ---------------------------------------------------------------------------------------------------------- what is launched


@dataclass
class Launch:
    """What backends/triton/launch.py was asked for."""

    kernel: object
    programs: int
    arguments: tuple
    constants: dict
    num_warps: int
    num_stages: int
    report: Report | None = field(default=None, repr=False)

    def compiled(self, arch: int) -> tuple[TritonKernel, list]:
        return from_launch(self.kernel, self.arguments, self.constants, self.num_warps, self.num_stages, arch=arch)

    def __str__(self) -> str:
        dtype = next(str(t.dtype) for t in self.arguments if isinstance(t, Tensor)).removeprefix("torch.")
        constants = " ".join(f"{name}={value}" for name, value in self.constants.items())
        return f"{self.kernel.fn.__name__} {dtype} {constants}, {self.num_warps} warps, {self.num_stages} stages"


@contextmanager
def captured(simulate: bool, number: int = 0) -> Iterator[list[Launch]]:
    """The launches that are made within, in a list that grows: simulated, or not run at all. number: of the configuration that
    is taken of each kernel's list, or of its last.
    """
    launches: list[Launch] = []

    def run(*asked):
        one = Launch(*asked)
        if simulate:
            compiled, left = one.compiled(80)
            one.report = compiled.launch(one.programs, *left).assert_clean()
        launches.append(one)

    def chosen(kernel, key, configs, run, index):
        return configs[min(number, len(configs) - 1)]

    with mock.patch.object(launch, "runner", run), mock.patch.object(tuning, "chosen", chosen):
        yield launches


def launches_of(subject: Subject, direction: str, simulate: bool = False, number: int = 0) -> list[Launch]:
    """Of one direction of a call; a kernel that is not simulated leaves its results as they were allocated."""
    with captured(simulate, number) as launches, torch.no_grad():
        subject.serve(kernels_of(subject), direction, launches.clear)
    return launches


class OfTheLibrary(BytesMoved):
    """Counts what PyTorch's own operators move within ours: the products that are left to them, casts, sums."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == NAMESPACE:
            module, name = FUNCTIONS[function._schema.name.partition("::")[2].replace("_triton", "")]
            with self:
                return getattr(importlib.import_module(f"vdiff_kernels.backends.triton.{module}"), name)(*args)
        if "empty" in function.overloadpacket.__name__:
            return function(*args, **(kwargs or {}))
        return super().__torch_dispatch__(function, types, args, kwargs)


def library_bytes(subject: Subject, direction: str) -> int:
    """On meta tensors: nothing is computed."""
    call = subject.call.ready()
    call = call.holding(tuple(None if t is None else t.to("meta") for t in call.tensors()))
    with captured(False), torch.no_grad(), OfTheLibrary() as counter:

        def forward_is_done():
            counter.bytes = 0

        subject.serve(kernels_of(subject), direction, forward_is_done, call)
    return counter.bytes


# -------------------------------------------------------------------------------------------------------------------- counts


@dataclass
class Row(Traffic):
    """The counts of one call in one direction; bytes are over its floor."""

    name: str
    direction: str
    library: float  # what PyTorch's operators move beside our launches
    cuda: float | None  # unique sectors of the CUDA kernels' launches
    cuda_instructions: int | None
    eager: float
    kernels: list[str]


def measure(name: str, subject: Subject, direction: str, recorder: gpu_static.Recorder | None) -> Row:
    """recorder: None leaves the CUDA kernels out."""
    floor, flops = subject.work(direction)
    launches = launches_of(subject, direction, simulate=True)
    cuda = recorder and gpu_static.measure(name, subject, direction, recorder)
    return Row.of(
        [one.report for one in launches], floor, flops, name=name, direction=direction,
        library=library_bytes(subject, direction) / floor,
        cuda=cuda and cuda.unique, cuda_instructions=cuda and cuda.instructions,
        eager=bytes_of(subject.eager, *subject.given, backward=direction == "backward") / floor,
        kernels=[one.kernel.fn.__name__ for one in launches],
    )  # fmt: skip


def print_counts(only: str, with_cuda: bool) -> list[Row]:
    """The rows, each printed as soon as it is measured."""
    columns = (
        "call",
        "floor",
        "unique sectors",
        "PyTorch's part",
        "sectors/request",
        "all requests",
        "16-byte",
        "tensor-core flops",
    )
    columns += "wavefronts", "warp instructions", "cuda: unique sectors", "cuda: instructions", "eager"
    _print_head(columns)
    recorder, rows = gpu_static.Recorder(GPUS[:1]) if with_cuda else None, []
    for name, subject in subjects(torch.bfloat16, only=only):
        for direction in directions(kernels_of(subject)):
            cuda = recorder if subject.call.operator in gpu_static.OPERATORS else None
            row = measure(name, subject, direction, cuda)
            rows.append(row)
            cells = [
                f"{row.name}, {row.direction}", f"{row.floor_bytes / 1024:,.0f} KiB", f"{row.unique:.3f}", _or_none(row.library),
                f"{row.request:.3f}", f"{row.passes:.2f}", f"{row.wide:.0%}", "-" if row.mma is None else f"{row.mma:.2f}x",
                f"{row.wavefronts:.3f}", f"{row.instructions:,}", _or_none(row.cuda),
                "-" if row.cuda is None else f"{row.cuda_instructions:,}", f"{row.eager:.2f}",
            ]  # fmt: skip
            print(f"| {' | '.join(cells)} |", flush=True)
    print(
        "\nBytes and sectors over the floor. PyTorch's part: what its operators move within the call, beside our kernels, whose"
    )
    print("instructions are not counted; eager: what PyTorch's layers move for the same call. -: none.")
    return rows


def _print_head(columns) -> None:
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")


def _or_none(value: float | None) -> str:
    return f"{value:.3f}" if value else "-"


# ------------------------------------------------------------------------------------------------------------------- kernels


@dataclass(frozen=True)
class Figures:
    """What a kernel takes on one GPU."""

    registers: int  # of a thread
    stack_bytes: int  # of a thread: what is spilled lies there
    shared_bytes: int  # of a block
    occupancy: float  # the share of a multiprocessor's warps
    tensor: str  # instructions of tensor cores in the code
    wide: tuple[int, int]  # global accesses in the code that are of 16 bytes, of all


def figures_of(one: Launch, gpu: GPU) -> Figures:
    kernel, _ = one.compiled(gpu.arch)
    ptx, metadata = kernel.compiled.asm["ptx"], kernel.compiled.metadata
    taken = _taken(kernel.compiled.asm["cubin"])
    blocks = gpu.blocks_at_once(taken["REG"], kernel.threads, metadata.shared)
    if metadata.tmem_size:
        blocks = min(blocks, TENSOR_MEMORY // metadata.tmem_size)
    warps = gpu.threads // 32
    counted = {name: len(re.findall(rf"\b{re.escape(name)}", ptx)) for name in ("mma.sync", "wgmma.mma_async", "tcgen05.mma")}
    return Figures(
        taken["REG"], taken["STACK"] + taken["LOCAL"], metadata.shared, blocks * metadata.num_warps / warps,
        " ".join(f"{name.partition('.')[0]} {number}" for name, number in counted.items() if number), _wide(ptx),
    )  # fmt: skip


def _taken(cubin: bytes) -> dict[str, int]:
    """What Triton's ptxas says of a kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}


def _wide(ptx: str) -> tuple[int, int]:
    loads_and_stores = re.findall(r"\b(?:ld|st)\.global[.:\w]*?(?:\.v(\d))?\.[bfus](\d+)\b", ptx)
    copies = re.findall(r"\bcp\.async\.c[ag]\.shared\.global[.:\w]*\s*\[.*?\],\s*\[.*?\],\s*(\w+)", ptx)
    widths = [*(int(count or 1) * int(bits) // 8 for count, bits in loads_and_stores), *(int(size, 0) for size in copies)]
    return sum(width >= 16 for width in widths), len(widths)


def print_kernels(only: str, gpus: tuple[GPU, ...]) -> dict[str, dict[str, Figures]]:
    """Each kernel of a call, once, by its name and a GPU's."""
    each = " / ".join(gpu.name for gpu in gpus)
    print(f"\nOn {each}, once where all are the same:\n")
    _print_head(("kernel", "registers", "stack", "shared memory, KiB", "warps at once", "tensor cores", "16-byte accesses"))
    found: dict[str, dict[str, Figures]] = {}
    for _, subject in subjects(torch.bfloat16, torch.float32, only=only):
        for one in (one for direction in directions(kernels_of(subject)) for one in launches_of(subject, direction)):
            if str(one) in found:
                continue
            taken = found[str(one)] = {gpu.name: figures_of(one, gpu) for gpu in gpus}
            cells = [
                [str(t.registers) for t in taken.values()], [str(t.stack_bytes) for t in taken.values()],
                [f"{t.shared_bytes / 1024:.1f}" for t in taken.values()], [f"{t.occupancy:.0%}" for t in taken.values()],
                [t.tensor or "-" for t in taken.values()], [f"{t.wide[0]} of {t.wide[1]}" for t in taken.values()],
            ]  # fmt: skip
            print(f"| {one} | {' | '.join(cell[0] if len(set(cell)) == 1 else ' / '.join(cell) for cell in cells)} |", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="calls whose text has this in it")
    parser.add_argument("--no-counts", action="store_true", help="the table of kernels alone")
    parser.add_argument("--no-cuda", action="store_true", help="without the compiled library's, which take long to compile")
    parser.add_argument("--json", metavar="FILE", help="both tables, as JSON")
    options = parser.parse_args()
    torch.manual_seed(0)
    if not any(options.only in name for name in SUBJECTS):
        parser.error(f"--only is {options.only!r}; expected a part of one of: {'; '.join(SUBJECTS)}")
    rows = [] if options.no_counts else print_counts(options.only, not options.no_cuda)
    kernels = print_kernels(options.only, EVERY)
    if options.json:
        data = {
            "calls": [asdict(row) for row in rows],
            "kernels": {name: {gpu: asdict(one) for gpu, one in taken.items()} for name, taken in kernels.items()},
        }
        with open(options.json, "w") as file:
            json.dump(data, file, indent=1)


if __name__ == "__main__":
    main()
