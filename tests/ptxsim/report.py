"""What a launch found and counted."""

from dataclasses import dataclass, field

from .lowering import Lowered
from .parser import Statement

CLASSES = ("integer", "float", "half", "double", "convert", "move", "memory", "tensor", "sync", "control")


@dataclass(frozen=True)
class Finding:
    kind: str
    detail: str
    where: str  # source file and line, and the PTX statement
    other: str  # of the other party, "" where there is none
    times: int

    @classmethod
    def of_seeds(cls, name: str, first: int, seed: int) -> "Finding":
        return cls("result changes with the interleaving", f"with seeds {first} and {seed}", name, "", 1)

    def __str__(self) -> str:
        other = f"; with {self.other}" if self.other else ""
        return f"{self.kind} at {self.where}{other}: {self.detail} ({self.times} times)"


@dataclass
class Line:
    """What one source line moved."""

    requests: int = 0  # of warps to global memory
    sectors: int = 0  # of 32 bytes
    ideal_sectors: int = 0  # that the bytes asked for would fill
    bytes: int = 0
    shared_requests: int = 0
    wavefronts: int = 0
    ideal_wavefronts: int = 0
    atomics: int = 0


@dataclass
class Counts:
    instructions: dict[str, int]  # of warps, by class
    mma_flops: int
    barriers: int  # of blocks
    warp_barriers: int
    wide_global: int  # global requests of 16 bytes a lane
    fetched_bytes: int  # loaded from global memory, once for each request
    latencies: int  # that warps waited for it, one after the other, were all alike and what is between them took no time
    unique_read_sectors: int  # over the launch: what memory must give at the least
    unique_written_sectors: int
    total: Line = field(default_factory=Line)


class Report:
    def __init__(self, kernel: str, answer: dict, lowered: Lowered):
        self.kernel = kernel
        self.lines: dict[str, Line] = {}
        self.counts = Counts(
            dict(zip(CLASSES, answer["instructions"])), answer["mma_flops"], answer["barriers"], answer["warp_barriers"],
            answer["wide_global"], answer["fetched_bytes"], answer["latencies"],
            answer["unique_read_sectors"], answer["unique_written_sectors"],
        )  # fmt: skip
        for place, *numbers in answer["lines"]:
            line = self.lines.setdefault(source_of(lowered.statements[place]), Line())
            for name, number in zip(Line.__dataclass_fields__, numbers):
                setattr(line, name, getattr(line, name) + number)
                setattr(self.counts.total, name, getattr(self.counts.total, name) + number)
        self.findings = [
            Finding(kind, detail, _where(lowered, place), _where(lowered, other), times)
            for kind, detail, place, other, times in answer["findings"]
        ]

    def join(self, other: "Report", more: list[Finding] = ()) -> None:
        """Adds the findings of another launch of the kernel that this one does not have; the counts stay this one's."""
        have = {(finding.kind, finding.where, finding.other) for finding in self.findings}
        self.findings += [f for f in [*other.findings, *more] if (f.kind, f.where, f.other) not in have]

    def assert_clean(self) -> "Report":
        """Raises AssertionError that lists what was found."""
        if self.findings:
            raise AssertionError(f"{self.kernel}: {len(self.findings)} findings\n" + "\n".join(map(str, self.findings)))
        return self

    def __str__(self) -> str:
        counts, total = self.counts, self.counts.total
        rows = [
            f"{self.kernel}",
            "  warp instructions  " + ", ".join(f"{name} {number:,}" for name, number in counts.instructions.items() if number),
            f"  tensor cores       {counts.mma_flops:,} flops",
            f"  global             {total.requests:,} requests, {total.sectors:,} sectors (ideal {total.ideal_sectors:,}), "
            f"{total.bytes:,} bytes, {counts.wide_global:,} requests of 16 bytes a lane",
            f"  unique sectors     {counts.unique_read_sectors:,} read, {counts.unique_written_sectors:,} written",
            f"  shared             {total.shared_requests:,} requests, {total.wavefronts:,} wavefronts "
            f"(ideal {total.ideal_wavefronts:,})",
            f"  barriers           {counts.barriers:,} of blocks, {counts.warp_barriers:,} of warps; "
            f"{total.atomics:,} atomic requests",
        ]
        rows += [f"  ! {finding}" for finding in self.findings]
        return "\n".join(rows)


def source_of(statement: Statement) -> str:
    file, line = statement.source
    return f"{file.rpartition('/')[2]}:{line}" if line else f"PTX:{statement.line}"


def _where(lowered: Lowered, place: int) -> str:
    if place < 0:
        return ""
    statement = lowered.statements[place]
    return f"{source_of(statement)} [PTX {statement.line}: {statement.opcode}]"
