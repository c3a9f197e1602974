"""Times of rivals: interleaved, the median of replays of a captured graph that goes round several sets of inputs."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from .day import Day, first_line

LEAST_OF_A_REPLAY = 2e-3  # s
ROUNDS, LEAST_ROUNDS = 15, 5
SECONDS_OF_A_RIVAL = 0.25  # at most, unless LEAST_ROUNDS take longer
BEYOND_CACHES = 256e6  # bytes of inputs, beside 50 to 60 MB of L2
LARGEST_GRAPH = 8 << 30  # bytes: a graph keeps what its calls allocate, and those of all rivals are there at once


@dataclass(frozen=True)
class Time:
    """us of one call, and half the distance of the quartiles as a share of it. host_us: what it takes to launch, without a graph.
    peak_bytes: allocated by one call beyond its inputs. graph: whether a graph was replayed, else the launches count too."""

    us: float
    spread: float
    host_us: float
    peak_bytes: int
    graph: bool


def sets_for(bytes_of_inputs: int) -> int:
    return max(1, min(8, round(BEYOND_CACHES / bytes_of_inputs + 0.49)))


def measure(day: Day, name: str, rivals: dict[str, Callable[[int], object]], sets: int, check: Callable, **fields) -> None:
    """A row for each rival. A rival computes on the inputs of the set that it is given; check(rival, result of set 0): its error.

    fields: what else the rows say. A rival that raises gets a row with its error; one that took the process with it, none again.
    """
    ready = {}
    if name in day.done:
        return
    for rival, call in rivals.items():
        day.attempt(f"{name} | {rival}", lambda: ready.update({rival: _prepared(day, call, sets, rival, check)}), kind="ready")
    seconds = {rival: [] for rival in ready}
    rounds = {rival: max(LEAST_ROUNDS, min(ROUNDS, int(SECONDS_OF_A_RIVAL / p.seconds))) for rival, p in ready.items()}
    if day.quick:
        rounds = dict.fromkeys(rounds, 2)
    for i in range(ROUNDS):
        for rival, prepared in ready.items():
            if i < rounds[rival]:
                seconds[rival].append(prepared.replay() / prepared.count)
    for rival, prepared in ready.items():
        first, median, third = statistics.quantiles(seconds[rival], n=4)
        time_of = Time(median * 1e6, (third - first) / 2 / median, prepared.host_us, prepared.peak_bytes, prepared.graph)
        day.add("time", name, rival=rival, **asdict(time_of), error=prepared.error, **fields)
    ready.clear()
    gc.collect()
    if day.device.type == "cuda":
        torch.cuda.empty_cache()


@dataclass
class _Prepared:
    replay: Callable[[], float]  # returns the seconds of `count` calls
    count: int
    seconds: float  # about, of a replay
    host_us: float
    peak_bytes: int
    graph: bool
    error: float


def _prepared(day: Day, call, sets: int, rival: str, check) -> _Prepared:
    if day.device.type != "cuda":
        return _prepared_on_cpu(call, sets, rival, check)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    error = check(rival, call(0))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        call(0)
        peak = torch.cuda.max_memory_allocated() - before
        one = _event_seconds(lambda: call(1 % sets))
        many = max(3, min(20, int(5e-3 / one)))
        torch.cuda.synchronize()
        start = time.perf_counter()
        for i in range(many):
            call(i % sets)
        host_us = (time.perf_counter() - start) / many * 1e6
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # a graph has memory of its own
    count = sets * max(1, min(20, round(LEAST_OF_A_REPLAY / one / sets)))

    def all_of_them():
        for i in range(count):
            call(i % sets)

    graph = None if peak > LARGEST_GRAPH else _captured(rival, all_of_them)
    replay = all_of_them if graph is None else graph.replay
    _event_seconds(replay)
    return _Prepared(lambda: _event_seconds(replay), count, _event_seconds(replay), host_us, peak, graph is not None, error)


def _captured(rival: str, calls: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
    """None where it cannot be captured: such a rival is timed with its launches."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            calls()
    except Exception as failure:  # of any of PyTorch's kernels and compilers
        print(f"{rival} is not captured: {first_line(failure)}")
        torch.cuda.synchronize()
        return None
    return graph


def _event_seconds(call) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3


def _prepared_on_cpu(call, sets, rival, check) -> _Prepared:
    error = check(rival, call(0))

    def replay():
        start = time.perf_counter()
        for i in range(sets):
            call(i)
        return time.perf_counter() - start

    seconds = replay()
    return _Prepared(replay, sets, seconds, seconds / sets * 1e6, 0, False, error)
