"""Of `temporal`, `spatial`, `compiled` and `tuning`: a shape forward, then with every gradient."""

from ....bench import attention
from ....bench.presets import AttentionShape, small
from .. import clock
from ..rows import Day


def measure_shape(day: Day, shape: AttentionShape, rivals: list[str] | None = None) -> None:
    shape = small(shape) if day.quick else shape
    for backward in (False, True):
        if shape.name(backward) not in day.done:
            clock.measure(day, attention.contest(shape, day.setting(), backward), rivals)
