"""The clock of a CPU: medians of interleaved rounds."""

import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

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
    """The time of each contender, by its name. Each round calls every one in turn, so that whatever disturbs the machine disturbs
    all of them; a call quicker than SHORTEST is repeated within its turn.
    """
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
