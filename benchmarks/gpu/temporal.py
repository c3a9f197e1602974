"""Times of temporal_attention."""

from .attention import SDPA, TEMPORAL, measure_shape
from .day import Day


def run(day: Day) -> None:
    for shape in TEMPORAL[::5] if day.quick else TEMPORAL:
        measure_shape(day, shape, ["vdiff", "eager", *SDPA])
