"""The loss against its definition in terms of x and of the noise; batches that follow from seed, step and place alone."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from vdiff_kernels.data import MovingDigits
from vdiff_kernels.diffusion.schedule import CosineSchedule
from vdiff_kernels.diffusion.trainer import Batch, TrainingLoss, TrainSettings
from vdiff_kernels.diffusion.training import WEIGHTINGS, draw_times, v_loss

from .gaussian import levels

SCHEDULE = CosineSchedule(shift=-2.0)
TIMES = torch.tensor([0.02, 0.3, 0.6, 0.95], dtype=torch.float64)
ERRORS = {  # The mean squared error that each weighting makes of that of v, at a signal-to-noise ratio.
    "v": lambda v, x, noise, snr: v,
    "x": lambda v, x, noise, snr: x,
    "noise": lambda v, x, noise, snr: noise,
    "min_snr": lambda v, x, noise, snr: min(snr, 5.0) * x,
    "even": lambda v, x, noise, snr: v / (1 + (snr * math.e**3) ** (-1 / 1.6)),
}


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_loss_is_its_definition(weighting):
    x, noise = torch.randn(2, 4, 1, 3, 2, 2, dtype=torch.float64)
    text, focus_present, seen = torch.randn(4, 5), torch.zeros(4, 3, dtype=torch.bool), []

    def model(z, logsnr, *rest):
        seen.append((z, logsnr, *rest))
        return torch.tanh(z * 3)

    loss = v_loss(model, x, text, SCHEDULE, TIMES, noise, focus_present=focus_present, weighting=weighting)
    ((z, logsnr, *rest),) = seen
    assert rest[0] is text and rest[1] is focus_present and loss.shape == (4,)
    torch.testing.assert_close(logsnr, SCHEDULE.logsnr(TIMES))
    for b in range(4):
        alpha, sigma = levels(logsnr[b].item())
        torch.testing.assert_close(z[b], alpha * x[b] + sigma * noise[b])
        v = torch.tanh(z[b] * 3)
        # The model's estimates of x and of the noise: the rotation that takes (z, v) to them.
        of_x, of_noise = alpha * z[b] - sigma * v, sigma * z[b] + alpha * v
        of_v = (v - (alpha * noise[b] - sigma * x[b])).square().mean()
        errors = of_v, (of_x - x[b]).square().mean(), (of_noise - noise[b]).square().mean()
        torch.testing.assert_close(loss[b], ERRORS[weighting](*errors, (alpha / sigma) ** 2), rtol=1e-9, atol=0)


def test_unknown_weighting():
    with pytest.raises(ValueError, match="weighting is 'snr'; expected one of 'v', 'x', 'noise', 'min_snr'"):
        v_loss(None, TIMES, TIMES, SCHEDULE, TIMES, TIMES, weighting="snr")


def test_times_of_a_power_below_one_are_late():
    uniform = torch.linspace(0, 1, 1001)
    times = draw_times(uniform, 0.5)
    assert times[0] == 0 and times[-1] == 1 and (times.diff() > 0).all()
    assert times.mean().item() == pytest.approx(2 / 3, abs=1e-3)  # of u^p: 1 / (1 + p)
    assert torch.equal(draw_times(uniform), uniform)


# Batches

TINY = dict(num_frames=3, size=24, widths=(8, 16), blocks=1, patch=4, head_dim=8)
SETTINGS = TrainSettings(batch=4, images=2, null_rate=0.3, seed=5, time_power=0.8, **TINY)
PIPELINE = SETTINGS.pipeline(MovingDigits.vocabulary)
DATA = MovingDigits("train", SETTINGS.num_frames, SETTINGS.size, seed=SETTINGS.seed)


def batch(step=2, places=range(4), settings=SETTINGS):
    return Batch(settings, PIPELINE, DATA, step, places)


TENSORS = ("x", "noise", "dropped", "times", "focus_present")


def test_a_batch_follows_from_its_step():
    torch.manual_seed(1)
    one, torch_state = batch(), torch.get_rng_state()
    torch.manual_seed(2)
    again, other = batch(), batch(step=3)
    for name in TENSORS:
        assert torch.equal(getattr(one, name), getattr(again, name))
    assert one.captions == again.captions != other.captions
    for name in ("x", "noise", "times"):
        assert not torch.equal(getattr(one, name), getattr(other, name))
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), torch_state)  # the global generator is neither read nor moved


def test_two_half_batches_are_the_whole_one():
    whole, halves = batch(), (batch(places=range(0, 2)), batch(places=range(2, 4)))
    for name in TENSORS:
        assert torch.equal(torch.cat([getattr(half, name) for half in halves]), getattr(whole, name))
    assert halves[0].captions + halves[1].captions == whole.captions
    losses = [TrainingLoss(SETTINGS, PIPELINE)(part).item() for part in (*halves, whole)]
    assert sum(losses[:2]) / 2 == pytest.approx(losses[2], rel=1e-5)


def test_a_batch_holds_clips_then_images_with_their_captions():
    one = batch()
    assert one.x.shape == one.noise.shape == (4, 1, 5, 24, 24)
    assert one.focus_present.tolist() == [[False] * 3 + [True] * 2] * 4
    videos = PIPELINE.space.decode(one.x)
    for place in range(4):
        index = 2 * 4 + place
        parts = DATA.clip(index), DATA.image(2 * index), DATA.image(2 * index + 1)
        assert one.captions[place] == [part.caption for part in parts]
        torch.testing.assert_close(videos[place], torch.cat([part.video for part in parts], dim=1), atol=1e-6, rtol=0)


def test_the_pixels_are_standardised():
    x = PIPELINE.space.encode(torch.cat([MovingDigits().clip(index).video for index in range(20)]))
    assert x.mean().abs() < 0.2 and 0.5 < x.std() < 1.5  # as the schedule takes the data to be


def test_times_are_stratified():
    """Kingma et al. 2021: one time in each of `batch` intervals of equal probability, wherever the jitter puts them."""
    settings = dataclasses.replace(SETTINGS, batch=16, images=0, time_power=0.5)
    for step in (0, 1):
        times = Batch(settings, PIPELINE, DATA, step, range(16)).times
        uniform = (times**2).sort()[0].double()
        torch.testing.assert_close(uniform.diff(), torch.full((15,), 1 / 16, dtype=torch.float64), atol=1e-5, rtol=0)
        assert 0 <= uniform[0] < 1 / 16


def test_noise_is_standard_and_its_own():
    noise = torch.cat([batch(step).noise for step in range(8)])  # (32, 1, 5, 24, 24)
    count = noise.numel()
    assert abs(noise.mean()) < 4 / math.sqrt(count) and abs(noise.var() - 1) < 4 * math.sqrt(2 / count)
    rows = noise.flatten(1)
    correlation = (rows @ rows.T / rows.shape[1]).fill_diagonal_(0)
    assert correlation.abs().max() < 5 / math.sqrt(rows.shape[1])  # each clip and step has other noise


def test_noise_knows_nothing_of_the_clip(monkeypatch):
    """Clips, images, noise and times have streams of their own: of one stream, the noise would be a function of what decides
    the digit and where it goes. torch's CPU generator looks at the last 32 bits of a seed only.
    """
    seeds = []

    class Recorded(torch.Generator):
        def manual_seed(self, seed):
            seeds.append(seed % 2**32)
            return super().manual_seed(seed)

    monkeypatch.setattr(torch, "Generator", Recorded)
    batch()
    assert len(seeds) >= 4 * (1 + SETTINGS.images + 1) and len(set(seeds)) == len(seeds)


def test_captions_are_dropped_at_the_null_rate():
    settings = dataclasses.replace(SETTINGS, batch=100)
    dropped = Batch(settings, PIPELINE, DATA, 0, range(100)).dropped  # (100, 3)
    assert dropped.shape == (100, 3)
    assert abs(dropped.float().mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 300)
    assert 0 < (dropped[:, :1] != dropped[:, 1:]).sum()  # a clip and its images on their own
    for rate, count in ((0.0, 0), (1.0, 12)):
        assert batch(settings=dataclasses.replace(SETTINGS, null_rate=rate)).dropped.sum() == count


# What the model gets


class Spy(nn.Module):
    """In the place of the U-Net: keeps what it is called with."""

    def forward(self, z, logsnr, text, focus_present):
        self.given = z, logsnr, text, focus_present
        return torch.zeros_like(z)


def training_loss(settings):
    spy = Spy()
    with torch.no_grad():
        PIPELINE.text.null.copy_(torch.randn(192))
    loss = TrainingLoss(settings, PIPELINE)
    loss.unet = spy
    return loss, spy


def test_every_frame_gets_the_text_of_its_clip_or_image():
    loss, spy = training_loss(SETTINGS)
    one = batch()
    assert one.dropped.any() and not one.dropped.all()
    value = loss(one)
    z, logsnr, text, focus_present = spy.given
    assert text.shape == (4, 5, 192) and torch.equal(focus_present, one.focus_present)
    for place in range(4):
        for frame, part in enumerate((0, 0, 0, 1, 2)):
            expected = PIPELINE.text([one.captions[place][part]])[0]
            torch.testing.assert_close(text[place, frame], PIPELINE.text.null if one.dropped[place, part] else expected)
    torch.testing.assert_close(logsnr, PIPELINE.schedule.logsnr(one.times))
    of_v = v_loss(lambda z, *_: torch.zeros_like(z), one.x, text, PIPELINE.schedule, one.times, one.noise)
    torch.testing.assert_close(value, of_v.mean())


def test_without_images_there_is_no_focus():
    settings = dataclasses.replace(SETTINGS, images=0)
    loss, spy = training_loss(settings)
    loss(batch(settings=settings))
    assert spy.given[0].shape == (4, 1, 3, 24, 24) and spy.given[2].shape == (4, 3, 192) and spy.given[3] is None
