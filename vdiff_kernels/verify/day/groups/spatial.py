"""Times of spatial_attention."""

from ....bench.attention import SDPA
from ....bench.presets import SPATIAL
from ..rows import Day
from .attention import measure_shape


def run(day: Day) -> None:
    for shape in list(SPATIAL.values())[:: 5 if day.quick else 1]:
        measure_shape(day, shape, ["vdiff", "eager", *SDPA])
