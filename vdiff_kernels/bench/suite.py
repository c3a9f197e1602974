"""The contests of a preset, by operator: what `vdiff bench` and the pytest-benchmark files run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from . import attention, layers, models
from .contest import Contest, Setting
from .presets import PRESETS, direction

OPERATORS = (
    "temporal_attention", "spatial_attention", "norm_act_conv", "norm_act", "geglu", "TemporalAttention", "VideoUNet",
    "AnimateDiffTransformer3D", "UNetMotionModel",
)  # fmt: skip
BASELINES = {  # by the word of --baseline, how the names of its rivals begin
    "eager": ("eager", "diffusers"), "sdpa": ("SDPA",), "compile": (layers.COMPILED,), "flex": (attention.FLEX,),
}  # fmt: skip
SHOWN = ("eager", "sdpa")  # unless asked for others, which compile for many seconds


@dataclass(frozen=True)
class Planned:
    """A contest before its inputs are made."""

    preset: str
    operator: str
    label: str
    make: Callable[[], Contest]


def planned(presets: list[str], operators: list[str], setting: Setting, backward: list[bool]) -> Iterator[Planned]:
    for name in presets:
        for operator in operators:
            for back in backward:
                for label, make in _contests(name, operator, setting, back):
                    yield Planned(name, operator, f"{label} {direction(back)}", make)


def _contests(preset: str, operator: str, setting: Setting, backward: bool) -> list[tuple[str, Callable[[], Contest]]]:
    shapes = PRESETS[preset]
    if operator in ("temporal_attention", "spatial_attention"):
        own = [shape for shape in shapes.attention if shape.operator == operator]
        return [(shape.label, lambda shape=shape: attention.contest(shape, setting, backward)) for shape in own]
    if operator == "norm_act_conv":
        return [
            (f"{kernel} {layers.label(shape)}", lambda shape=shape, kernel=kernel: layers.conv(shape, kernel, setting, backward))
            for shape in shapes.convs for kernel in ("1x3x3", "3x1x1")
        ]  # fmt: skip
    if operator in ("norm_act", "geglu", "TemporalAttention"):
        maker, own = {
            "norm_act": (layers.norm, shapes.convs), "geglu": (layers.feedforward, shapes.rows),
            "TemporalAttention": (layers.module, shapes.modules),
        }[operator]  # fmt: skip
        return [(layers.label(shape), lambda shape=shape: maker(shape, setting, backward)) for shape in own]
    if operator == "VideoUNet" and shapes.unet:
        return [("a step", lambda: models.unet(shapes.unet, setting, backward))]
    if operator == "AnimateDiffTransformer3D" and shapes.block and not backward:
        return [("a motion module", lambda: models.motion_module(shapes.block, setting))]
    if operator == "UNetMotionModel" and shapes.patched and not backward:
        return [("a patched U-Net", lambda: models.patched_unet(shapes.patched, setting))]
    return []


def chosen(contest: Contest, setting: Setting, baselines: tuple[str, ...]) -> list[str]:
    """The rivals of those baselines, ours first. A name of theirs is taken too."""
    wanted = tuple(start for word in baselines for start in BASELINES.get(word, (word,)))
    return [name for name in contest.rivals if name in setting.backends or name.startswith(wanted)]


def default_dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32
