"""A contest: what computes the same from the same inputs in turns, what it is held to, and what is counted of it."""

import gc
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .replays import ROUNDS, Replayed, replayed
from .rooflines import Work

WRONG = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 2e-2}  # a relative error above it makes no ratio


@dataclass(frozen=True)
class Setting:
    """Where and in what a contest runs. backends: of ours, by the names of their rows; None: what auto takes."""

    device: torch.device
    dtype: torch.dtype = torch.bfloat16
    backends: dict[str, str | None] = field(default_factory=lambda: {"vdiff": None})

    def randn(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(*shape, device=self.device, dtype=torch.float32).to(dtype or self.dtype)


@dataclass(frozen=True)
class Contest:
    """rivals: by name, functions of the number of a set of inputs, of which there are `sets`. error(rival, its result of set
    0): relative. work: what is counted of a call.
    """

    name: str
    operator: str
    backward: bool
    rivals: dict[str, Callable[[int], object]]
    sets: int
    error: Callable[[str, object], float]
    work: Work
    model: str = ""


class Race:
    """A contest on the clock. A rival is made ready by itself, for it may raise, or take the process with it."""

    def __init__(self, contest: Contest, setting: Setting, rounds: int = ROUNDS):
        self.contest, self.device, self.rounds = contest, setting.device, rounds
        self._ready: dict[str, tuple[float, Replayed]] = {}

    def prepare(self, rival: str) -> None:
        call = self.contest.rivals[rival]
        before = torch.cuda.memory_allocated() if self.device.type == "cuda" else 0
        error = self.contest.error(rival, call(0))
        self._ready[rival] = error, replayed(call, self.contest.sets, self.device, before)

    def times(self) -> Iterator[dict]:
        """A row for each that is ready: they take turns, so that whatever disturbs the machine disturbs all of them.

        us: the median of one call; spread: half the distance of the quartiles as a share of it; the others are of `Replayed`.
        """
        seconds = {rival: [] for rival in self._ready}
        for i in range(self.rounds):
            for rival, (_, one) in self._ready.items():
                if i < max(2, min(self.rounds, one.rounds)):
                    seconds[rival].append(one.replay() / one.count)
        for rival, (error, one) in self._ready.items():
            first, median, third = statistics.quantiles(seconds[rival], n=4)
            yield {
                "rival": rival, "us": median * 1e6, "spread": (third - first) / 2 / median, "host_us": one.host_us,
                "peak_bytes": one.peak_bytes, "graph": one.graph, "error": error, **self.described(),
            }  # fmt: skip
        self._ready.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def described(self) -> dict:
        contest = self.contest
        counted = {"bytes": contest.work.bytes, "flops": contest.work.flops}
        return {"operator": contest.operator, "model": contest.model, "backward": contest.backward, **counted}


def with_gradients(call: Callable, inputs: list, parameters: list, grad_out: Tensor, backward: bool) -> Callable[[int], tuple]:
    """A rival: call of the i-th of its inputs, a tensor or a tuple of them; with backward, then the gradients of those and of the
    parameters."""

    def rival(i: int) -> tuple:
        given = inputs[i] if isinstance(inputs[i], tuple) else (inputs[i],)
        out = call(*given)
        return (out, *torch.autograd.grad(out, (*given, *parameters), grad_out)) if backward else (out,)

    return rival


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The norm of the difference over the norm of what is expected; infinite where a value is not finite."""
    actual, expected = actual.detach().double(), expected.detach().double()
    error = ((actual - expected).norm() / expected.norm()).item()
    return error if error == error else float("inf")


def first_line(error: Exception | str, limit: int = 300) -> str:
    text = str(error).strip().split("\n", 1)[0]
    return (text if isinstance(error, str) else f"{type(error).__name__}: {text}")[:limit]
