"""What a run consists of, and what it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MINUTES = 8
OUT = Path("vdiff-verify")


@dataclass(frozen=True)
class Group:
    """A module of groups/. seconds: for all its processes. stall: how long it may show no new row before it is stopped.

    checks: it says what is right or wrong, not how fast it is. gpu_only: left out on a CPU, whose times `vdiff bench` takes.
    """

    name: str
    seconds: float
    stall: float = 40
    checks: bool = False
    gpu_only: bool = True


# Those of a phase run beside each other; where times are taken, a group is alone. Most telling first.
PHASES = [
    [Group("start", 60, checks=True, gpu_only=False)],
    [
        Group("variants", 60, checks=True, gpu_only=False),
        Group("hostile", 150, checks=True, gpu_only=False),
        Group("contract", 80, checks=True, gpu_only=False),
        Group("triton", 150, checks=True),
    ],
    [Group("real", 60, checks=True)],
    [Group("rates", 30)],
    [Group("temporal", 90)],
    [Group("spatial", 80)],
    [Group("layers", 110)],
    [Group("choices", 110)],
    [Group("models", 90, checks=True, gpu_only=False)],
    [Group("blocks", 40)],
    [Group("counters", 120, stall=100)],
    [Group("compiled", 100, stall=90)],
    [Group("sanitizer", 150, stall=140, checks=True)],
    [Group("tuning", 60)],
]
GROUPS = {group.name: group for phase in PHASES for group in phase}
ON_DEMAND = ("tuning",)  # where it is named alone
OVER = "stopped: its time was over"
NOT_BEGUN = "not begun: no time was left"

RIGHT, WRONG, COULD_NOT_RUN = 0, 1, 2


@dataclass(frozen=True)
class Settings:
    """minutes: for all of it, the report with it. only: names of groups; all, unless given.

    stall: s, in place of each group's. quick: sizes that take no time, and times on a CPU too. prepare: called in each process
    of a group before anything else, with the group's name: both for tests.
    """

    folder: Path
    device: str = "cuda"
    minutes: float = MINUTES
    only: tuple[str, ...] = ()
    resume: bool = False
    stall: float | None = None
    quick: bool = False
    prepare: Callable[[str], None] | None = None
