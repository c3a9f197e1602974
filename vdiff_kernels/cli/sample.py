"""`vdiff sample`: a video from a prompt."""

import inspect
import secrets
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from tqdm import tqdm

from .. import media
from ..diffusion import VideoDiffusion
from ..diffusion.sampler import SAMPLERS
from .options import BACKEND_OPTION, Refusal, backend_that_runs, choice, described, number, refusing

DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(VideoDiffusion.sample).parameters.items()}
MAX_FRAMES = 1024


def sample(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help='What to show: "a seven moving left", "a zero moving up and right", "a two".')
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write: .gif, .mp4, or .png, a sheet of all frames.")
    ],
    frames: Annotated[
        int | None, number("--frames", 1, MAX_FRAMES, show_default="as trained", help="Number of frames.")
    ] = None,
    steps: Annotated[
        int, number("--steps", 1, 1000, help="Denoising steps: more take longer, and may look better.")
    ] = DEFAULTS["steps"],
    sampler: Annotated[str, choice("--sampler", SAMPLERS, help="How a step is taken.")] = DEFAULTS["sampler"],
    guidance: Annotated[
        float, number("--guidance", 0.0, 100.0, help="How strongly to follow the prompt: 0 not at all, 1 plainly.")
    ] = DEFAULTS["guidance"],
    seed: Annotated[
        int | None, number("--seed", 0, 2**63 - 1, show_default="a new one", help="The same seed gives the same video.")
    ] = None,
    first_frame: Annotated[
        Path | None, typer.Option(metavar="IMAGE", help="An image to begin with, of the size of the model's frames.")
    ] = None,
    extend_to: Annotated[
        int | None, number("--extend-to", 1, MAX_FRAMES, help="Go on, clip after clip, to N frames in all.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default="those that ship", help="Weights of another model, from vdiff train."),
    ] = None,
    backend: Annotated[str | None, BACKEND_OPTION] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also run the reference backend from the same seed, and print what differs.")
    ] = False,
    fps: Annotated[float, number("--fps", 0.1, media.MAX_FPS, help="Frames a second.")] = media.FPS,
    scale: Annotated[
        int | None,
        number("--scale", 1, media.MAX_SIDE, show_default="to about 256 pixels", help="Times to enlarge each pixel."),
    ] = None,
) -> None:  # fmt: skip
    """Makes a video from a line of text.

    \b
      vdiff sample "a seven moving left" -o seven.gif
      vdiff sample "a two moving down" -o two.mp4 --extend-to 40
      vdiff sample "a four moving up" -o sheet.png --seed 1 --compare
    """
    with refusing("--output"):
        media.check_output(output)
    ran = backend_that_runs(backend)
    model = load(weights, backend)
    with refusing():
        model.text.count([prompt])
    with refusing("--scale"):
        media.check_scale(1 if scale is None else scale, *model.size)
    with refusing("--first-frame"):
        image = None if first_frame is None else media.load_image(first_frame, model.space.channels, model.size)
    frames = model.num_frames if frames is None else frames
    overlap = None if extend_to is None else overlap_of(model, frames, extend_to)
    seed = secrets.randbelow(2**32) if seed is None else seed

    def run(model: VideoDiffusion, name: str) -> tuple[Tensor, float]:
        """The video (C, T, H, W) and the seconds it took."""
        clips = 1 if overlap is None else 1 - (frames - extend_to) // (model.num_frames - overlap)
        settings = dict(steps=steps, sampler=sampler, guidance=guidance, generator=torch.Generator().manual_seed(seed))
        began = time.perf_counter()
        with tqdm(total=steps * clips, desc=name, unit="step", leave=False, disable=None) as bar:
            settings["callback"] = lambda step, x: bar.update()
            if image is None:
                video = model.sample(prompt, num_frames=frames, **settings)
            else:
                video = model.animate(prompt, image, num_frames=frames, **settings)
            if overlap is not None:
                video = model.extend(prompt, video, extend_to, overlap=overlap, **settings)
        if not video.isfinite().all():
            raise Refusal(f"--weights is {str(weights)!r}, which give pixels that are no numbers; expected whole weights")
        return video[0], time.perf_counter() - began

    video, seconds = run(model, "sampling")
    with refusing(f"--output {str(output)!r}"):
        media.save_video(output, video, fps=fps, scale=scale)
    typer.echo(f"{output}: {video.shape[1]} frames, seed {seed}")
    typer.echo(f"sampled in {seconds:.1f} s by {described(ran)}")
    if compare:
        other, other_seconds = run(load(weights, "reference"), "reference")
        difference = levels(video).sub(levels(other)).abs().max().item()
        typer.echo(f"reference: {other_seconds:.1f} s; largest difference of a pixel: {difference} of 255 levels")


def load(weights: Path | None, backend: str | None) -> VideoDiffusion:
    with refusing():
        return VideoDiffusion.load(weights, backend)


def overlap_of(model: VideoDiffusion, frames: int, extend_to: int) -> int:
    """How many frames a clip has in common with the one before: half of the clip."""
    overlap = model.num_frames // 2
    if overlap < 1:
        raise Refusal("--extend-to is given; expected a model of clips: this one's have a single frame")
    if frames < overlap:
        raise Refusal(f"--frames is {frames}; expected at least {overlap} with --extend-to, which goes on from the last of them")
    if extend_to < frames:
        raise Refusal(f"--extend-to is {extend_to}; expected at least the {frames} frames of the first clip")
    return overlap


def levels(video: Tensor) -> Tensor:
    return (video * 255).round().int()
