"""Blocks of diffusers' models, in bfloat16: themselves, and through this package's operators, by whatever backend auto takes.

Where diffusers is on the path; a wheel of it is enough (benchmarks/gpu_day.sh takes a folder of wheels).
"""

import torch

from ....bench.contest import Contest, relative_error
from ....bench.rooflines import Work
from ....integrations import animatediff
from .. import clock
from ..rows import Day, first_line

FRAMES = 16


def run(day: Day) -> None:
    try:
        from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
    except ImportError as error:
        return day.add("absent", "diffusers", why=first_line(error))
    for channels, side in [(320, 4)] if day.quick else [(320, 64), (640, 32)]:
        with torch.device(day.device):
            module = AnimateDiffTransformer3D(
                8, channels // 8, channels, positional_embeddings="sinusoidal", num_positional_embeddings=32
            ).to(torch.bfloat16)  # fmt: skip
            torch.nn.init.normal_(module.proj_out.weight, std=channels**-0.5)  # zeros would hide all that stands before
        xs = [day.randn(2 * FRAMES, channels, side, side) for _ in range(2)]
        measure(day, f"AnimateDiffTransformer3D B2 T{FRAMES} H{side} W{side} C{channels} fwd", module.requires_grad_(False), xs)


def measure(day: Day, name: str, module, xs: list[torch.Tensor]) -> None:
    expected = module.float()(xs[0].float(), num_frames=FRAMES)
    module.bfloat16()
    rivals = {
        "vdiff": lambda i: animatediff.motion_module(module, xs[i], FRAMES),
        "diffusers": lambda i: module(xs[i], num_frames=FRAMES),
    }
    errors = lambda rival, result: relative_error(result, expected)  # noqa: E731
    counted = Work(2 * xs[0].nbytes, 0)
    clock.measure(day, Contest(name, "AnimateDiffTransformer3D", False, rivals, len(xs), errors, counted))
