"""Times of rivals as rows of the day: interleaved, the median of replays."""

import gc
import statistics
from collections.abc import Callable

import torch

from vdiff_kernels.bench.replays import ROUNDS, Replayed, replayed

from .day import Day


def measure(day: Day, name: str, rivals: dict[str, Callable[[int], object]], sets: int, check: Callable, **fields) -> None:
    """A row for each rival. A rival computes on the inputs of the set that it is given; check(rival, result of set 0): its error.

    A row's us is of one call, its spread half the distance of the quartiles as a share of it; the others are those of `Replayed`.
    fields: what else the rows say. A rival that raises gets a row with its error; one that took the process with it, none again.
    """
    ready: dict[str, tuple[float, Replayed]] = {}
    if name in day.done:
        return
    for rival, call in rivals.items():
        day.attempt(f"{name} | {rival}", lambda: ready.update({rival: _prepared(day, call, sets, rival, check)}), kind="ready")
    seconds = {rival: [] for rival in ready}
    rounds = {rival: 2 if day.quick else one.rounds for rival, (_, one) in ready.items()}
    for i in range(ROUNDS):
        for rival, (_, one) in ready.items():
            if i < rounds[rival]:
                seconds[rival].append(one.replay() / one.count)
    for rival, (error, one) in ready.items():
        first, median, third = statistics.quantiles(seconds[rival], n=4)
        words = {"host_us": one.host_us, "peak_bytes": one.peak_bytes, "graph": one.graph, "error": error}
        day.add("time", name, rival=rival, us=median * 1e6, spread=(third - first) / 2 / median, **words, **fields)
    ready.clear()
    gc.collect()
    if day.device.type == "cuda":
        torch.cuda.empty_cache()


def _prepared(day: Day, call, sets: int, rival: str, check) -> tuple[float, Replayed]:
    before = torch.cuda.memory_allocated() if day.device.type == "cuda" else 0
    error = check(rival, call(0))
    return error, replayed(call, sets, day.device, before)
