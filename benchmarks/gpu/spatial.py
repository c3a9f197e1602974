"""Times of spatial_attention."""

from vdiff_kernels.bench.presets import SPATIAL

from .attention import SDPA, measure_shape
from .day import Day


def run(day: Day) -> None:
    for shape in list(SPATIAL.values())[:: 5 if day.quick else 1]:
        measure_shape(day, shape, ["vdiff", "eager", *SDPA])
