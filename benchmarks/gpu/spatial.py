"""Times of spatial_attention."""

from .attention import SDPA, SPATIAL, measure_shape
from .day import Day


def run(day: Day) -> None:
    for shape in SPATIAL[::5] if day.quick else SPATIAL:
        measure_shape(day, shape, ["vdiff", "eager", *SDPA])
