"""What the CUDA attention kernels take and move, without a GPU: simulated (tests/ptxsim), and compiled for four GPUs.

`python -m benchmarks.gpu_static` prints a table of counts for each operator call, beside the floor and the bytes that eager
PyTorch and its fused SDPA move for the same call, and one of registers and occupancy. Counts are facts. The last table is an
estimate: the roofline that the counts leave room for, blind to latency, which `vdiff verify` measures.
"""

import argparse
import json
from dataclasses import asdict, dataclass, field

import torch

from tests.ops.attention.simulated import SimulatedKernels
from tests.ptxsim.launcher import plain_name
from tests.ptxsim.module import tensors_of
from tests.ptxsim.registers import resources
from vdiff_kernels.bench.counting import bytes_of
from vdiff_kernels.bench.gpus import GPUS
from vdiff_kernels.bench.rivals import Frames, Pixels, eager, efficient
from vdiff_kernels.library import longest_short_backward
from vdiff_kernels.ops.attention.call import AttentionCall, AttentionOptions
from vdiff_kernels.ops.attention.schema import attention_kernels, cuda_backward_needs

SECTOR = 32
BARS = {"unique": 1.02, "request": 1.05, "wavefronts": 1.10}


@dataclass(frozen=True)
class Call:
    """One call of an operator, as small as its ratios allow: only the bias gradient's partials know the number of sequences."""

    kind: str
    T: int
    H: int
    W: int
    N: int
    D: int
    B: int = 1
    bias: str | None = None  # "rel", "dense"
    context: int = 0  # shared by the frames
    dtype: str = "bfloat16"

    def __str__(self) -> str:
        shape = f"B{self.B} T{self.T} H{self.H} W{self.W} N{self.N} D{self.D}"
        more = [f"{self.bias} bias" if self.bias else "", f"S{self.context}" if self.context else ""]
        return " ".join(word for word in [self.kind, self.dtype, shape, *more] if word)

    def tensors(self):
        dtype = getattr(torch, self.dtype)
        q = torch.randn(self.B, self.T, self.H, self.W, self.N, self.D).to(dtype)
        keys = (self.B, self.context, self.N, self.D) if self.context else q.shape
        k, v = (torch.randn(keys).to(dtype) for _ in range(2))
        return q, k, v

    def table(self):
        """(bias, rel_bias)"""
        if self.kind == "temporal":
            dense, relative = (self.N, self.T, self.T), (self.N, 2 * self.T - 1)
        else:
            dense, relative = (self.N, self.H * self.W, self.H * self.W), (self.N, 2 * self.H - 1, 2 * self.W - 1)
        return torch.randn(dense) if self.bias == "dense" else None, torch.randn(relative) if self.bias == "rel" else None

    def for_rivals(self, q, k, v):
        """(layout, arguments) of rivals.eager and its like: a bias is dense, a context is in every frame."""
        _, L, S = self.lengths
        if self.context:
            k, v = (t[:, None].expand(-1, self.T, -1, -1, -1) for t in (k, v))
        dense = [torch.empty(self.N, L, S)] if self.bias else []
        return Frames if self.kind == "temporal" else Pixels, [q, k, v, *dense]

    @property
    def is_long(self) -> bool:
        longest = longest_short_backward[getattr(torch, self.dtype).itemsize, bool(self.context)][self.D]
        return max(self.lengths[1:]) > longest

    @property
    def lengths(self) -> tuple[int, int, int]:
        """(sequences, queries, keys)"""
        pixels = self.H * self.W
        if self.kind == "temporal":
            return self.B * pixels * self.N, self.T, self.T
        return self.B * self.T * self.N, pixels, self.context or pixels


CALLS = [
    Call("temporal", 16, 32, 32, 8, 64, bias="rel"),
    Call("temporal", 16, 64, 32, 8, 40, bias="rel"),
    Call("temporal", 16, 4, 8, 8, 80),
    Call("temporal", 16, 4, 8, 8, 160),
    Call("temporal", 8, 16, 16, 8, 64, bias="rel"),
    Call("temporal", 24, 4, 8, 8, 64),
    Call("temporal", 32, 32, 32, 8, 32, bias="rel"),
    Call("temporal", 16, 16, 16, 8, 64, bias="rel", dtype="float32"),
    Call("temporal", 64, 2, 4, 2, 64, bias="rel"),
    Call("spatial", 1, 16, 16, 2, 64),
    Call("spatial", 1, 32, 32, 1, 64),
    Call("spatial", 4, 16, 16, 1, 64, bias="rel"),
    Call("spatial", 1, 16, 16, 1, 64, bias="dense"),
    Call("spatial", 1, 16, 16, 2, 40),
    Call("spatial", 1, 16, 16, 1, 128),
    Call("spatial", 2, 16, 16, 2, 64, context=77),
    Call("spatial", 1, 16, 16, 1, 64, dtype="float32"),
]

# Why a row misses a bar, where it may: (bar, of which rows, why).
REASONS = [
    (
        "unique", lambda row: row.call.is_long and row.direction == "backward",
        "Backward of long sequences is two kernels, three with a bias gradient, and each reads q, k, v and dout: no gradient is "
        "added up by atomics. It is bound by flops, not by bytes, from some hundreds of keys on.",
    ),
    (
        "request", lambda row: row.call.is_long and row.call.D * row.element % SECTOR != 0,
        "A head's row is no whole number of sectors, and a block of the long kernels has one head: the block beside it "
        "reads the rest of the sector, which comes from L2 (unique sectors are at the floor).",
    ),
    (
        "request", lambda row: row.call.bias is not None or row.direction == "backward",
        "Loads of 4 bytes a lane (entries of the bias, partials of its gradient, the log-sum-exp) that begin within a sector.",
    ),
    (
        "wavefronts", lambda row: row.call.is_long and row.call.D * row.element // 16 % 8 != 0,
        "Rows of a number of 16-byte pieces that is no multiple of 8, copied as they lie: a quarter warp's pieces meet in a "
        "bank.",
    ),
    (
        "wavefronts", lambda row: row.call.D * row.element // 16 % 2 == 1,
        "Rows of an odd number of 16-byte pieces, as D = 40 has: where a quarter warp goes from one row to another, two of its "
        "pieces meet in a bank.",
    ),
    (
        "wavefronts", lambda row: row.direction == "backward" and row.call.bias == "rel",
        "Folding the bias gradient by offset, once a warp or block: lanes walk the diagonals of a tile in shared memory, which "
        "meet in banks. Its share falls with the number of sequences a warp has: these calls are small.",
    ),
]  # fmt: skip


@dataclass
class Launch:
    """A kernel of a call: its counts, and what it takes on each GPU."""

    kernel: str
    blocks: int
    threads: int
    shared_bytes: int
    registers: dict[str, int]
    spilled_bytes: int
    stack_bytes: int
    occupancy: dict[str, float]
    report: object = field(repr=False)


class Recorder:
    """Runs launches as SimulatedKernels wants them run, and keeps what they did and what they take on each of the GPUs."""

    def __init__(self, gpus=GPUS):
        self.gpus = gpus
        self.launches: list[Launch] = []
        self._figures: dict[tuple[str, int], dict] = {}

    def _takes(self, launchers, kernel, gpu):
        if gpu.arch == 80:
            return launchers.kernel(kernel.name)[1]
        key = kernel.module.text, gpu.arch
        if key not in self._figures:
            self._figures[key] = resources(*key)
        return self._figures[key][kernel.name]

    def __call__(self, launchers, function, *arguments, memory=()):
        tensors = (*memory, *tensors_of(arguments))

        def run(kernel, grid, block, args, shared_bytes):
            report = kernel.launch(grid, block, args, shared_bytes, memory=tensors).assert_clean()
            takes = {gpu.name: self._takes(launchers, kernel, gpu) for gpu in self.gpus}
            threads = block[0]
            self.launches.append(
                Launch(
                    plain_name(kernel.name), grid[0], threads, shared_bytes,
                    {name: one.registers for name, one in takes.items()},
                    max(one.spilled_bytes for one in takes.values()), max(one.stack_bytes for one in takes.values()),
                    {
                        gpu.name: gpu.occupancy(one.registers, threads, one.shared_bytes + shared_bytes)
                        for gpu, one in zip(self.gpus, takes.values())
                    }, report,
                )
            )  # fmt: skip

        with launchers.simulated(run):
            launchers.call(function, *arguments)


@dataclass
class Row:
    """The counts of one call in one direction, over its floor."""

    call: Call
    direction: str
    floor_bytes: int  # each operand read once, each result written once
    unique: float  # unique sectors
    request: float  # sectors of the requests over those that their bytes would fill
    passes: float  # sectors of all requests, over the floor: what L1 and L2 serve
    wide: float  # the share of global requests that are of 16 bytes a lane
    mma: float  # flops of the tensor cores over those of the math; 0: FFMA
    wavefronts: float  # of shared memory, over the ideal
    barriers: float  # of a block
    instructions: int  # of warps
    flops: int
    eager_bytes: float
    sdpa_bytes: float
    launches: list[Launch] = field(repr=False)

    @property
    def element(self) -> int:
        return getattr(torch, self.call.dtype).itemsize

    @property
    def name(self) -> str:
        return f"{self.call}, {self.direction}"

    def misses(self) -> dict[str, int | None]:
        """The bars that it misses, and the number of the reason in REASONS, from 1; None where there is none."""
        missed = [name for name, bar in BARS.items() if round(getattr(self, name), 3) > bar]
        return {name: next((i for i, (bar, of, _) in enumerate(REASONS, 1) if bar == name and of(self)), None) for name in missed}


def measure(call: Call, direction: str, recorder: Recorder) -> Row:
    simulated = SimulatedKernels(recorder)
    kernels = attention_kernels(simulated.forward[call.kind], simulated.backward[call.kind], cuda_backward_needs)
    (q, k, v), (bias, rel_bias) = call.tensors(), call.table()
    made = AttentionCall(f"{call.kind}_attention", q, k, v, AttentionOptions(bias, rel_bias))
    recorder.launches = []
    forward = direction == "forward"
    out, saved = kernels.forward(made, not forward)
    sequences, L, S = call.lengths
    table = bias if rel_bias is None else rel_bias
    if forward:
        operands = [q, k, v, out] + ([] if table is None else [table])
    else:
        recorder.launches = []
        kernels.backward(made, saved, torch.randn_like(q), [True] * len(made.tensors()))
        operands = [q, k, v, q, q, k, v] + [t for t in saved if t is not None] + ([] if table is None else [table, table])
    floor = sum(t.numel() * t.element_size() for t in operands)
    flops = (4 if forward else 10) * sequences * L * S * call.D

    counts = [launch.report.counts for launch in recorder.launches]
    total = [c.total for c in counts]
    whole = sum(c.unique_read_sectors + c.unique_written_sectors for c in counts)
    shared_ideal, sectors_ideal = sum(t.ideal_wavefronts for t in total), sum(t.ideal_sectors for t in total)
    layout, arguments = call.for_rivals(q, k, v)
    theirs = [bytes_of(make(layout), *arguments, backward=not forward) / floor for make in (eager, efficient)]
    return Row(
        call, direction, floor, whole * SECTOR / floor, sum(t.sectors for t in total) / max(1, sectors_ideal),
        sum(t.sectors for t in total) * SECTOR / floor, sum(c.wide_global for c in counts) / sum(t.requests for t in total),
        sum(c.mma_flops for c in counts) / flops, sum(t.wavefronts for t in total) / max(1, shared_ideal),
        sum(c.barriers / launch.blocks for c, launch in zip(counts, recorder.launches)),
        sum(sum(c.instructions.values()) for c in counts), flops, *theirs, list(recorder.launches),
    )  # fmt: skip


def measure_and_print(calls: list[Call]) -> list[Row]:
    """The rows, each printed as soon as it is measured."""
    print("| call | floor | unique sectors | sectors/request | all requests | 16-byte | tensor-core flops | wavefronts ", end="")
    print("| barriers | eager | SDPA |\n" + "|---" * 11 + "|")
    recorder, rows = Recorder(), []
    for call in calls:
        for direction in ("forward", "backward"):
            rows.append(measure(call, direction, recorder))
            print(counts_of(rows[-1]), flush=True)
    bars = ", ".join(f"{name} {bar:.2f}" for name, bar in BARS.items())
    print(f"\nBytes and sectors over the floor; eager and SDPA: what they move, over the same floor. ✗: above its bar ({bars}).")
    missed = {number for row in rows for number in row.misses().values()}
    for number, (_, _, why) in enumerate(REASONS, 1):
        if number in missed:
            print(f"✗{number}: {why}")
    if None in missed:
        print("✗?: not explained yet.")
    return rows


def counts_of(row: Row) -> str:
    marked = {name: f"{getattr(row, name):.3f}" for name in BARS}
    for name, number in row.misses().items():
        marked[name] += f" ✗{number or '?'}"
    mma = f"{row.mma:.2f}x" if row.mma else "FFMA"
    cells = [
        row.name, f"{row.floor_bytes / 1024:,.0f} KiB", marked["unique"], marked["request"], f"{row.passes:.2f}",
        f"{row.wide:.0%}", mma, marked["wavefronts"], f"{row.barriers:.0f}", f"{row.eager_bytes:.2f}", f"{row.sdpa_bytes:.2f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def print_kernels(rows: list[Row]) -> None:
    names = [gpu.name for gpu in GPUS]
    each = " / ".join(names)
    print(f"\n| kernel | threads | shared memory | registers {each} | spills, stack | warps at once {each} |")
    print("|---" * 6 + "|")
    seen = set()
    for launch in (launch for row in rows for launch in row.launches):
        key = launch.kernel, launch.threads, launch.shared_bytes
        if key in seen:
            continue
        seen.add(key)
        registers = " / ".join(str(launch.registers[name]) for name in names)
        occupancy = " / ".join(f"{launch.occupancy[name]:.0%}" for name in names)
        print(
            f"| {launch.kernel} | {launch.threads} | {launch.shared_bytes / 1024:.1f} KiB | {registers} "
            f"| {launch.spilled_bytes}, {launch.stack_bytes} | {occupancy} |"
        )


def print_estimates(rows: list[Row]) -> None:
    print("\nAn estimate on paper, of no GPU's clock: the least time for what was counted (bytes: unique sectors; flops;")
    print("instructions issued), over the least time for the floor's bytes and flops. 1.00: only the floor is in the way.\n")
    print(f"| call | {' | '.join(gpu.name for gpu in GPUS)} |")
    print("|---|" + "---|" * len(GPUS))
    for row in rows:
        half = row.call.dtype != "float32"
        cells = []
        for gpu in GPUS:
            counted, bound = gpu.least_seconds(
                row.unique * row.floor_bytes, row.flops * max(1.0, row.mma), half, row.instructions
            )
            floor, _ = gpu.least_seconds(row.floor_bytes, row.flops, half, 0)
            cells.append(f"{counted / floor:.2f} ({bound})")
        print(f"| {row.name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="calls whose text has this in it")
    parser.add_argument("--json", metavar="FILE", help="the rows, as JSON")
    options = parser.parse_args()
    torch.manual_seed(0)
    chosen = [call for call in CALLS if options.only in str(call)]
    if not chosen:
        parser.error(f"--only is {options.only!r}; expected a part of one of: {'; '.join(map(str, CALLS))}")
    rows = measure_and_print(chosen)
    print_kernels(rows)
    print_estimates(rows)
    if options.json:
        for row in rows:
            for launch in row.launches:
                launch.report = None
        with open(options.json, "w") as file:
            json.dump([asdict(row) for row in rows], file, indent=1)


if __name__ == "__main__":
    main()
