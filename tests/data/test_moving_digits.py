"""Moving digits: reproducible, split by image, and every caption true of its clip."""

import socket

import pytest
import torch

from vdiff_kernels.data import MovingDigits, moving_digits
from vdiff_kernels.data.moving_digits import DIGITS, DIRECTIONS, VOCABULARY

CLIPS = 300


@pytest.fixture(scope="module")
def data():
    return MovingDigits()


@pytest.fixture(scope="module")
def clips(data):
    return [data.clip(index) for index in range(CLIPS)]


def same(a, b) -> bool:
    return torch.equal(a.video, b.video) and (a.caption, a.source) == (b.caption, b.source)


def test_a_clip_follows_from_seed_and_index_alone(clips):
    other = MovingDigits()
    torch.manual_seed(99)
    for index in (17, 3, 17, 0):
        assert same(other.clip(index), clips[index])
        other.image(index)
    assert sum(same(a, b) for a, b in zip(clips, clips[1:])) == 0


def test_another_seed_gives_other_clips(clips):
    other = MovingDigits(seed=1)
    assert not any(same(other.clip(index), clips[index]) for index in range(20))
    assert not any(torch.equal(other.image(index).video, MovingDigits().image(index).video) for index in range(20))


def test_clip_and_image_of_one_index_are_of_different_digits(data, clips):
    """They draw from streams of their own: else image i would show the very digit of clip i, with its turn."""
    assert sum(data.image(index).source == clips[index].source for index in range(100)) < 5  # by chance 100 / 1198


def test_the_splits_share_no_image_and_lose_none():
    train, test = MovingDigits("train"), MovingDigits("test")
    assert sorted([*train.sources.tolist(), *test.sources.tolist()]) == list(range(1797))
    assert len(test.sources) == 1797 // 3
    assert set(test.labels.tolist()) == set(train.labels.tolist()) == set(range(10))
    for index in range(50):
        clip = test.clip(index)
        assert clip.source in test.sources and clip.digit == test.labels[test.sources == clip.source].item()


def centroids(video):
    """(T, 2): y and x of the ink of each frame."""
    frames, place = video[0], torch.arange(video.shape[-1], dtype=torch.float32)
    ink = frames.sum((1, 2))
    return torch.stack(((frames.sum(2) * place).sum(1), (frames.sum(1) * place).sum(1)), dim=1) / ink[:, None]


def test_captions_are_true(clips):
    for clip in clips:
        centre = centroids(clip.video)
        moved = centre[-1] - centre[0]
        along = moved @ torch.tensor(DIRECTIONS[clip.direction])
        assert moved.norm() >= 6, clip
        assert along / moved.norm() >= torch.tensor(22.5).deg2rad().cos(), clip  # half the angle between two captions
        assert ((centre[1:] - centre[:-1]) @ torch.tensor(DIRECTIONS[clip.direction]) > -0.1).all(), clip  # never back
        assert clip.caption == f"a {DIGITS[clip.digit]} moving {clip.direction}"


def test_directions_are_as_they_are_called():
    for name, (y, x) in DIRECTIONS.items():
        assert y**2 + x**2 == pytest.approx(1)
        words = name.split(" and ")
        assert ("up" in words) == (y < -0.5) and ("down" in words) == (y > 0.5)
        assert ("left" in words) == (x < -0.5) and ("right" in words) == (x > 0.5)


def test_the_label_is_that_of_the_image_shown(data):
    """Rendered straight and large, each clip's source is the image of load_digits with its label."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index in range(50):
        clip = data.clip(index)
        assert digits.target[clip.source] == clip.digit
    image = data.images[5]
    video = moving_digits.render(image, torch.zeros(1, 2), 8, 8.0, 8.0)  # a pixel of the frame is one of the image
    torch.testing.assert_close(video[0, 0], torch.from_numpy(digits.images[data.sources[5]]).float() / 16)


def test_a_digit_is_drawn_in_its_size_and_place():
    video = moving_digits.render(torch.ones(8, 8), torch.tensor([[0.0, 0.0], [-2.0, 3.0]]), 16, height=8.0, width=4.0)
    for frame, (top, left) in zip(video[0], ((4, 6), (2, 9))):
        assert (frame[top : top + 8, left : left + 4] > 0.9).all()
        assert frame.sum().item() == pytest.approx(32, rel=0.2)  # and a rim of bicubic interpolation


def test_no_ink_is_cut_off(data, monkeypatch):
    """The same clips in frames 16 pixels larger show what stands outside: the digit's centre keeps within its own half size of
    the edge, so a digit that is turned, slanted and 10% larger loses at most the tips of its strokes.
    """
    render = moving_digits.render
    monkeypatch.setattr(moving_digits, "render", lambda image, centres, size, *rest: render(image, centres, size + 16, *rest))
    lost = []
    for index in range(CLIPS):
        whole = data.clip(index).video[0]
        lost.append((1 - whole[:, 8:-8, 8:-8].sum((1, 2)) / whole.sum((1, 2))).max())
    lost = torch.stack(lost)
    assert lost.max() < 0.12 and lost.median() < 1e-3  # 0.097 and 5e-5 of 6,000 clips


def test_ink_is_constant_over_a_clip(clips):
    for clip in clips:
        ink = clip.video.sum((0, 2, 3))
        assert ink.min() > 0.87 * ink.max(), clip  # what the edge takes, and the resampling at fractions of a pixel
        assert clip.video.min() >= 0 and clip.video.max() <= 1


def test_all_80_captions_occur_equally_often():
    data = MovingDigits(num_frames=1)
    captions = [data.clip(index).caption for index in range(960)]
    counts = torch.tensor([captions.count(caption) for caption in set(captions)])
    # 12 of each on average, and none five standard deviations above it.
    assert len(counts) == 80 and counts.max() < 12 + 5 * 12**0.5
    assert {word for caption in captions for word in caption.split()} == set(VOCABULARY)


def test_asked_digit_and_direction(data):
    for digit, direction in ((7, "left"), (0, "up and right"), (9, "down")):
        for index in range(5):
            clip = data.clip(index, digit=digit, direction=direction)
            assert (clip.digit, clip.direction) == (digit, direction)
            assert clip.caption == f"a {DIGITS[digit]} moving {direction}" and data.labels[data.sources == clip.source] == digit
    assert len({data.clip(index, digit=3).source for index in range(10)}) > 5
    assert data.image(0, digit=4).caption == "a four"


def test_single_images(data):
    images = [data.image(index) for index in range(100)]
    for image in images:
        assert image.video.shape == (1, 1, 32, 32) and image.direction == "" and image.caption == f"a {DIGITS[image.digit]}"
    places = torch.cat([centroids(image.video) for image in images])
    assert (places.std(0) > 3).all()  # anywhere in the frame


@pytest.mark.parametrize("num_frames, size", [(1, 32), (5, 24), (33, 48)])
def test_other_lengths_and_sizes(num_frames, size):
    clip = MovingDigits(num_frames=num_frames, size=size).clip(0)
    assert clip.video.shape == (1, num_frames, size, size) and clip.video.dtype == torch.float32
    assert MovingDigits(num_frames=num_frames, size=size).clip(3).video[0].amax((1, 2)).min() > 0.5  # a digit in every frame


def test_it_needs_no_network(monkeypatch, clips):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    assert same(MovingDigits().clip(1), clips[1])


BAD = {
    "split": (lambda: MovingDigits("validation"), "split is 'validation'; expected one of 'train', 'test'"),
    "frames": (lambda: MovingDigits(num_frames=0), "num_frames is 0, .* expected at least one frame"),
    "size": (lambda: MovingDigits(size=21), ".*size 21 and .*; expected .* a size of 1.1 \\* digit_size \\+ 8.25 and more"),
    "digit": (lambda: MovingDigits().clip(0, digit=10), "digit is 10; expected 0 to 9"),
    "image-digit": (lambda: MovingDigits().image(0, digit=-1), "digit is -1; expected 0 to 9"),
    "direction": (lambda: MovingDigits().clip(0, direction="north"), "direction is 'north'; expected one of 'left', 'right'"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_arguments_are_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match="MovingDigits.*: " + message):
        call()
