"""Times of our own kernels alone, on every shape: for builds that are compared with each other."""

from ....bench.presets import SPATIAL, TEMPORAL
from ..rows import Day
from .attention import measure_shape


def run(day: Day) -> None:
    shapes = [*TEMPORAL.values(), *SPATIAL.values()]
    for shape in shapes[:1] if day.quick else shapes:
        measure_shape(day, shape, ["vdiff"])
