"""The measures see what they should: in real clips, and in clips that are spoilt in a known way."""

import itertools
import math

import pytest
import torch
from torch import nn

from benchmarks import digit_metrics as metrics
from benchmarks.sample_quality import WANTED, digits
from vdiff_kernels.data.moving_digits import DIRECTIONS, MovingDigits, render

WAYS = list(DIRECTIONS)


def real_clips(split, wanted, seed=5):
    data = MovingDigits(split, seed=seed)
    return torch.stack([data.clip(i, *each).video for i, each in enumerate(wanted)])


@pytest.fixture(scope="module")
def walkers():
    """Clips of four digits in each direction."""
    wanted = list(itertools.product((0, 1, 4, 7), WAYS))
    return real_clips("test", wanted), [direction for _, direction in wanted]


def test_real_clips_move_as_asked_and_reversed_turned_or_still_ones_do_not(walkers):
    videos, ways = walkers
    assert metrics.moves_as_asked(videos, ways).all()
    assert not metrics.moves_as_asked(videos.flip(2), ways).any()
    assert not metrics.moves_as_asked(videos[:, :, :1].expand_as(videos), ways).any()
    by_angle = sorted(WAYS, key=lambda way: math.atan2(*DIRECTIONS[way]))
    next_ways = [by_angle[(by_angle.index(way) + 1) % 8] for way in ways]
    assert not metrics.moves_as_asked(videos, next_ways).any()


@pytest.mark.parametrize("pixels, moves", [(2, False), (4, True)])
def test_a_little_drift_is_no_movement(pixels, moves):
    centres = torch.stack((torch.zeros(16), torch.linspace(0, pixels, 16)), dim=1)
    drift = render(MovingDigits("test").images[3], centres, 32, 14.0, 14.0)[None]
    assert metrics.moves_as_asked(drift, ["right"]).item() == moves


def test_haze_does_not_move_a_centroid(walkers):
    videos, _ = walkers
    hazy = torch.where(videos < 0.05, 0.09, videos)
    assert (metrics.centroids(hazy) - metrics.centroids(videos)).abs().max() < 0.1


def test_empty_frames_are_numbers():
    empty = torch.zeros(1, 1, 16, 32, 32)
    assert torch.equal(metrics.centroids(empty), torch.zeros(1, 16, 2))
    assert not metrics.moves_as_asked(empty, ["up"]).any()
    assert metrics.shape_deviations(empty).isfinite().all()


def test_the_deviation_of_the_frames_ignores_movement_and_sees_wobble(walkers):
    videos, _ = walkers
    frame = render(MovingDigits("test").images[3], torch.zeros(1, 2), 32, 14.0, 14.0)
    moved = torch.cat([frame.roll((shift, -shift), (-2, -1)) for shift in range(-6, 7)], dim=1)[None]
    assert metrics.shape_deviations(moved).item() < 1e-4

    def wobbling(by):
        sizes = 14 * (1 + by * torch.linspace(0, 20, 16).sin())[:, None, None]
        return render(MovingDigits("test").images[3], torch.zeros(16, 2), 32, sizes, 14.0)[None]

    real, little, more = (metrics.shape_deviations(v).mean().item() for v in (videos, wobbling(0.05), wobbling(0.15)))
    assert 0.01 < real < 0.04
    assert 3 * real < little < more / 2
    blinking = videos * (1 - 0.3 * (torch.arange(16) % 2))[:, None, None]
    assert metrics.shape_deviations(blinking).mean() > 3 * real


@pytest.fixture(scope="module")
def neighbours():
    """Nearest distances of 160 clips of 80 training digits to those, and of 160 held-out clips to the same."""
    train, test = MovingDigits("train", seed=5), MovingDigits("test", seed=5)
    train.images, train.labels, train.sources = train.images[:80], train.labels[:80], train.sources[:80]
    videos = torch.stack([data.clip(i).video for data in (train, test) for i in range(160)])
    return metrics.nearest_distances(metrics.canonical_digits(videos), train.images).split(160)


def test_copies_are_nearer_than_held_out_digits(neighbours):
    copies, held_out = neighbours
    assert copies.max() < 0.06  # also of the digit that is turned, slanted and sized the most
    assert copies.mean() < 0.4 * held_out.mean()


def test_a_copy_at_a_point_of_the_grid_has_no_distance():
    image = MovingDigits("train").images[7]
    clip = render(image, torch.zeros(16, 2), 32, 14 * 1.1, 14 * 0.9, -0.17, 0.15)[None]
    assert metrics.nearest_distances(metrics.canonical_digits(clip), image[None]).item() < 1e-3


def test_spread_is_of_pairs_within_a_group():
    wanted = [(digit, "left") for digit in (2, 2, 2, 5, 5, 5)]
    canonical = metrics.canonical_digits(real_clips("test", wanted))
    groups = [digit for digit, _ in wanted]
    assert metrics.spread(canonical, groups) > 0.1
    assert metrics.spread(canonical[[0, 0, 0, 3, 3, 3]], groups) < 1e-3
    assert metrics.spread(canonical[[0, 3]], ["a", "b"]) is None
    assert metrics.spread(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), [1, 1]) == pytest.approx(5 / math.sqrt(2))


def test_classifier_reads_unseen_digits_wherever_they_are(small_classifier):
    wanted = WANTED
    videos, asked = real_clips("train", wanted), digits(wanted)
    read = small_classifier(videos)
    assert read.shape == (80, 16, 10)
    torch.testing.assert_close(read.exp().sum(-1), torch.ones(80, 16))
    assert metrics.clips_right(read, asked).float().mean() > 0.6
    assert metrics.clips_right(read, (asked + 1) % 10).float().mean() < 0.15
    middle = real_clips("train", wanted[:8])[:, :, :1, 4:-4, 4:-4]
    places = [small_classifier(nn.functional.pad(middle, sides)) for sides in [(4, 4, 4, 4), (6, 2, 3, 5)]]
    torch.testing.assert_close(*places, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_classifier_is_right_about_unseen_digits():
    wanted = WANTED * 10
    videos, asked = real_clips("train", wanted), digits(wanted)
    classifier = metrics.DigitClassifier()
    read = classifier(videos)
    assert metrics.clips_right(read, asked).float().mean() >= 0.985
    assert metrics.frames_right(read, asked).all(1).float().mean() >= 0.98
    blurred = nn.functional.avg_pool3d(videos, (1, 3, 3), stride=1, padding=(0, 1, 1))
    assert metrics.clips_right(classifier(blurred), asked).float().mean() >= 0.97


def test_a_clip_has_the_digit_of_its_mean_log_probability():
    sure, unsure = [0.98, 0.01, 0.01], [0.3, 0.4, 0.3]
    read = torch.tensor([[sure, unsure, unsure]]).log()
    assert metrics.clips_right(read, torch.tensor([0])).tolist() == [True]
    assert metrics.frames_right(read, torch.tensor([0])).tolist() == [[True, False, False]]
