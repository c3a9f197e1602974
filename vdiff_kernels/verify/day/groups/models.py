"""End to end: a step of the reference UNet with the weights that ship, and a whole clip, by what auto makes of each part."""

import torch

from ....bench import models
from ....bench.contest import relative_error
from ....diffusion import VideoDiffusion
from .. import clock
from ..rows import Day

PROMPT = "a seven moving left"
CLOSE = 1e-2  # relative error of float32 on another device


def run(day: Day) -> None:
    torch.backends.cudnn.allow_tf32 = False
    day.attempt("reference UNet, one step", lambda: one_step(day))
    day.attempt("a clip", lambda: one_clip(day))
    day.attempt("a training step", lambda: one_training_step(day))
    if day.device.type == "cuda":
        for backward in (False, True):
            clock.measure(day, models.unet((16, 32, 32), day.automatic(), backward))


def pipeline(device: torch.device | str, backend: str | None = None) -> VideoDiffusion:
    found = VideoDiffusion.load(backend=backend)
    found.modules.to(device)
    return found


def arguments(device: torch.device | str, clips: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(clips, 1, 16, 32, 32, generator=generator)
    text = torch.randn(clips, 192, generator=generator)
    return z.to(device), torch.zeros(clips, device=device), text.to(device)


def compared(actual: torch.Tensor, expected: torch.Tensor) -> dict:
    error = relative_error(actual.cpu(), expected)
    return {"passed": error < CLOSE, "relative_error": error}


def one_step(day: Day) -> dict:
    with torch.no_grad():
        expected = pipeline("cpu", "reference").unet(*arguments("cpu"))
        return compared(pipeline(day.device).unet(*arguments(day.device)), expected)


def one_clip(day: Day) -> dict:
    """A generator of the CPU draws the same noise for every device."""
    videos = [
        found.sample(PROMPT, steps=1 if day.quick else 3, sampler="ddim", generator=torch.Generator().manual_seed(0))
        for found in (pipeline(day.device), pipeline("cpu", "reference"))
    ]
    return compared(*videos)


def one_training_step(day: Day) -> dict:
    """The gradient of every parameter, as one vector."""
    found = []
    for device, backend in ((day.device, None), ("cpu", "reference")):
        unet = pipeline(device, backend).unet.requires_grad_()
        unet(*arguments(device, 1)).square().mean().backward()
        found.append(torch.cat([p.grad.flatten().cpu() for p in unet.parameters() if p.grad is not None]))
    return compared(*found)
