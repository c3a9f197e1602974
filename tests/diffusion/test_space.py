"""A model that works in another space than pixels: the pipeline asks the space for everything that it knows of it."""

import pytest
import torch
import torch.nn.functional as F

from vdiff_kernels.data.moving_digits import VOCABULARY
from vdiff_kernels.diffusion import VideoDiffusion
from vdiff_kernels.diffusion.space import PixelSpace
from vdiff_kernels.diffusion.weights import shipped_weights
from vdiff_kernels.models import VideoUNet, WordEncoder

from ..random_weights import randomised, randomised_unet

PROMPT = "a seven moving left"


class Squares:
    """As an autoencoder that loses nothing: 2 x 2 pixels are one position of four channels, at -1 to 1, with no known limits."""

    channels = 1
    limits = None
    config = {}

    def shape(self, T, size):
        return (4, T, size[0] // 2, size[1] // 2)

    def encode(self, clips):
        return F.pixel_unshuffle(clips.transpose(1, 2) * 2 - 1, 2).transpose(1, 2)

    def decode(self, x):
        return ((F.pixel_shuffle(x.transpose(1, 2), 2).transpose(1, 2) + 1) / 2).clamp(0, 1)


@pytest.fixture
def model():
    unet = VideoUNet(channels=4, widths=(8, 16), blocks=1, head_dim=4, groups=4, embedding=16, patch=1)
    text = randomised(WordEncoder(VOCABULARY, 16))
    return VideoDiffusion(randomised_unet(unet).eval(), text, space=Squares(), num_frames=4, size=(16, 16))


def test_a_clip_is_decoded_from_the_models_space(model):
    seen = []
    latents = torch.randn(2, 4, 4, 8, 8)
    out = model.sample([PROMPT, "a two"], steps=2, latents=latents, callback=lambda step, x: seen.append(x))
    assert out.shape == (2, 1, 4, 16, 16) and out.dtype == torch.float32 and 0 <= out.min() and out.max() <= 1
    assert seen[0].shape == latents.shape and seen[0].abs().max() > 1  # nothing clamps x where no limits are known
    assert torch.equal(out, model.space.decode(seen[-1]))


def test_known_pixels_are_encoded(model):
    known = torch.rand(1, 1, 4, 16, 16)
    out = model.sample(PROMPT, steps=2, known=known, known_frames=[1])
    torch.testing.assert_close(out[:, :, 1], known[:, :, 1], rtol=0, atol=1e-6)
    image = torch.rand(1, 16, 24)
    torch.testing.assert_close(model.animate(PROMPT, image, steps=1)[0, :, 0], image, rtol=0, atol=1e-6)
    assert model.extend(PROMPT, known, 6, steps=1).shape == (1, 1, 6, 16, 16)
    with pytest.raises(ValueError, match=r"latents has shape \(1, 1, 4, 16, 16\); expected .* = \(1, 4, 4, 8, 8\)"):
        model.sample(PROMPT, latents=known)


def test_a_space_of_other_channels_than_the_model_is_refused():
    unet = VideoUNet(channels=4, widths=(8,), blocks=1, head_dim=4, groups=4, embedding=16)
    with pytest.raises(ValueError, match="space has 1 channels; expected 4, as unet"):
        VideoDiffusion(unet, WordEncoder(VOCABULARY, 16), space=PixelSpace(1))
    assert VideoDiffusion(unet, WordEncoder(VOCABULARY, 16)).space == PixelSpace(4)


def test_the_weights_that_ship_are_written_as_they_were_read(tmp_path):
    """Names, order and configuration: files of before are files of now, both ways."""
    VideoDiffusion.load().save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == shipped_weights().read_bytes()
