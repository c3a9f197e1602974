"""Whole layers in bfloat16, by what auto makes of them, beside what models run."""

from ....bench import layers
from ....bench.presets import CONVS, FEEDFORWARD, LAYERS, small
from .. import clock
from ..rows import Day

NOT_COMPILED = ["vdiff", "eager", "eager channels_last_3d", "torch.var_mean"]


def run(day: Day) -> None:
    modules, convs, rows = (
        [small(shape) if day.quick else shape for shape in list(shapes.values())[: 1 if day.quick else None]]
        for shapes in (LAYERS, CONVS, FEEDFORWARD)
    )
    setting = day.automatic()
    for backward in (False, True):
        for shape in modules:
            clock.measure(day, layers.module(shape, setting, backward), NOT_COMPILED)
        for shape in convs:
            for kernel in ("1x3x3", "3x1x1"):
                clock.measure(day, layers.conv(shape, kernel, setting, backward), NOT_COMPILED)
            clock.measure(day, layers.norm(shape, setting, backward), NOT_COMPILED)
        for shape in rows:
            clock.measure(day, layers.feedforward(shape, setting, backward), NOT_COMPILED)
    clock.measure(day, layers.statistics(convs[0], day.setting()), NOT_COMPILED)
