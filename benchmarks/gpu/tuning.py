"""Times of our own kernels alone, on every shape: for builds that are compared with each other."""

from .attention import SPATIAL, TEMPORAL, measure_shape
from .day import Day


def run(day: Day) -> None:
    for shape in TEMPORAL[:1] if day.quick else [*TEMPORAL, *SPATIAL]:
        measure_shape(day, shape, ["vdiff"])
