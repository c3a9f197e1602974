"""Attention along the path of what moves: the same for a shape that moves as for one that stands still."""

import pytest
import torch
from torch import nn

from vdiff_kernels.models.aligned_attention import AlignedAttention, centres, shifted

P, C, T, H, W = 2, 8, 4, 10, 12  # patch, channels, frames, positions
STEPS = torch.tensor([[[0, 0], [1, -1], [2, 0], [-1, 2]]]).double()  # (1, T, 2), positions


def moved(x, steps):
    """Frames of x (1, C, T, H, W), each moved by whole positions, what leaves on one side coming in on the other."""
    frames = [frame.roll([int(n) for n in step], (-2, -1)) for frame, step in zip(x[0].unbind(1), steps[0])]
    return torch.stack(frames, 1)[None]


def shape_in_the_middle(frames=T):
    x = torch.zeros(1, C, frames, H, W, dtype=torch.float64)
    x[..., 4:6, 5:8] = torch.randn(1, C, 1, 2, 3).double()
    return x


@pytest.fixture
def layer():
    layer = AlignedAttention(C, 2, P, "cpu").double()
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape).double() / (parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 1)
    return layer


def test_adds_nothing_before_it_is_trained():
    x = torch.randn(2, C, T, H, W)
    assert torch.equal(AlignedAttention(C, 2, P, None)(x, torch.randn(2, T, 2), None), x)


def test_a_moving_shape_is_as_one_that_stands_still(layer):
    """Within the middle of the frame, which no frame's move brings in from the other side."""
    still = shape_in_the_middle() + torch.randn(1, C, T, 1, 1).double()
    here = layer(still, torch.zeros(1, T, 2).double(), None)
    there = layer(moved(still, STEPS), STEPS * P, None)
    middle = (..., slice(4, 6), slice(5, 8))
    torch.testing.assert_close(moved(there, -STEPS)[middle], here[middle], rtol=0, atol=1e-10)
    unfollowed = layer(moved(still, STEPS), torch.zeros(1, T, 2).double(), None)
    assert (moved(unfollowed, -STEPS)[middle] - here[middle]).abs().max() > 0.01


@pytest.mark.parametrize("channels, num_heads, patch", [(6, 3, 2), (8, 2, 4), (9, 1, 1)])
def test_any_width(channels, num_heads, patch):
    x = torch.randn(1, channels, 3, 4, 4)
    layer = AlignedAttention(channels, num_heads, patch, None)
    nn.init.ones_(layer.leave.weight)
    out = layer(x, torch.randn(1, 3, 2), None)
    assert out.shape == x.shape and not torch.equal(out, x)


def test_an_isolated_frame_stays_to_itself(layer):
    x, places = torch.randn(1, C, T, H, W).double(), torch.randn(1, T, 2).double()
    isolated = torch.tensor([[False, False, False, True]])
    other = x.clone()
    other[:, :, :3] += 1
    assert torch.equal(layer(x, places, isolated)[:, :, 3], layer(other, places, isolated)[:, :, 3])
    assert not torch.equal(layer(x, places, None)[:, :, 3], layer(other, places, None)[:, :, 3])


def test_centres():
    scores = torch.full((1, 2, H, W), -100.0)
    scores[0, 0, 0, 0] = scores[0, 1, 9, 5] = scores[0, 1, 9, 6] = 100
    expected = torch.tensor([[[-(H - 1) / 2, -(W - 1) / 2], [(H - 1) / 2, 0]]])
    torch.testing.assert_close(centres(scores), expected)
    assert centres(scores.bfloat16()).dtype == torch.float32 and centres(scores.double()).dtype == torch.float64


@pytest.mark.parametrize("place", [(0, 0), (1, 0), (-3, 5), (2, -4)], ids=str)
def test_whole_pixels(place):
    """Pixels, so half positions of two: what is read is exactly what lies there, and zeros beyond the frame."""
    x = torch.randn(1, 1, H, W, C)
    pixels = torch.nn.functional.pixel_shuffle(x[0].movedim(-1, 1), P)[0]
    expected = torch.zeros_like(pixels)
    for y in range(H * P):
        for z in range(W * P):
            from_y, from_z = y + place[0], z + place[1]
            if 0 <= from_y < H * P and 0 <= from_z < W * P:
                expected[:, y, z] = pixels[:, from_y, from_z]
    found = torch.nn.functional.pixel_shuffle(shifted(x, torch.tensor([[place]]).float(), P)[0].movedim(-1, 1), P)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_between_pixels_a_smooth_picture_is_where_it_should_be():
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), indexing="ij")

    def picture(dy, dx):
        return torch.exp(-((y - 9 + dy) ** 2 + (x - 11 + dx) ** 2) / 18)

    frame = torch.nn.functional.pixel_unshuffle(picture(0, 0)[None, None], P).movedim(1, -1)[None]
    found = torch.nn.functional.pixel_shuffle(shifted(frame, torch.tensor([[[0.5, -1.3]]]), P)[0].movedim(-1, 1), P)[0, 0]
    torch.testing.assert_close(found, picture(0.5, -1.3), rtol=0, atol=0.02)


def test_gradients():
    x = torch.randn(1, 2, 3, 4, 4).double().requires_grad_()
    places = (torch.randn(1, 2, 2).double() + 0.3).requires_grad_()
    torch.autograd.gradcheck(lambda x, places: shifted(x, places, P), (x, places))
    torch.autograd.gradcheck(centres, torch.randn(1, 2, 3, 3).double().requires_grad_())
