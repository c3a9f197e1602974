"""What every CPU benchmark measures with: interleaved medians, the rates of this machine, one aligned row a case."""

import ctypes
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from vdiff_kernels import library

ROUNDS = 15
SHORTEST = 2e-3  # s. What is timed at once: a quicker call is repeated until it lasts as long.


def keep_freed_memory() -> None:
    """Of glibc's malloc: this process keeps what it freed, as it does with most other allocators.

    Else a call may have to ask the system for its result's pages, at up to a microsecond each, depending on what was freed before
    it: more than some calls take, and by chance.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    trim_threshold, mmap_max = -1, -4  # malloc.h
    if mallopt is not None:
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)


@dataclass(frozen=True)
class Time:
    """Of one call: the median over rounds, and half the distance between the quartiles as a share of it."""

    seconds: float
    spread: float


def _repeated(call: Callable, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def interleaved(calls: dict[str, Callable], rounds: int = ROUNDS) -> dict[str, Time]:
    """Each round calls every contender once, so that whatever disturbs the machine disturbs all of them."""
    counts = {}
    for name, call in calls.items():
        call()  # warm
        counts[name] = max(1, int(SHORTEST / max(_repeated(call, 1), 1e-9)))
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(_repeated(call, counts[name]))
    result = {}
    for name, seconds in times.items():
        first, median, third = statistics.quantiles(seconds, n=4)
        result[name] = Time(median, (third - first) / 2 / median)
    return result


@dataclass(frozen=True)
class Machine:
    """copy_rate: bytes read and written a second by a large copy; matrix_rate: FLOP a second of a large product, float32."""

    copy_rate: float
    matrix_rate: float

    @classmethod
    def measure(cls) -> "Machine":
        source, target = torch.ones(1 << 26), torch.empty(1 << 26)  # 256 MiB each, beyond every cache
        a, b, c = torch.randn(2048, 2048), torch.randn(2048, 2048), torch.empty(2048, 2048)
        times = interleaved({"copy": lambda: target.copy_(source), "product": lambda: torch.mm(a, b, out=c)}, rounds=9)
        return cls(2 * source.nbytes / times["copy"].seconds, 2 * 2048**3 / times["product"].seconds)

    def floor(self, moved: float, flops: float) -> float:
        """The seconds below which nothing that moves so many bytes and does so many FLOP can come."""
        return max(moved / self.copy_rate, flops / self.matrix_rate)

    def __str__(self):
        return (
            f"{processor()}, {torch.get_num_threads()} threads, {library.instruction_set()} kernels, torch {torch.__version__}: "
            f"copies {self.copy_rate / 1e9:.1f} GB/s, multiplies {self.matrix_rate / 1e9:.0f} GFLOP/s"
        )


def processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@dataclass(frozen=True)
class Row:
    """One measured case. ours: the contender's name; the others are what it is measured against.

    moved, flops: counted bytes and FLOP. faster: name -> how many times faster than that one the target asks to be;
    of_floor: at most how many floors it may take.
    """

    label: str
    times: dict[str, Time]
    ours: str
    moved: float
    flops: float
    faster: dict[str, float]
    of_floor: float | None = None

    def text(self, machine: Machine) -> str:
        own = self.times[self.ours]
        floor = machine.floor(self.moved, self.flops)
        cells = [f"{self.label:46}", f"{own.seconds * 1e3:8.2f} ms ±{own.spread * 100:2.0f}%"]
        for name, other in self.times.items():
            if name != self.ours:
                cells.append(f"{other.seconds / own.seconds:5.2f}x {name}{self._verdict(name, other.seconds / own.seconds)}")
        limit = self.of_floor
        verdict = "" if limit is None else f" ({'met' if own.seconds <= limit * floor else 'missed'} {limit:g})"
        cells.append(f"{own.seconds / floor:5.2f} floors{verdict}")
        cells.append(f"floor {floor * 1e3:.2f} ms ({self.moved / 1e6:.1f} MB, {self.flops / 1e9:.2f} GFLOP)")
        return " | ".join(cells)

    def _verdict(self, name: str, ratio: float) -> str:
        if name not in self.faster:
            return ""
        return f" ({'met' if ratio >= self.faster[name] else 'missed'} {self.faster[name]:g})"
