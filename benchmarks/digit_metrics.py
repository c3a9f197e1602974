"""What clips of one moving digit are judged by: which digit, which way, how well it keeps its shape, how near it is to others.

Clips are (B, 1, T, H, W), pixels in [0, 1]; positions are (y, x) in pixels from the middle of the frame, y downwards.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from vdiff_kernels.data.moving_digits import DIRECTIONS, SIZES, MovingDigits, render

# fmt: off
HAZE = 0.1        # Pixels up to this weigh nothing in a centroid.
MIN_LENGTH = 3.0  # Pixels that a digit must move to count as moving; a real one moves about 7 and more.
CANONICAL = 24    # H = W of a canonical digit: more than any real one, wherever its centroid is.
CROP = 20         # H = W of what the classifier sees.
# fmt: on


def centroids(videos: Tensor) -> Tensor:
    """The centre of what is brighter than HAZE, weighted by how much, in each frame: (B, T, 2). The middle of an empty frame."""
    weight = (videos[:, 0] - HAZE).clamp(min=0)
    y, x = (torch.arange(n) - (n - 1) / 2 for n in weight.shape[-2:])
    moment = torch.stack(((weight.sum(-1) * y).sum(-1), (weight.sum(-2) * x).sum(-1)), dim=-1)
    return moment / weight.sum((-2, -1)).clamp(min=1e-6)[..., None]


def aligned(videos: Tensor, size: int) -> Tensor:
    """size x size pixels around each frame's centroid, black beyond its edge, interpolated bicubically: (B, T, size, size)."""
    B, _, T, H, W = videos.shape
    y, x = centroids(videos).flatten(0, 1)[..., None, None].unbind(1)  # (B*T, 1, 1)
    pixel = torch.arange(size) - (size - 1) / 2
    v = ((y + pixel[:, None]) * 2 / H).expand(-1, size, size)
    u = ((x + pixel) * 2 / W).expand(-1, size, size)
    frames = videos.transpose(1, 2).flatten(0, 1)
    return F.grid_sample(frames, torch.stack((u, v), dim=-1), mode="bicubic", align_corners=False).view(B, T, size, size)


def moves_as_asked(videos: Tensor, directions: Sequence[str]) -> Tensor:
    """Whether the centroid goes the asked way, from the mean of the first two frames to that of the last two: (B,) bool.

    That is: at least MIN_LENGTH pixels, within 22.5 degrees, half the angle between two directions.
    """
    place = centroids(videos)
    way = place[:, -2:].mean(1) - place[:, :2].mean(1)  # (B, 2)
    asked = torch.tensor([DIRECTIONS[direction] for direction in directions])
    length = way.norm(dim=-1)
    return (length >= MIN_LENGTH) & ((way * asked).sum(-1) >= math.cos(math.pi / 8) * length)


def shape_deviations(videos: Tensor) -> Tensor:
    """How much the aligned frames differ from their mean over the clip, RMS over whole frames, as a share of the mean's: (B,).

    Zero for frames that are all the same; what is left in real clips is of their pixels' grid.
    """
    frames = aligned(videos, max(videos.shape[-2:]))
    mean = frames.mean(1, keepdim=True)
    deviation = (frames - mean).square().mean((1, 2, 3)) / mean.square().mean((1, 2, 3)).clamp(min=1e-12)
    return deviation.sqrt()


def canonical_digits(videos: Tensor) -> Tensor:
    """The mean aligned frame of each clip: (B, CANONICAL**2)."""
    return aligned(videos, CANONICAL).mean(1).flatten(1)


def nearest_distances(digits: Tensor, images: Tensor, digit_size: float = 14.0) -> Tensor:
    """RMS difference of canonical digits (B, CANONICAL**2) to the nearest of the images (M, 8, 8): (B,).

    Nearest over the variation of MovingDigits as well: each image is rendered in 135 ways, 5 turns, 3 slants, 3 heights and 3
    widths over the range that the data set draws from, and made canonical as clips are.
    """
    turns, slants, sizes = torch.linspace(-0.17, 0.17, 5), torch.linspace(-0.15, 0.15, 3), torch.linspace(*SIZES, 3)
    ways = torch.cartesian_prod(turns, slants, sizes * digit_size, sizes * digit_size)
    turn, slant, height, width = ways.T[..., None, None]  # each (135, 1, 1), to broadcast over a frame's pixels
    centres = torch.zeros(len(ways), 2)
    nearest = torch.full((len(digits),), torch.inf)
    for image in tqdm(images, desc="nearest digits", unit="image", leave=False):
        rendered = render(image, centres, 32, height, width, turn, slant).transpose(0, 1)[:, None]
        others = canonical_digits(rendered)  # (135, CANONICAL**2)
        squared = others.square().sum(1) - 2 * digits @ others.T  # but for digits^2, the same for all
        nearest = torch.minimum(nearest, squared.min(1).values)
    return ((nearest + digits.square().sum(1)).clamp(min=0) / digits.shape[1]).sqrt()


def spread(digits: Tensor, groups: Sequence) -> float | None:
    """Mean RMS difference of two canonical digits of the same group, over all such pairs; None where there is none."""
    numbers = torch.tensor([sorted(set(groups)).index(group) for group in groups])
    pairs = (numbers[:, None] == numbers).fill_diagonal_(False)
    distances = torch.cdist(digits, digits)[pairs] / math.sqrt(digits.shape[1])
    return distances.mean().item() if len(distances) > 0 else None


class DigitClassifier:
    """Reads the digit of each frame: an ensemble of small convolutional networks on frames that are aligned by their centroid.

    Trained here, from a fixed seed, on frames with digits of one split, at any place, turned, slanted and sized up to twice
    as much as MovingDigits does it, blurred and noisy: it then reads digits of other hands better, and whatever a person reads
    easily. The other split says how good it is.
    """

    def __init__(
        self,
        split: str = "test",  # Whose digits it learns.
        *,
        networks: int = 3,
        variants: int = 16,   # Frames of each digit.
        epochs: int = 4,
        size: int = 32,       # H = W of a frame.
        seed: int = 0,
    ):  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            data = MovingDigits(split, size=size)
            frames = torch.cat([_varied(image, variants, data) for image in data.images])
            labels = data.labels.repeat_interleave(variants)
            self.networks = [
                _trained(frames, labels, epochs)
                for _ in tqdm(range(networks), desc="digit classifier", unit="network", leave=False)
            ]

    @torch.no_grad()
    def __call__(self, videos: Tensor) -> Tensor:
        """Log-probabilities of the ten digits in each frame: (B, T, 10)."""
        parts = []
        for part in videos.split(64):
            frames = aligned(part, CROP).flatten(0, 1)[:, None]
            each = torch.stack([network(frames).log_softmax(-1) for network in self.networks])
            parts.append(each.logsumexp(0).log_softmax(-1).unflatten(0, (len(part), -1)))
        return torch.cat(parts)


def clips_right(log_probabilities: Tensor, digits: Tensor) -> Tensor:
    """Whether the digit of the highest mean log-probability over the frames (B, T, 10) is the asked one of (B,): (B,) bool."""
    return log_probabilities.mean(1).argmax(-1) == digits


def frames_right(log_probabilities: Tensor, digits: Tensor) -> Tensor:
    """The same of each frame for itself: (B, T) bool."""
    return log_probabilities.argmax(-1) == digits[:, None]


def _varied(image: Tensor, count: int, data: MovingDigits) -> Tensor:
    """Frames of a digit (8, 8) in random variation: (count, 1, CROP, CROP)."""

    def uniform(low, high):
        return low + (high - low) * torch.rand(count, 1, 1)

    centres = torch.cat([uniform(-data.reach, data.reach) for _ in range(2)], dim=1)[..., 0]
    height, width = data.digit_size * uniform(0.85, 1.15), data.digit_size * uniform(0.85, 1.15)
    frames = render(image, centres, data.size, height, width, uniform(-0.35, 0.35), uniform(-0.3, 0.3))
    return aligned(frames.transpose(0, 1)[:, None], CROP)


def _worn(frames: Tensor) -> Tensor:
    """Frames (M, 1, h, w) blurred and with noise, each between none and more than a good sample has."""
    blur, noise = torch.rand(2, len(frames), 1, 1, 1)
    blurred = F.avg_pool2d(frames, 3, stride=1, padding=1)
    return torch.lerp(frames, blurred, blur) + 0.1 * noise * torch.randn_like(frames)


def _trained(frames: Tensor, labels: Tensor, epochs: int, batch: int = 128) -> nn.Module:
    channels = (1, 16, 32, 64)
    layers = []
    for before, after in zip(channels, channels[1:]):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers[:-1], nn.Flatten(), nn.Dropout(0.3), nn.Linear(channels[-1] * (CROP // 4) ** 2, 10))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    steps = epochs * (len(frames) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(epochs):
        for places in torch.randperm(len(frames)).split(batch)[: steps // epochs]:
            seen = _worn(frames[places])
            loss = F.cross_entropy(network(seen), labels[places], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()
