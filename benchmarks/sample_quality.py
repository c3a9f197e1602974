"""How good a text-to-video model's moving digits are: a table, with the same figures of real clips beside them.

Every caption is sampled equally often, with the defaults of VideoDiffusion.sample. Real clips have held-out digits, which the
model never saw. Which digit a clip shows is read by a classifier that is trained here on those digits, so that its real clips
have the digits that *it* never saw, the model's training digits: its own accuracy. Definitions: benchmarks/digit_metrics.py.
Run: python -m benchmarks.sample_quality --help
"""

import argparse
import dataclasses
import hashlib
import inspect
import itertools
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import vdiff_kernels
from vdiff_kernels.backends.registry import BACKENDS
from vdiff_kernels.data.moving_digits import DIGITS, DIRECTIONS, MovingDigits, random_stream
from vdiff_kernels.diffusion import VideoDiffusion
from vdiff_kernels.diffusion.guidance import text_guided
from vdiff_kernels.diffusion.pipeline import shipped_weights
from vdiff_kernels.diffusion.sampler import SAMPLERS
from vdiff_kernels.files import written_whole

from . import digit_metrics as metrics

_PAIRS = list(itertools.product(range(10), DIRECTIONS))
# (digit, direction) of the 80 captions, in steps of 3, so that the first few of them have every digit and every direction.
WANTED = [_PAIRS[3 * i % len(_PAIRS)] for i in range(len(_PAIRS))]
REAL_PER_CAPTION = 10
REAL_SEED, KNOWN_SEED = 1_000_001, 1_000_002  # Of MovingDigits; not a seed that a model is trained with.


@dataclasses.dataclass
class Figure:
    """A row of the table."""

    name: str
    samples: float | None  # None where the samples are too few for it.
    real: float | None = None  # None where real clips have no such figure.
    form: str = ".1%"  # Format of both.
    bar: str = ""
    met: bool | None = None  # None without a bar.
    note: str = ""


class SampleQuality:
    """The clips that figures are computed from, each kind made when the first figure asks for it, and the figures.

    Raises ValueError for a model of something else than moving digits.
    """

    def __init__(
        self,
        pipeline: VideoDiffusion,
        *,
        per_caption: int = 3,           # Samples of each caption.
        guided: int = 80,               # Clips of each kind with known frames, each of another caption.
        batch: int = 16,                # Clips sampled at once.
        seed: int = 0,                  # Of the noise.
        arguments: dict | None = None,  # Of VideoDiffusion.sample, in the place of its defaults.
    ):  # fmt: skip
        self.pipeline, self.batch, self.seed, self.arguments = pipeline, batch, seed, arguments or {}
        self.wanted, self.guided, self.real = WANTED * per_caption, WANTED[:guided], WANTED * REAL_PER_CAPTION
        self.T, size = pipeline.num_frames, pipeline.size
        pipeline.unet.text.count(captions(WANTED))  # raises for a vocabulary of other words
        if pipeline.unet.channels != 1 or size[0] != size[1] or self.T < 9:  # in fewer, a slow digit moves less than MIN_LENGTH
            shape = (pipeline.unet.channels, self.T, *size)
            raise ValueError(f"the model makes clips of (C, T, H, W) = {shape}; expected C = 1, T of 9 and more, and H = W")
        MovingDigits("test", self.T, size[0])  # raises for frames too small for a digit to move in
        self.seconds = None  # To sample a clip, once that is known.

    @property
    def settings(self) -> dict:
        """What VideoDiffusion.sample runs with."""
        names = ("sampler", "steps", "guidance", "rescale", "reconstruction")
        parameters = inspect.signature(VideoDiffusion.sample).parameters
        return {name: parameters[name].default for name in names} | self.arguments

    @cached_property
    def samples(self) -> Tensor:
        start = time.perf_counter()
        videos = self._sample("samples", self.pipeline.sample, self.wanted)
        self.seconds = (time.perf_counter() - start) / len(videos)
        return videos

    @cached_property
    def held_out(self) -> Tensor:
        return self._clips("test", self.real, REAL_SEED)

    @cached_property
    def known(self) -> Tensor:
        """Clips of held-out digits, some of whose frames are given to the model."""
        return self._clips("test", self.guided, KNOWN_SEED)

    @cached_property
    def classifier(self) -> metrics.DigitClassifier:
        return metrics.DigitClassifier("test", size=self.pipeline.size[0])

    def digit(self) -> list[Figure]:
        def right(videos, wanted):
            log_probabilities, asked = self.classifier(videos), digits(wanted)
            frames = metrics.frames_right(log_probabilities, asked)
            return metrics.clips_right(log_probabilities, asked), frames, frames.all(1)

        names, bars = ("clips", "frames", "clips, in every frame"), (0.97, 0.97, 0.95)
        samples, real = right(self.samples, self.wanted), right(self._clips("train", self.real, REAL_SEED), self.real)
        return [share(f"asked digit: {name}", *rest) for name, *rest in zip(names, samples, real, bars)]

    def direction(self) -> list[Figure]:
        right = metrics.moves_as_asked(self.samples, directions(self.wanted))
        return [share("asked direction", right, metrics.moves_as_asked(self.held_out, directions(self.real)), 0.98)]

    def shape(self) -> list[Figure]:
        samples, real = (metrics.shape_deviations(videos).mean().item() for videos in (self.samples, self.held_out))
        met, note = samples <= 3 * real, f"{samples / real:.2f}x real"
        return [Figure("shape held: deviation of the frames", samples, real, ".4f", "at most 3x real", met, note)]

    def copies(self) -> list[Figure]:
        samples, real = metrics.canonical_digits(self.samples), metrics.canonical_digits(self.held_out)
        images = MovingDigits("train", size=self.pipeline.size[0]).images
        distances = metrics.nearest_distances(torch.cat((samples, real)), images).split((len(samples), len(real)))
        means = [each.mean().item() for each in distances]
        errors = ", ".join(f"{each.std().item() / math.sqrt(len(each)):.4f}" for each in distances)
        note = f"{means[0] / means[1]:.2f}x real; standard errors {errors}"
        return [
            Figure("not copies: nearest training digit", *means, ".4f", "at least real", means[0] >= means[1], note),
            self._spread("spread within a caption", samples, real, lambda wanted: wanted, bar="within 20% of real"),
            self._spread("spread within a digit", samples, real, lambda wanted: wanted[0]),
        ]

    def _spread(self, name: str, samples: Tensor, real: Tensor, group: Callable, bar: str = "") -> Figure:
        a = metrics.spread(samples, [group(wanted) for wanted in self.wanted])
        b = metrics.spread(real, [group(wanted) for wanted in self.real])
        if a is None:
            return Figure(name, a, b, ".4f", bar, note="needs two samples a caption")
        return Figure(name, a, b, ".4f", bar, 0.8 <= a / b <= 1.2 if bar else None, f"{a / b:.2f}x real")

    def first_frame(self) -> list[Figure]:
        """PSNR of the given frame in the clip, where the sampler puts it whole, and as the model itself sees it in the last step.

        In that step the frame has noise of some 25 dB on it.
        """
        estimates = []

        def animate(prompts, known, **arguments):
            seen = {}  # what the model was last called with
            with self.pipeline.unet.register_forward_pre_hook(lambda _, inputs: seen.update(z=inputs[0], logsnr=inputs[1])):
                videos = self.pipeline.animate(prompts, known[:, :, 0], **arguments)
            estimates.append(self._estimate(prompts, seen["z"][: len(prompts)], seen["logsnr"][0]))
            return videos

        videos = self._sample("first frame fixed", animate, self.guided, self.known)
        name, bar, given = "first frame fixed: PSNR, dB", "over 30", self.known[:, :, 0]
        own, kept = psnr(torch.cat(estimates)[:, :, 0], given), psnr(videos[:, :, 0], given)
        return [
            Figure(name, kept, None, ".1f", bar, kept > 30, "as it is in the clip; 120 at most"),
            Figure(name, own, None, ".1f", bar, own > 30, "as the model estimates it in the last step"),
            *self._kept("first frame fixed", videos, range(1, self.T)),
        ]

    @torch.no_grad()
    def _estimate(self, prompts: list[str], z: Tensor, logsnr: Tensor) -> Tensor:
        """The pixels that the model sees in z, by the text alone: no known frame is put in."""
        unet, settings = self.pipeline.unet, self.settings
        guided = {name: settings[name] for name in ("guidance", "rescale")}
        return self.pipeline.to_pixels(text_guided(unet, unet.text(prompts), unet.text.null, **guided)(z.detach(), logsnr))

    def extension(self) -> list[Figure]:
        def extend(prompts, clips, **arguments):
            return self.pipeline.extend(prompts, clips, 2 * self.T, **arguments)

        videos = self._sample("extension", extend, self.guided, self.samples[: len(self.guided)])
        return self._kept(f"{2 * self.T} frames", videos, range(self.T), range(self.T, 2 * self.T))

    def interpolation(self) -> list[Figure]:
        places = [round(i * (self.T - 1) / 3) for i in range(4)]
        others = [frame for frame in range(self.T) if frame not in places]

        def interpolate(prompts, known, **arguments):
            return self.pipeline.sample(prompts, known=known, known_frames=places, **arguments)

        videos = self._sample("4 frames known", interpolate, self.guided, self.known)
        faded = cross_fade(self.known, places)
        errors = [(clips - self.known)[:, :, others].square().mean().sqrt().item() for clips in (videos, faded)]
        return [
            *self._kept("4 frames known", videos, others),
            Figure("4 frames known: RMS error of the others", errors[0], form=".4f", note=f"a cross-fade has {errors[1]:.4f}"),
        ]

    def _kept(self, name: str, videos: Tensor, *parts: Iterable[int]) -> list[Figure]:
        """Whether clips with known frames are as asked in the frames of `parts`, the digit in each part for itself."""
        asked, ways = digits(self.guided), directions(self.guided)
        parts = [list(part) for part in parts]

        def right(videos):
            log_probabilities = self.classifier(videos)
            digit = torch.stack([metrics.clips_right(log_probabilities[:, part], asked) for part in parts]).all(0)
            moves = metrics.moves_as_asked(videos[:, :, sum(parts, [])], ways)
            return digit, moves, digit & moves

        real = right(self._clips("train", self.guided, KNOWN_SEED, videos.shape[2]))
        names = ("asked digit", "asked direction", "both")
        return [share(f"{name}: {which}", *shares, 0.95) for which, *shares in zip(names, right(videos), real)]

    def _sample(self, name: str, call: Callable, wanted: list, *given: Tensor) -> Tensor:
        """call(prompts, *given, **arguments) by batches, whose noise follows from the seed, the name and the batch size."""
        videos = []
        with tqdm(total=len(wanted), desc=name, unit="clip") as bar:
            for i in range(0, len(wanted), self.batch):
                prompts = captions(wanted[i : i + self.batch])
                parts = [clips[i : i + self.batch] for clips in given]
                videos.append(call(prompts, *parts, generator=random_stream(name, self.seed, i), **self.arguments))
                bar.update(len(prompts))
        return torch.cat(videos)

    def _clips(self, split: str, wanted: list, seed: int, num_frames: int | None = None) -> Tensor:
        data = MovingDigits(split, num_frames or self.T, self.pipeline.size[0], seed=seed)
        return torch.stack([data.clip(index, *each).video for index, each in enumerate(wanted)])


FIGURES = {
    "digit": SampleQuality.digit,
    "direction": SampleQuality.direction,
    "shape": SampleQuality.shape,
    "copies": SampleQuality.copies,
    "first-frame": SampleQuality.first_frame,
    "extension": SampleQuality.extension,
    "interpolation": SampleQuality.interpolation,
}


def captions(wanted: list) -> list[str]:
    return [f"a {DIGITS[digit]} moving {direction}" for digit, direction in wanted]


def digits(wanted: list) -> Tensor:
    return torch.tensor([digit for digit, _ in wanted])


def directions(wanted: list) -> list[str]:
    return [direction for _, direction in wanted]


def share(name: str, samples: Tensor, real: Tensor, bar: float) -> Figure:
    """samples and real: bool, of which a share of `bar` and more is to be true."""
    value, real_value = (each.double().mean().item() for each in (samples, real))
    return Figure(name, value, real_value, ".1%", f"at least {bar:.0%}", value >= bar)


def psnr(pixels: Tensor, truth: Tensor) -> float:
    """Mean over the batch of each one's peak signal-to-noise ratio in dB, at most 120."""
    error = (pixels - truth).square().flatten(1).mean(1).clamp(min=1e-12)
    return (-10 * error.log10()).mean().item()


def cross_fade(videos: Tensor, places: list[int]) -> Tensor:
    """Every frame between two of `places` as their mix, linear in time."""
    faded = videos.clone()
    for low, high in itertools.pairwise(places):
        for frame in range(low + 1, high):
            faded[:, :, frame] = torch.lerp(videos[:, :, low], videos[:, :, high], (frame - low) / (high - low))
    return faded


def table(figures: list[Figure]) -> str:
    def text(value, form):
        return "-" if value is None else format(value, form)

    verdict = {None: "", True: "met", False: "missed"}
    rows = [("figure", "samples", "real clips", "bar", "", "")]
    rows += [(f.name, text(f.samples, f.form), text(f.real, f.form), f.bar, verdict[f.met], f.note) for f in figures]
    widths = [max(map(len, column)) for column in zip(*rows)]
    aligns = "<>><<<"
    lines = ["  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, aligns, widths)).rstrip() for row in rows]
    return "\n".join(lines)


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")


def parsed(argv: list[str] | None) -> argparse.Namespace:
    def positive(text):
        if int(text) < 1:
            raise ValueError
        return int(text)

    parser = Parser("python -m benchmarks.sample_quality", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--weights", type=Path, metavar="FILE", help="of `vdiff train`; default: the ones that ship")
    add("--samples-per-caption", type=positive, default=3, metavar="N", help="of each of 80 captions (default: 3)")
    add("--quick", action="store_true", help="one sample a caption, and 27 clips of each kind with known frames in place of 80")
    add("--only", nargs="+", choices=FIGURES, default=list(FIGURES), metavar="FIGURES", help=f"some of: {', '.join(FIGURES)}")
    add("--batch", type=positive, default=16, metavar="N", help="clips sampled at once (default: 16)")
    add("--seed", type=int, default=0, metavar="N", help="of the noise (default: 0)")
    add("--backend", choices=BACKENDS, help="of the model (default: the best there is)")
    add("--json", type=Path, metavar="FILE", help="write the figures there as well")
    for name, kind in ("steps", positive), ("guidance", float), ("rescale", float), ("reconstruction", float):
        add(f"--{name}", type=kind, metavar="N", help="in the place of VideoDiffusion.sample's default")
    add("--sampler", choices=sorted(SAMPLERS), help="in the place of VideoDiffusion.sample's default")
    options = parser.parse_args(argv)
    if options.backend and not vdiff_kernels.availability(options.backend):
        parser.error(str(vdiff_kernels.availability(options.backend)))
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"--json {str(options.json)!r}: its folder does not exist")
    names = ("sampler", "steps", "guidance", "rescale", "reconstruction")
    try:
        options.quality = SampleQuality(
            VideoDiffusion.load(options.weights, options.backend),
            per_caption=1 if options.quick else options.samples_per_caption,
            guided=27 if options.quick else len(WANTED),
            batch=options.batch,
            seed=options.seed,
            arguments={name: getattr(options, name) for name in names if getattr(options, name) is not None},
        )
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    return options


def main(argv: list[str] | None = None) -> int:
    options = parsed(argv)
    quality, weights = options.quality, options.weights or shipped_weights()
    run = {
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "weights": weights.name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()[:12],
        "backend": options.backend or "auto",
        "frames": f"{quality.T}x{quality.pipeline.size[0]}x{quality.pipeline.size[1]}",
        "samples": len(quality.wanted),
        "seed": options.seed,
        **quality.settings,
    }
    figures = [figure for name in FIGURES if name in options.only for figure in FIGURES[name](quality)]
    if quality.seconds is not None:
        run["seconds a clip"] = round(quality.seconds, 2)
    print(", ".join(f"{name} {value}" for name, value in run.items()))
    print(table(figures))
    if options.json:
        with written_whole(options.json) as draft:
            draft.write_text(json.dumps({"run": run, "figures": [dataclasses.asdict(f) for f in figures]}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
