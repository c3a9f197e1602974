"""What the CUDA kernels take and move, without a GPU: simulated (tests/ptxsim), and compiled for four GPUs.

`python -m benchmarks.gpu_static` prints a table of counts for each operator call, beside the floor and the bytes that eager
PyTorch and its fused SDPA move for the same call, one of registers and occupancy, and one of the bytes that each kernel has in
flight. Counts are facts. The last table is an estimate: the roofline that the counts leave room for, blind to latency, which
`vdiff verify` measures.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import torch

from tests.ptxsim.launcher import plain_name
from tests.ptxsim.module import tensors_of
from tests.ptxsim.registers import resources
from tests.ptxsim.report import Report
from vdiff_kernels.bench.counting import bytes_of
from vdiff_kernels.bench.gpus import GPUS
from vdiff_kernels.library import longest_short_backward
from vdiff_kernels.ops.attention.call import AttentionCall
from vdiff_kernels.ops.feedforward.call import GegluCall
from vdiff_kernels.ops.norm.call import NormCall

from .static_subjects import Subject, attention, conv, directions, geglu, linear, norm, simulated, statistics

SECTOR = 32
BARS = {"unique": 1.02, "request": 1.05, "wavefronts": 1.10}

BFLOAT16 = {
    "temporal T16 32x32 N8 D64, rel bias": attention("temporal", 16, 32, 32, 8, 64, bias="rel"),
    "temporal T16 64x32 N8 D40, rel bias": attention("temporal", 16, 64, 32, 8, 40, bias="rel"),
    "temporal T16 4x8 N8 D80": attention("temporal", 16, 4, 8, 8, 80),
    "temporal T16 4x8 N8 D160": attention("temporal", 16, 4, 8, 8, 160),
    "temporal T8 16x16 N8 D64, rel bias": attention("temporal", 8, 16, 16, 8, 64, bias="rel"),
    "temporal T24 4x8 N8 D64": attention("temporal", 24, 4, 8, 8, 64),
    "temporal T32 32x32 N8 D32, rel bias": attention("temporal", 32, 32, 32, 8, 32, bias="rel"),
    "temporal T64 2x4 N2 D64, rel bias": attention("temporal", 64, 2, 4, 2, 64, bias="rel"),
    "spatial 16x16 N2 D64": attention("spatial", 1, 16, 16, 2, 64),
    "spatial 32x32 N1 D64": attention("spatial", 1, 32, 32, 1, 64),
    "spatial T4 16x16 N1 D64, rel bias": attention("spatial", 4, 16, 16, 1, 64, bias="rel"),
    "spatial 16x16 N1 D64, dense bias": attention("spatial", 1, 16, 16, 1, 64, bias="dense"),
    "spatial 16x16 N2 D40": attention("spatial", 1, 16, 16, 2, 40),
    "spatial 16x16 N1 D128": attention("spatial", 1, 16, 16, 1, 128),
    "spatial T2 16x16 N2 D64, context of 77": attention("spatial", 2, 16, 16, 2, 64, context=77),
    "channel_stats T2 32x32 C320": statistics(2, 32, 320),
    "norm_act T2 32x32 C320, group, silu": norm(2, 32, 320),
    "norm_act T2 32x32 C320, group of a clip, silu": norm(2, 32, 320, scope="clip"),
    "norm_act T2 32x32 C320, layer, silu": norm(2, 32, 320, "layer"),
    "norm_act_conv 1x3x3 T1 32x32 C64": conv(1, 32, 64, 1, 3, 3),
    "norm_act_conv 1x3x3 T1 16x16 C320": conv(1, 16, 320, 1, 3, 3),
    "norm_act_conv 3x1x1 T4 16x16 C320": conv(4, 16, 320, 3, 1, 1),
    "norm_linear T1 32x32 C320 to 960, layer": linear(1, 32, 320, 960),
    "geglu M512 C320 E1280": geglu(512, 320),
}
FLOAT32 = {
    "temporal T16 16x16 N8 D64, rel bias": attention("temporal", 16, 16, 16, 8, 64, bias="rel"),
    "spatial 16x16 N1 D64": attention("spatial", 1, 16, 16, 1, 64),
    "channel_stats T1 32x32 C320": statistics(1, 32, 320),
    "norm_act T1 32x32 C320, group, silu": norm(1, 32, 320),
    "norm_act T1 32x32 C320, layer, silu": norm(1, 32, 320, "layer"),
    "norm_act_conv 1x3x3 T1 16x16 C64": conv(1, 16, 64, 1, 3, 3),
    "norm_act_conv 3x1x1 T4 16x16 C64": conv(4, 16, 64, 3, 1, 1),
    "norm_linear T1 16x16 C320 to 960, layer": linear(1, 16, 320, 960),
    "geglu M256 C320 E1280": geglu(256, 320),
}
CALLS = {
    f"{name}, {str(dtype).removeprefix('torch.')}": (made, dtype)
    for calls, dtype in ((BFLOAT16, torch.bfloat16), (FLOAT32, torch.float32))
    for name, made in calls.items()
}
OPERATORS = simulated(None)


def _is_attention(row) -> bool:
    return isinstance(row.call, AttentionCall)


def _is_long(row) -> bool:
    call = row.call
    return (
        _is_attention(row) and max(call.lengths) > longest_short_backward[call.q.itemsize, call.is_shared_context][call.head_dim]
    )


def _pieces(row) -> int:
    """Of 16 bytes, of a head's row; 0 where there are none."""
    return row.call.head_dim * row.call.q.itemsize // 16 if _is_attention(row) else 0


# Why a row misses a bar, where it may: (bar, of which rows, why).
REASONS = [
    (
        "unique", lambda row: _is_long(row) and row.direction == "backward",
        "Backward of long sequences is two kernels, three with a bias gradient, and each reads q, k, v and dout: no gradient is "
        "added up by atomics. It is bound by flops, not by bytes, from some hundreds of keys on.",
    ),
    (
        "request", lambda row: _is_long(row) and _pieces(row) % 2 == 1,
        "A head's row is no whole number of sectors, and a block of the long kernels has one head: the block beside it "
        "reads the rest of the sector, which comes from L2 (unique sectors are at the floor).",
    ),
    (
        "request", lambda row: _is_attention(row) and (row.call.options.table is not None or row.direction == "backward"),
        "Loads of 4 bytes a lane (entries of the bias, partials of its gradient, the log-sum-exp) that begin within a sector.",
    ),
    (
        "wavefronts", lambda row: _is_long(row) and _pieces(row) % 8 != 0,
        "Rows of a number of 16-byte pieces that is no multiple of 8, copied as they lie: a quarter warp's pieces meet in a "
        "bank.",
    ),
    (
        "wavefronts", lambda row: _pieces(row) % 2 == 1,
        "Rows of an odd number of 16-byte pieces, as D = 40 has: where a quarter warp goes from one row to another, two of its "
        "pieces meet in a bank.",
    ),
    (
        "wavefronts", lambda row: _is_attention(row) and row.direction == "backward" and row.call.options.rel_bias is not None,
        "Folding the bias gradient by offset, once a warp or block: lanes walk the diagonals of a tile in shared memory, which "
        "meet in banks. Its share falls with the number of sequences a warp has: these calls are small.",
    ),
    (
        "request", lambda row: isinstance(row.call, NormCall) and row.call.x.itemsize == 2,
        "What a norm's table has of a thread's 8 channels of half types is 32 bytes a field, two loads that have half of each "
        "sector each: L1 serves the second.",
    ),
    (
        "unique", lambda row: isinstance(row.call, GegluCall) and row.direction == "backward",
        "[da | db] is written once and read twice; where a product has few tiles, as in so small a call, k is cut into parts, "
        "whose sums in float are written and read once more.",
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
    """Runs launches as simulated operators want them run, and keeps what they did and what they take on each of the GPUs."""

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

    def __call__(self, launchers, function, *arguments, memory=()) -> list[Report]:
        tensors, before = (*memory, *tensors_of(arguments)), len(self.launches)

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
        return [one.report for one in self.launches[before:]]


@dataclass
class Traffic:
    """The counts of a call in one direction, over its floor."""

    floor_bytes: float  # each operand read once, each result written once; of a group norm, twice
    flops: float
    unique: float  # unique sectors
    request: float  # sectors of the requests over those that their bytes would fill
    passes: float  # sectors of all requests, over the floor: what L1 and L2 serve
    wide: float  # the share of global requests that are of 16 bytes a lane
    mma: float | None  # flops of the tensor cores over those of the math; 0: FFMA
    wavefronts: float  # of shared memory, over the ideal
    instructions: int  # of warps

    @classmethod
    def of(cls, reports: list[Report], floor: float, flops: float, **more):
        counts = [report.counts for report in reports]
        total = [one.total for one in counts]

        def share(part, whole) -> float:
            return sum(part) / max(1, sum(whole))

        return cls(
            floor, flops, sum(c.unique_read_sectors + c.unique_written_sectors for c in counts) * SECTOR / floor,
            share((t.sectors for t in total), (t.ideal_sectors for t in total)), sum(t.sectors for t in total) * SECTOR / floor,
            share((c.wide_global for c in counts), (t.requests for t in total)),
            sum(c.mma_flops for c in counts) / flops if flops else None,
            share((t.wavefronts for t in total), (t.ideal_wavefronts for t in total)),
            sum(sum(c.instructions.values()) for c in counts), **more,
        )  # fmt: skip


@dataclass
class Row(Traffic):
    """What the CUDA kernels do for a call in one direction."""

    name: str
    direction: str
    barriers: float  # of a block
    eager: float
    sdpa: float | None
    call: object = field(repr=False)
    launches: list[Launch] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.name}, {self.direction}"

    def misses(self) -> dict[str, int | None]:
        """The bars that it misses, and the number of the reason in REASONS, from 1; None where there is none."""
        missed = [name for name, bar in BARS.items() if round(getattr(self, name), 3) > bar]
        return {name: next((i for i, (bar, of, _) in enumerate(REASONS, 1) if bar == name and of(self)), None) for name in missed}


def measure(name: str, subject: Subject, direction: str, recorder: Recorder) -> Row:
    recorder.launches.clear()
    subject.serve(simulated(recorder)[subject.call.operator], direction, recorder.launches.clear)
    floor, flops = subject.work(direction)
    launches = list(recorder.launches)
    eager, sdpa = (
        call and bytes_of(call, *subject.given, backward=direction == "backward") / floor
        for call in (subject.eager, subject.fused)
    )
    return Row.of(
        [one.report for one in launches], floor, flops, name=name, direction=direction, eager=eager, sdpa=sdpa, call=subject.call,
        barriers=sum(one.report.counts.barriers / one.blocks for one in launches), launches=launches,
    )  # fmt: skip


def measure_and_print(names: list[str]) -> list[Row]:
    """The rows, each printed as soon as it is measured."""
    print("| call | floor | unique sectors | sectors/request | all requests | 16-byte | tensor-core flops | wavefronts ", end="")
    print("| barriers | instructions | eager | SDPA |\n" + "|---" * 12 + "|")
    recorder, rows = Recorder(), []
    for name in names:
        made, dtype = CALLS[name]
        subject = made(dtype)
        for direction in directions(OPERATORS[subject.call.operator]):
            rows.append(measure(name, subject, direction, recorder))
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
    mma = "-" if row.mma is None else f"{row.mma:.2f}x" if row.mma else "FFMA"
    cells = [
        str(row), f"{row.floor_bytes / 1024:,.0f} KiB", marked["unique"], marked["request"], f"{row.passes:.2f}",
        f"{row.wide:.0%}", mma, marked["wavefronts"], f"{row.barriers:.0f}", f"{row.instructions:,}", f"{row.eager:.2f}",
        "-" if row.sdpa is None else f"{row.sdpa:.2f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def each_kernel(rows: list[Row]) -> Iterable[Launch]:
    """One launch of each."""
    launches: dict[tuple, Launch] = {}
    for one in (one for row in rows for one in row.launches):
        launches.setdefault((one.kernel, one.threads, one.shared_bytes), one)
    return launches.values()


def print_kernels(rows: list[Row]) -> None:
    names = [gpu.name for gpu in GPUS]
    each = " / ".join(names)
    print(f"\n| kernel | threads | shared memory | registers {each} | spills, stack | warps at once {each} |")
    print("|---" * 6 + "|")
    for launch in each_kernel(rows):
        registers = " / ".join(str(launch.registers[name]) for name in names)
        occupancy = " / ".join(f"{launch.occupancy[name]:.0%}" for name in names)
        print(
            f"| {launch.kernel} | {launch.threads} | {launch.shared_bytes / 1024:.1f} KiB | {registers} "
            f"| {launch.spilled_bytes}, {launch.stack_bytes} | {occupancy} |"
        )


def print_latency(rows: list[Row]) -> None:
    """Little's law: whether the warps that a multiprocessor holds ask for enough at once to hide a load's latency."""
    print(
        "\nBytes that a multiprocessor has on their way to it (its warps at once, by what a warp asks for on the average while it"
    )
    print("waits for one load, or one stage of cp.async), in KiB, and over what it needs: latency x bandwidth / multiprocessors.")
    print("Below 1.00x, latency is in the way of the floor. The simulator's order of the PTX, in which what is between two loads")
    print(
        "takes no time. What caches serve counts alike, so that a kernel which reads a bias between its rows looks worse than it"
    )
    print("is. The latencies are those of an idle memory: a busy one wants more.\n")
    print(f"| kernel | a warp, bytes | {' | '.join(gpu.name for gpu in GPUS)} |\n|---|---|{'---|' * len(GPUS)}")
    needs = [
        f"{gpu.bytes_in_flight / 1024:.1f} = {gpu.latency} cycles of {gpu.clock / 1e9:.2f} GHz x {gpu.bandwidth / 1e12:.2f} TB/s "
        f"/ {gpu.multiprocessors}"
        for gpu in GPUS
    ]
    print(f"| needed | | {' | '.join(needs)} |")
    for launch in each_kernel(rows):
        counts = launch.report.counts
        of_warp = counts.fetched_bytes / max(1, counts.latencies)
        cells = []
        for gpu in GPUS:
            in_flight = of_warp * launch.occupancy[gpu.name] * gpu.threads / 32
            cells.append(f"{in_flight / 1024:.1f} ({in_flight / gpu.bytes_in_flight:.2f}x)")
        print(f"| {launch.kernel}, {launch.threads} threads | {of_warp:,.0f} | {' | '.join(cells)} |")


def print_estimates(rows: list[Row]) -> None:
    print("\nAn estimate on paper, of no GPU's clock: the least time for what was counted (bytes: unique sectors; flops;")
    print("instructions issued), over the least time for the floor's bytes and flops. 1.00: only the floor is in the way.\n")
    print(f"| call | {' | '.join(gpu.name for gpu in GPUS)} |")
    print("|---|" + "---|" * len(GPUS))
    for row in rows:
        half = row.call.main.dtype != torch.float32
        on_tensor_cores = half or bool(row.mma)
        # Of float they take three products of tf32, at half the rate of half types.
        products, rate = (1, 1) if half or not row.mma else (3, 2)
        cells = []
        for gpu in GPUS:
            flops = rate * row.flops * max(products, row.mma or 0)
            counted, bound = gpu.least_seconds(row.unique * row.floor_bytes, flops, on_tensor_cores, row.instructions)
            floor, _ = gpu.least_seconds(row.floor_bytes, rate * products * row.flops, on_tensor_cores, 0)
            cells.append(f"{counted / floor:.2f} ({bound})")
        print(f"| {row} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="calls whose text has this in it")
    parser.add_argument("--json", metavar="FILE", help="the rows, as JSON")
    options = parser.parse_args()
    torch.manual_seed(0)
    chosen = [name for name in CALLS if options.only in name]
    if not chosen:
        parser.error(f"--only is {options.only!r}; expected a part of one of: {'; '.join(CALLS)}")
    rows = measure_and_print(chosen)
    print_kernels(rows)
    print_latency(rows)
    print_estimates(rows)
    if options.json:
        for row in rows:
            row.call = None
            for launch in row.launches:
                launch.report = None
        with open(options.json, "w") as file:
            json.dump([asdict(row) for row in rows], file, indent=1)


if __name__ == "__main__":
    main()
