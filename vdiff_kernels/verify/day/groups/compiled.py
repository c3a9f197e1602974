"""What has to be compiled first: flex attention on three shapes, and modules by torch.compile."""

from dataclasses import replace

from ....bench import layers
from ....bench.attention import FLEX
from ....bench.presets import CONVS, LAYERS, SPATIAL, TEMPORAL, small
from .. import clock
from ..rows import Day
from .attention import measure_shape

# One clip: flex attention has a grid of sequences and heads, at most 65,535.
SHAPES = [replace(TEMPORAL["c512"], B=1), replace(TEMPORAL["animatediff-64"], B=1), SPATIAL["biased-32"]]


def run(day: Day) -> None:
    if day.device.type == "cuda":
        for shape in SHAPES:
            measure_shape(day, shape, ["vdiff", FLEX])
    layer, conv = (small(shape) if day.quick else shape for shape in (LAYERS["seed"], CONVS["seed"]))
    for backward in (False, True):
        clock.measure(day, layers.module(layer, day.automatic(), backward), ["vdiff", "eager", layers.COMPILED])
        clock.measure(day, layers.conv(conv, "1x3x3", day.automatic(), backward), ["vdiff", "eager", layers.COMPILED])
