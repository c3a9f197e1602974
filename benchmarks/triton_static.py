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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from unittest import mock

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from tests.ptxsim.compile import TritonKernel, from_launch
from tests.ptxsim.report import Report
from vdiff_kernels.backends import registry
from vdiff_kernels.backends.triton import FUNCTIONS, launch, tuning
from vdiff_kernels.bench.counting import BytesMoved, bytes_of
from vdiff_kernels.bench.gpus import GPU, GPUS, RTX_5090
from vdiff_kernels.bench.rivals import Frames, eager
from vdiff_kernels.bench.rooflines import work
from vdiff_kernels.library import NAMESPACE
from vdiff_kernels.ops.attention.call import AttentionCall, AttentionOptions, LayerCall
from vdiff_kernels.ops.call import Call, described
from vdiff_kernels.ops.conv.call import ConvCall
from vdiff_kernels.ops.feedforward.call import GegluCall
from vdiff_kernels.ops.linear.call import LinearCall
from vdiff_kernels.ops.norm.call import Norm, NormCall, StatsCall

from . import gpu_static

SECTOR = 32
TENSOR_MEMORY = 512  # columns of a multiprocessor, where there is one
EVERY = (*GPUS, RTX_5090)


@dataclass(frozen=True)
class Subject:
    """A call of a public operator, as small as its ratios allow, and what its rivals do with the same tensors."""

    call: Call
    eager: Callable[..., Tensor]
    given: tuple[Tensor, ...]  # to eager
    cuda: gpu_static.Call | None = None  # the same call of the compiled library, where that has it

    @property
    def directions(self) -> tuple[str, ...]:
        return ("forward", "backward") if self.kernels.backward else ("forward",)

    @property
    def kernels(self):
        return registry.OPERATORS[self.call.operator].kernels["triton"]

    @property
    def is_served(self) -> bool:
        """Whole, on a GPU."""
        return registry.BACKENDS["triton"].supports(described(self.call, torch.device("cuda"))) is None

    def work(self, direction: str) -> tuple[float, float]:
        """(bytes, flops) of the direction alone."""
        alone, both = work(self.call), work(self.call, True)
        if direction == "forward":
            return alone.bytes, alone.flops
        return both.bytes - alone.bytes, both.flops - alone.flops


def attention(*shape, **options) -> Callable[[torch.dtype], Subject]:
    def subject(dtype):
        made = gpu_static.Call(*shape, **options, dtype=str(dtype).removeprefix("torch."))
        (q, k, v), (bias, rel_bias) = made.tensors(), made.table()
        layout, given = made.for_rivals(q, k, v)
        call = AttentionCall(f"{made.kind}_attention", q, k, v, AttentionOptions(bias, rel_bias))
        return Subject(call, eager(layout), tuple(given), made)

    return subject


def temporal_layer(T: int, size: int, C: int, N: int):
    """As in a block of attention: a layer norm, the projections, the sum."""

    def subject(dtype):
        x = image(dtype, T, size, C).movedim(1, -1)
        weights = [torch.randn(*shape).to(dtype) for shape in ((3 * C, C), (3 * C,), (C, C), (C,))]
        given = Norm("layer", torch.rand(C), torch.rand(C))
        call = LayerCall("temporal_layer", x, *weights, N, given, None, None, x, AttentionOptions())

        def by_pytorch(x, w_qkv, b_qkv, w_out, b_out, norm_weight, norm_bias):
            h = F.layer_norm(x, (C,), norm_weight, norm_bias)
            q, k, v = F.linear(h, w_qkv, b_qkv).unflatten(-1, (3, N, C // N)).unbind(4)
            return x + F.linear(eager(Frames)(q, k, v).flatten(-2), w_out, b_out)

        return Subject(call, by_pytorch, (x, *weights, given.weight.to(dtype), given.bias.to(dtype)))

    return subject


def image(dtype, T: int, size: int, C: int) -> Tensor:
    return torch.randn(1, T, size, size, C).to(dtype).movedim(-1, 1)


def group_norm(C: int) -> Norm:
    return Norm("group", torch.rand(C), torch.rand(C), groups=32)


def frames(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(0, 1)


def statistics(T: int, size: int, C: int):
    def by_pytorch(x):
        return torch.stack(torch.var_mean(x.float(), (3, 4), correction=0), -1)

    def subject(dtype):
        x = image(dtype, T, size, C)
        return Subject(StatsCall("channel_stats", x), by_pytorch, (x,))

    return subject


def norm(T: int, size: int, C: int, kind: str = "group"):
    def subject(dtype):
        x = image(dtype, T, size, C)
        weight, bias = (torch.rand(C).to(dtype) for _ in range(2))
        given = group_norm(C) if kind == "group" else Norm(kind, torch.rand(C), torch.rand(C))

        def by_pytorch(x, weight, bias):
            if kind == "group":
                return F.silu(F.group_norm(frames(x), 32, weight, bias))
            return F.silu(F.layer_norm(x.movedim(1, -1), (C,), weight, bias))

        return Subject(NormCall("norm_act", x, given, "silu"), by_pytorch, (x, weight, bias))

    return subject


def conv(T: int, size: int, C: int, *taps: int):
    """As in a residual block: with its norm, the time's embedding and the sum."""

    def subject(dtype):
        x, residual = image(dtype, T, size, C), image(dtype, T, size, C)
        weight, bias = torch.randn(C, C, *taps).to(dtype), torch.randn(C).to(dtype)
        given, temb = group_norm(C), torch.randn(1, T, C).to(dtype)
        call = ConvCall("norm_act_conv", x, weight, bias, given, "silu", temb, residual)
        parameters = given.weight.to(dtype), given.bias.to(dtype)

        def by_pytorch(x, weight, bias, temb, residual, norm_weight, norm_bias):
            h = F.silu(F.group_norm(frames(x), 32, norm_weight, norm_bias)).unflatten(0, (1, T)).transpose(1, 2)
            h = F.conv3d(h, weight, bias, padding=tuple(tap // 2 for tap in taps))
            return residual + (h + temb.transpose(1, 2)[..., None, None])

        return Subject(call, by_pytorch, (x, weight, bias, temb, residual, *parameters))

    return subject


def linear(T: int, size: int, C: int, Co: int):
    """As before an attention: a layer norm and a product."""

    def subject(dtype):
        x, weight = image(dtype, T, size, C).movedim(1, -1), torch.randn(Co, C).to(dtype)
        given = Norm("layer", torch.rand(C), torch.rand(C))
        parameters = given.weight.to(dtype), given.bias.to(dtype)

        def by_pytorch(x, weight, *parameters):
            return F.linear(F.layer_norm(x, (C,), *parameters), weight)

        return Subject(LinearCall("norm_linear", x, weight, None, given), by_pytorch, (x, weight, *parameters))

    return subject


def geglu(M: int, C: int):
    def by_pytorch(x, weight, bias):
        a, b = F.linear(x, weight, bias).chunk(2, -1)
        return a * F.gelu(b)

    def subject(dtype):
        given = torch.randn(M, C).to(dtype), torch.randn(8 * C, C).to(dtype), torch.randn(8 * C).to(dtype)
        return Subject(GegluCall("geglu", *given), by_pytorch, given)

    return subject


SUBJECTS = {
    "temporal_attention T16 H8 W4 N8 D64, rel bias": attention("temporal", 16, 8, 4, 8, 64, bias="rel"),
    "temporal_attention T16 H8 W4 N8 D40, rel bias": attention("temporal", 16, 8, 4, 8, 40, bias="rel"),
    "temporal_attention T64 H2 W4 N2 D64, rel bias": attention("temporal", 64, 2, 4, 2, 64, bias="rel"),
    "spatial_attention 32x32 N1 D64, rel bias": attention("spatial", 1, 32, 32, 1, 64, bias="rel"),
    "spatial_attention T2 16x16 N2 D64, context of 77": attention("spatial", 2, 16, 16, 2, 64, context=77),
    "temporal_layer T16 8x8 C128 N4": temporal_layer(16, 8, 128, 4),
    "channel_stats T2 32x32 C320": statistics(2, 32, 320),
    "norm_act T2 32x32 C320, group, silu": norm(2, 32, 320),
    "norm_act T2 32x32 C320, layer, silu": norm(2, 32, 320, "layer"),
    "norm_act_conv 1x3x3 T1 16x16 C320": conv(1, 16, 320, 1, 3, 3),
    "norm_act_conv 1x3x3 T1 32x32 C64": conv(1, 32, 64, 1, 3, 3),
    "norm_act_conv 3x1x1 T4 16x16 C320": conv(4, 16, 320, 3, 1, 1),
    "norm_linear T1 32x32 C320 to 960, layer": linear(1, 32, 320, 960),
    "geglu M512 C320 E1280": geglu(512, 320),
}


def subjects(*dtypes: torch.dtype, only: str = "") -> Iterator[tuple[str, Subject]]:
    """Those that are served, each made when it is reached. only: those whose name has this in it."""
    for name, dtype in itertools.product((name for name in SUBJECTS if only in name), dtypes):
        subject = SUBJECTS[name](dtype)
        if subject.is_served:
            yield name, subject


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
        _serve(subject, subject.call.ready(), direction, launches.clear)
    return launches


def _serve(subject: Subject, call: Call, direction: str, forward_is_done: Callable[[], None]) -> None:
    out, saved = subject.kernels.forward(call, direction == "backward")
    if direction == "backward":
        grad_out, needs = torch.ones_like(out), [t is not None and t.is_floating_point() for t in call.tensors()]
        forward_is_done()
        subject.kernels.backward(call, saved, grad_out, needs)


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

        _serve(subject, call, direction, forward_is_done)
    return counter.bytes


# -------------------------------------------------------------------------------------------------------------------- counts


@dataclass
class Row:
    """The counts of one call in one direction; bytes are over its floor."""

    name: str
    direction: str
    floor_bytes: float  # each operand read once, each result written once; of a group norm, twice
    unique: float  # unique sectors of our launches
    library: float  # what PyTorch's operators move beside them
    request: float  # sectors of the requests over those that their bytes would fill
    passes: float  # sectors of all requests
    wide: float  # the share of global requests that are of 16 bytes a lane
    mma: float | None  # flops of the tensor cores over those of the math
    wavefronts: float  # of shared memory, over the ideal
    instructions: int  # of warps
    cuda: float | None  # unique sectors of the compiled library's launches
    cuda_instructions: int | None
    eager: float
    kernels: list[str]


def measure(name: str, subject: Subject, direction: str, recorder: gpu_static.Recorder | None) -> Row:
    """recorder: None leaves the compiled library out."""
    floor, flops = subject.work(direction)
    launches = launches_of(subject, direction, simulate=True)
    counts = [one.report.counts for one in launches]
    total = [c.total for c in counts]

    def sum_of(values) -> int:
        return max(1, sum(values))

    cuda = gpu_static.measure(subject.cuda, direction, recorder) if recorder and subject.cuda else None
    return Row(
        name, direction, floor,
        sum(c.unique_read_sectors + c.unique_written_sectors for c in counts) * SECTOR / floor,
        library_bytes(subject, direction) / floor,
        sum(t.sectors for t in total) / sum_of(t.ideal_sectors for t in total),
        sum(t.sectors for t in total) * SECTOR / floor,
        sum(c.wide_global for c in counts) / sum_of(t.requests for t in total),
        sum(c.mma_flops for c in counts) / flops if flops else None,
        sum(t.wavefronts for t in total) / sum_of(t.ideal_wavefronts for t in total),
        sum(sum(c.instructions.values()) for c in counts),
        cuda and cuda.unique * cuda.floor_bytes / floor, cuda and cuda.instructions,
        bytes_of(subject.eager, *subject.given, backward=direction == "backward") / floor,
        [one.kernel.fn.__name__ for one in launches],
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
        for direction in subject.directions:
            row = measure(name, subject, direction, recorder)
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
        for one in (one for direction in subject.directions for one in launches_of(subject, direction)):
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
