"""What auto chooses from, in turns: each backend that has kernels of an operator, beside auto itself. The table of preferences in
backends/registry.py follows these rows.
"""

from ....backends.registry import BACKENDS, availability
from ....bench import attention, layers
from ....bench.contest import Setting
from ....bench.presets import CONVS, FEEDFORWARD, LAYERS, SPATIAL, TEMPORAL, small
from .. import clock
from ..rows import Day


def run(day: Day) -> None:
    def some(shapes: dict) -> list:
        return [small(shape) if day.quick else shape for shape in list(shapes.values())[:: 5 if day.quick else 2]]

    def among(*operators: str) -> Setting:
        names = [name for name in BACKENDS if name != "reference" and availability(name) and name != _other(day)]
        own = {name: name for name in names if any(operator in BACKENDS[name].kernels for operator in operators)}
        return Setting(day.device, backends={"vdiff": None, **own})

    for backward in (False, True):
        for shape in some(CONVS):
            for kernel in ("1x3x3", "3x1x1"):
                _measure(day, layers.conv(shape, kernel, among("norm_act_conv"), backward))
            _measure(day, layers.norm(shape, among("norm_act"), backward))
        for shape in some(FEEDFORWARD):
            _measure(day, layers.feedforward(shape, among("geglu"), backward))
        for shape in some(TEMPORAL) + some(SPATIAL):
            _measure(day, attention.contest(shape, among("temporal_attention"), backward))
        for shape in some(LAYERS):
            _measure(day, layers.module(shape, among("temporal_attention"), backward))


def _other(day: Day) -> str:
    """The compiled library's backend of the other device."""
    return "cpu" if day.device.type == "cuda" else "cuda"


def _measure(day: Day, contest) -> None:
    ours = {"vdiff", *BACKENDS}
    clock.measure(day, contest, [rival for rival in contest.rivals if rival in ours])
