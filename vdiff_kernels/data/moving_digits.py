"""Clips of a real handwritten digit that moves, with captions such as "a three moving up and right"."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..streams import random_stream

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Name to the unit step (y, x) of a frame, y downwards.
DIRECTIONS = {
    "left": (0.0, -1.0),
    "right": (0.0, 1.0),
    "up": (-1.0, 0.0),
    "down": (1.0, 0.0),
    "up and left": (-math.sqrt(0.5), -math.sqrt(0.5)),
    "up and right": (-math.sqrt(0.5), math.sqrt(0.5)),
    "down and left": (math.sqrt(0.5), -math.sqrt(0.5)),
    "down and right": (math.sqrt(0.5), math.sqrt(0.5)),
}
VOCABULARY = ("a", *DIGITS, "moving", "left", "right", "up", "down", "and")
SPEEDS = (0.5, 0.75, 1.0)  # Pixels a frame.
SIZES = (0.9, 1.1)  # Least and greatest height and width, as a share of digit_size.
MIN_PATH = 7.5  # Pixels that a digit moves at the least, so that the caption is true of every clip.
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Clip:
    """A captioned clip. The digit moves until its clip ends or it meets the edge of the frame, and rests there."""

    # fmt: off
    video: Tensor   # (1, T, H, W) float32 in [0, 1].
    caption: str
    digit: int
    direction: str  # A key of DIRECTIONS; "" for a single image, which does not move.
    source: int     # Index of the digit's image in scikit-learn's load_digits().
    # fmt: on


class MovingDigits:
    """Clips and single images of moving digits, without end: index i is the same clip for the same seed, on every machine.

    The digits are scikit-learn's 1,797 images of 8 x 8 (UCI's optical recognition of handwritten digits), split by image: every
    third is of the test split. Each clip turns, slants and sizes its digit a little, as hands do.
    """

    vocabulary = VOCABULARY

    def __init__(
        self,
        split: str = "train",      # "train" or "test": no image is in both.
        num_frames: int = 16,      # T.
        size: int = 32,            # H = W, in pixels.
        digit_size: float = 14.0,  # Height of the digit's 8 x 8 image in pixels, before its variation.
        seed: int = 0,
    ):  # fmt: skip
        if split not in SPLITS:
            raise ValueError(f"MovingDigits: split is {split!r}; expected one of {', '.join(map(repr, SPLITS))}")
        room = size - SIZES[1] * digit_size
        if num_frames < 1 or room < 1.1 * MIN_PATH:
            raise ValueError(
                f"MovingDigits: num_frames is {num_frames}, size {size} and digit_size {digit_size}; expected at least one frame "
                f"and a size of {SIZES[1]} * digit_size + {1.1 * MIN_PATH:g} and more"
            )
        self.num_frames, self.size, self.digit_size, self.seed = num_frames, size, digit_size, seed
        self.reach = room / 2  # of a digit's centre, from the middle of the frame
        self.images, self.labels, self.sources = _load_split(split)

    def clip(self, index: int, digit: int | None = None, direction: str | None = None) -> Clip:
        """Clip `index`; of the digit and the direction asked, where given."""
        if direction is not None and direction not in DIRECTIONS:
            raise ValueError(f"MovingDigits.clip: direction is {direction!r}; expected one of {', '.join(map(repr, DIRECTIONS))}")
        random = _Random("clip", self.seed, index)
        image = self._choose(random, digit)
        names = tuple(DIRECTIONS)
        drawn = names[random.integer(len(names))]
        direction = drawn if direction is None else direction
        step = torch.tensor(DIRECTIONS[direction])
        speed = SPEEDS[random.integer(len(SPEEDS))]

        while True:  # a start with a path of MIN_PATH before it
            start = random.uniform(-self.reach, self.reach, 2)
            moving = step.abs() > 0
            path = ((self.reach - start * step.sign()) / step.abs())[moving].min()
            if path >= MIN_PATH:
                break
        travelled = (torch.arange(self.num_frames) * speed).clamp(max=path)
        video = self._render(image, start + travelled[:, None] * step, random)
        label = int(self.labels[image])
        return Clip(video, f"a {DIGITS[label]} moving {direction}", label, direction, int(self.sources[image]))

    def image(self, index: int, digit: int | None = None) -> Clip:
        """Single image `index`, as a clip of one frame: "a seven"."""
        random = _Random("image", self.seed, index)
        image = self._choose(random, digit)
        video = self._render(image, random.uniform(-self.reach, self.reach, 2)[None], random)
        label = int(self.labels[image])
        return Clip(video, f"a {DIGITS[label]}", label, "", int(self.sources[image]))

    def _choose(self, random: "_Random", digit: int | None) -> int:
        if digit not in (None, *range(len(DIGITS))):
            raise ValueError(f"MovingDigits: digit is {digit!r}; expected 0 to 9")
        candidates = torch.arange(len(self.labels)) if digit is None else (self.labels == digit).nonzero().flatten()
        return int(candidates[random.integer(len(candidates))])

    def _render(self, image: int, centres: Tensor, random: "_Random") -> Tensor:
        """centres: (T, 2) as (y, x) from the middle of the frame. Returns (1, T, H, W)."""
        turn = random.uniform(-0.17, 0.17)  # radians
        slant = random.uniform(-0.15, 0.15)
        height, width = (self.digit_size * random.uniform(*SIZES) for _ in range(2))
        return render(self.images[image], centres, self.size, height, width, turn, slant)


def render(image: Tensor, centres: Tensor, size: int, height, width, turn=0.0, slant=0.0) -> Tensor:
    """A digit (8, 8) of height x width pixels at centres (T, 2), in pixels (y, x) from the middle: (1, T, size, size)."""
    pixel = torch.arange(size) - (size - 1) / 2
    y = pixel[None, :, None] - centres[:, 0, None, None]  # (T, size, 1)
    x = pixel[None, None, :] - centres[:, 1, None, None]  # (T, 1, size)
    turn = torch.as_tensor(turn)
    v = (turn.cos() * y - turn.sin() * x) * 2 / height
    u = (turn.sin() * y + turn.cos() * x) * 2 / width + slant * v
    frames = image.expand(len(centres), 1, *image.shape)
    return F.grid_sample(frames, torch.stack((u, v), dim=-1), mode="bicubic", align_corners=False).clamp(0, 1).transpose(0, 1)


class _Random:
    """Random numbers of one clip."""

    def __init__(self, purpose: str, seed: int, index: int):
        self.generator = random_stream(purpose, seed, index)

    def integer(self, below: int) -> int:
        return int(torch.randint(below, (), generator=self.generator))

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator)


def _load_split(split: str) -> tuple[Tensor, Tensor, Tensor]:
    """Images (M, 8, 8) in [0, 1], labels (M,) and their indices (M,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("MovingDigits needs scikit-learn, for its digits: pip install scikit-learn") from None
    digits = load_digits()
    sources = torch.arange(len(digits.target))
    sources = sources[(sources % 3 == 2) == (split == "test")]
    images = torch.from_numpy(digits.images).float() / 16
    return images[sources], torch.from_numpy(digits.target)[sources], sources
