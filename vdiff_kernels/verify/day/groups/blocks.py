"""Blocks of diffusers' models, in bfloat16: themselves, and through this package's operators, by whatever backend auto takes.

Where diffusers is on the path; a wheel of it is enough (benchmarks/gpu_day.sh takes a folder of wheels).
"""

from ....bench import models
from .. import clock
from ..rows import Day, first_line


def run(day: Day) -> None:
    for size in [(320, 16, 4, 4)] if day.quick else [(320, 16, 64, 64), (640, 16, 32, 32)]:
        try:
            contest = models.motion_module(size, day.automatic())
        except ImportError as error:
            return day.add("absent", "diffusers", why=first_line(error))
        clock.measure(day, contest)
