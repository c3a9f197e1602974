"""The clock of a GPU: replays of a captured graph that goes round several sets of inputs, more than its caches hold."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

LEAST_OF_A_REPLAY = 2e-3  # s
ROUNDS, LEAST_ROUNDS = 15, 5
SECONDS_OF_A_CALL = 0.25  # of all its rounds at most, unless LEAST_ROUNDS take longer
BEYOND_CACHES = 256e6  # bytes of inputs, beside 50 to 60 MB of L2
LARGEST_GRAPH = 8 << 30  # bytes: a graph keeps what its calls allocate, and those of all rivals are there at once


@dataclass
class Replayed:
    """A call made ready. replay: returns the seconds of `count` calls.

    seconds: about, of a replay. host_us: what a call takes to launch, without a graph. peak_bytes: allocated by one call beyond
    its inputs. graph: whether a graph is replayed, else the launches count too.
    """

    replay: Callable[[], float]
    count: int
    seconds: float
    host_us: float
    peak_bytes: int
    graph: bool

    @property
    def rounds(self) -> int:
        return max(LEAST_ROUNDS, min(ROUNDS, int(SECONDS_OF_A_CALL / self.seconds)))


def sets_for(bytes_of_inputs: int) -> int:
    """How many sets of inputs are more than the caches hold: 1 to 8."""
    return max(1, min(8, round(BEYOND_CACHES / bytes_of_inputs + 0.49)))


def replayed(call: Callable[[int], object], sets: int, device: torch.device, before: int | None = None) -> Replayed:
    """Makes a call ready that computes on the i-th of its sets of inputs, call(i), and was called once.

    before: the bytes that were allocated before that; None: as many as now. A CPU has no graphs: there the calls are timed
    as they are.
    """
    if device.type != "cuda":
        return _on_cpu(call, sets)
    before = torch.cuda.memory_allocated() if before is None else before
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

    graph = None if peak > LARGEST_GRAPH else _captured(all_of_them)
    replay = all_of_them if graph is None else graph.replay
    _event_seconds(replay)
    return Replayed(lambda: _event_seconds(replay), count, _event_seconds(replay), host_us, peak, graph is not None)


def _captured(calls: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
    """None where they cannot be captured: they are timed with their launches."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            calls()
    except Exception as failure:  # of any of PyTorch's kernels and compilers
        print(f"not captured: {type(failure).__name__}: {str(failure).strip().splitlines()[:1]}")
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


def _on_cpu(call, sets: int) -> Replayed:
    def replay():
        start = time.perf_counter()
        for i in range(sets):
            call(i)
        return time.perf_counter() - start

    seconds = replay()
    return Replayed(replay, sets, seconds, seconds / sets * 1e6, 0, False)
