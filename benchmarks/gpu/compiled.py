"""What has to be compiled first: flex attention on three shapes, and the seed's module by torch.compile."""

from vdiff_kernels.bench.presets import LAYERS

from . import layers
from .attention import COMPILED, measure_shape
from .day import Day


def run(day: Day) -> None:
    if day.device.type == "cuda":
        for shape in COMPILED:
            measure_shape(day, shape, ["vdiff", "flex compiled"])
    layers.measure_module(day, LAYERS["seed"], ["composed", "eager", "torch.compile"])
