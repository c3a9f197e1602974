"""`vdiff train`: trains the model on moving digits."""

import contextlib
import dataclasses
import gc
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import safetensors
import torch
import typer
from torch import distributed as dist

from .. import media
from ..data.moving_digits import DIGITS, DIRECTIONS, VOCABULARY, MovingDigits
from ..diffusion import VideoDiffusion
from ..diffusion.trainer import STATE, WEIGHTS, Trainer, TrainSettings, saved_settings, saved_step
from ..diffusion.training import WEIGHTINGS
from ..interrupt import STATUS
from .options import BACKEND_OPTION, Refusal, backend_that_runs, choice, described, number, reason, refusing

SAMPLES = "samples.gif"
LOG_SECONDS = 10.0  # Between two lines where the output is no terminal.
SMOOTHED = 100  # Steps whose mean loss is shown.


def field(name: str, low: float, high: float, help: str):
    """The option of a field of TrainSettings, a number."""
    return number(f"--{name.replace('_', '-')}", low, high, **shown(name, help))


def shown(name: str, help: str) -> dict:
    """The help with the field's default, which the option itself does not have: it is None where it is not given."""
    default = getattr(TrainSettings, name)
    text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return dict(help=f"{help}  [default: {text}]", show_default=False)


def widths_of(text: str) -> tuple[int, ...]:
    try:
        widths = tuple(int(width) for width in text.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1:
        raise Refusal(f"--widths is {text!r}; expected channels of each level with commas between, such as 64,128")
    return widths


def train(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the run lives. One that is there goes on, with its own settings.")
    ],
    steps: Annotated[int | None, field("steps", 1, 10**9, "Optimizer steps in all.")] = None,
    batch: Annotated[int | None, field("batch", 1, 10**6, "Clips a step, over all processes.")] = None,
    images: Annotated[int | None, field("images", 0, 1000, "Single images trained on beside each clip.")] = None,
    lr: Annotated[float | None, field("lr", 1e-8, 1.0, "Learning rate of AdamW at its highest.")] = None,
    warmup: Annotated[int | None, field("warmup", 0, 10**9, "Steps until it is at its highest.")] = None,
    decay: Annotated[float | None, field("decay", 0.0, 1.0, "Last share of the steps, where it falls to 0.")] = None,
    ema: Annotated[float | None, field("ema", 0.0, 1.0, "Decay of the weights' average, which is kept.")] = None,
    time_power: Annotated[float | None, field("time_power", 0.01, 100.0, "Below 1: more of high noise.")] = None,
    weighting: Annotated[
        str | None, choice("--weighting", WEIGHTINGS, **shown("weighting", "Of the losses of the noise levels."))
    ] = None,
    null_rate: Annotated[float | None, field("null_rate", 0.0, 1.0, "Share of clips without their caption.")] = None,
    seed: Annotated[int | None, field("seed", 0, 2**22, "The same seed gives the same run.")] = None,
    num_frames: Annotated[int | None, field("num_frames", 1, 1024, "Frames of a clip.")] = None,
    size: Annotated[int | None, field("size", 1, 1024, "Height and width of a frame, in pixels.")] = None,
    widths: Annotated[
        tuple | None,
        typer.Option(metavar="C,C,...", parser=widths_of, **shown("widths", "Channels of the model's levels.")),
    ] = None,
    blocks: Annotated[int | None, field("blocks", 1, 100, "Residual blocks of each level.")] = None,
    patch: Annotated[int | None, field("patch", 1, 1024, "Side of the squares of pixels that the model sees.")] = None,
    head_dim: Annotated[int | None, field("head_dim", 1, 256, "Channels of a head of attention.")] = None,
    init: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights of a model to begin a new run from; its shape is the run's.")
    ] = None,
    backend: Annotated[str | None, BACKEND_OPTION] = None,
    checkpoint_seconds: Annotated[float, number("--checkpoint-seconds", 0.0, 1e9, help="Between two checkpoints.")] = 60.0,
    sample_every: Annotated[
        int, number("--sample-every", 0, 10**9, help=f"{SAMPLES} at every Nth checkpoint and the last; 0 for never.")
    ] = 5,
) -> None:  # fmt: skip
    """Trains the model on moving digits, until Ctrl-C or the last step.

    \b
      vdiff train runs/digits
      vdiff train runs/digits --steps 20000    (goes on, to 20,000)
      vdiff sample "a seven moving left" -o seven.gif --weights runs/digits/weights.safetensors
      vdiff train runs/more --init runs/digits/weights.safetensors    (a new run, from that model)

    On two processes:

    \b
      torchrun --nproc-per-node 2 -m vdiff_kernels.cli train runs/digits
    """
    ran = backend_that_runs(backend)
    require_folder(folder)
    given = {setting.name: context.params[setting.name] for setting in dataclasses.fields(TrainSettings)}
    changes = {name: value for name, value in given.items() if value is not None}
    model = None if init is None else model_to_begin_from(init, folder)
    shape = {} if model is None else shape_of(model, changes)
    settings = dataclasses.replace(saved_settings(folder) or TrainSettings(), **changes, **shape)
    require_geometry(settings)

    with process_group():
        run(made_trainer(settings, folder, backend, model), ran, checkpoint_seconds, sample_every)


def digits(settings: TrainSettings) -> MovingDigits:
    return MovingDigits("train", settings.num_frames, settings.size, seed=settings.seed)


def made_trainer(settings: TrainSettings, folder: Path, backend: str | None, model: VideoDiffusion | None) -> Trainer:
    try:
        with refusing():
            trainer = Trainer(settings, folder, digits(settings), backend, model)
    except ImportError as error:
        raise Refusal(str(error)) from None
    if trainer.step > settings.steps:
        raise Refusal(f"--steps is {settings.steps}; expected at least {trainer.step}, which the run in {folder} has done")
    return trainer


def run(trainer: Trainer, ran: str, checkpoint_seconds: float, sample_every: int) -> None:
    folder, chief = trainer.folder, trainer.rank == 0
    checkpoints = 0

    def on_checkpoint(trainer: Trainer) -> None:
        nonlocal checkpoints
        checkpoints += 1
        last = trainer.step == trainer.settings.steps
        if sample_every > 0 and (last or checkpoints % sample_every == 0):
            write_samples(trainer)

    progress = Progress(trainer)
    try:
        if chief:
            folder.mkdir(exist_ok=True)
            typer.echo(f"{folder}: step {trainer.step} of {trainer.settings.steps}, by {described(ran)}")
        trainer.run(checkpoint_seconds, progress, on_checkpoint)
    except KeyboardInterrupt:
        if chief:
            progress.end()
            typer.echo(f"vdiff train: interrupted; the same command goes on from step {saved_step(folder)} in {folder}", err=True)
        raise typer.Exit(STATUS) from None
    except BrokenPipeError:  # of the output
        raise
    except (OSError, safetensors.SafetensorError) as error:
        progress.end()
        step = saved_step(folder)
        raise Refusal(f"FOLDER {str(folder)!r} cannot be written ({reason(error)}); it has step {step}") from None
    if chief:
        progress.end()
        typer.echo(f"{folder / WEIGHTS}: the model after {trainer.step} steps")


class Progress:
    """on_step of a trainer: one line, again and again on a terminal, every LOG_SECONDS elsewhere."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.first = trainer, trainer.step
        self.began = self.shown = time.monotonic()
        self.live = sys.stdout.isatty()
        self.line = ""

    def __call__(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            self.end()
            raise Refusal(f"--lr is {self.trainer.settings.lr}, and the loss {loss} at step {step}; expected a lower one")
        now = time.monotonic()
        settings, rate = self.trainer.settings, (step - self.first) / max(now - self.began, 1e-9)
        recent = [loss for _, loss in self.trainer.losses[-SMOOTHED:]]
        minutes = math.ceil((settings.steps - step) / rate / 60)
        self.line = (
            f"step {step}/{settings.steps}  loss {sum(recent) / len(recent):.4f}  {rate * settings.batch:.1f} clips/s  "
            f"{minutes} min left"
        )
        if now - self.shown > (0.2 if self.live else LOG_SECONDS):
            self.show()

    def show(self) -> None:
        print(f"\r{self.line}\033[K" if self.live else self.line, end="" if self.live else "\n", flush=True)
        self.line, self.shown = "", time.monotonic()

    def end(self) -> None:
        """Shows the last step, where it is not shown yet, and ends the line."""
        if self.line:
            self.show()
        if self.live and self.shown > self.began:
            print(flush=True)


def write_samples(trainer: Trainer) -> None:
    """One clip for each direction, of the averaged weights: the same prompts and noise at every checkpoint."""
    prompts = [f"a {DIGITS[place]} moving {direction}" for place, direction in enumerate(DIRECTIONS)]
    clips = trainer.averaged().sample(prompts, generator=torch.Generator().manual_seed(0))
    scale = max(1, media.default_scale(*clips.shape[-2:]) // 2)
    media.save_video(trainer.folder / SAMPLES, media.grid(clips, columns=4), scale=scale)


def model_to_begin_from(file: Path, folder: Path) -> VideoDiffusion:
    if (folder / STATE).exists():
        raise Refusal(f"--init is given, and the run in {folder} has begun; expected a new folder, or no --init to go on")
    with refusing("--init"):
        return VideoDiffusion.load(file)


def shape_of(model: VideoDiffusion, changes: dict) -> dict:
    """The settings that the model to begin from decides; removes from `changes` those given alike, refuses others."""
    with refusing("--init"):
        shape = TrainSettings.of_model(model, VOCABULARY)
    for name in shape.keys() & changes.keys():
        given = changes.pop(name)
        if given != shape[name]:
            raise Refusal(f"--{name.replace('_', '-')} is {given}; expected {shape[name]}, as the model of --init has, or none")
    return shape


def require_folder(folder: Path) -> None:
    with refusing("FOLDER"):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{str(folder)!r} is a file; expected a folder, or a new name")
        if not folder.exists() and not folder.parent.is_dir():
            raise FileNotFoundError(f"{str(folder)!r}: no folder {str(folder.parent)!r}; expected one in which to make it")
        try:
            with tempfile.TemporaryFile(dir=folder if folder.exists() else folder.parent):
                pass
        except OSError as error:
            raise OSError(f"{str(folder)!r} cannot be written ({error.strerror}); expected a writable folder") from None


def require_geometry(settings: TrainSettings) -> None:
    if any(width % settings.head_dim != 0 for width in settings.widths):
        widths = ",".join(map(str, settings.widths))
        raise Refusal(f"--widths is {widths}; expected multiples of {settings.head_dim}, the --head-dim")
    step, levels = settings.patch * 2 ** (len(settings.widths) - 1), len(settings.widths)
    if settings.size % step != 0:
        raise Refusal(
            f"--size is {settings.size}; expected a multiple of {step}, for --patch {settings.patch} and {levels} --widths"
        )


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """That of torchrun, where it started this process. What uses it, a Trainer, has to be gone at the end: as the group's last
    owner, DistributedDataParallel would hold the GIL while it waits for a thread of gloo that may be waiting for the GIL.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        gc.collect()
        dist.destroy_process_group()
