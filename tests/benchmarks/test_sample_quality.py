"""The table of benchmarks.sample_quality: of models that are good, or bad in one known way, and of the command itself."""

import json
import math

import pytest
import torch
from torch import nn

from benchmarks import digit_metrics, sample_quality
from benchmarks.sample_quality import WANTED, Figure, SampleQuality, captions, cross_fade, main, psnr, share, table
from vdiff_kernels.data.moving_digits import DIRECTIONS, VOCABULARY, MovingDigits
from vdiff_kernels.diffusion import VideoDiffusion
from vdiff_kernels.diffusion.schedule import alpha_sigma
from vdiff_kernels.models.text import WordEncoder
from vdiff_kernels.models.video_unet import VideoUNet


class Oracle(VideoDiffusion):
    """Gives real clips as they are asked for, or not quite."""

    def __init__(self, spoil=lambda videos: videos, *, varied=True, offset=0):
        unet = nn.Module()
        unet.channels = 1
        super().__init__(unet, WordEncoder(VOCABULARY, 4))
        self.spoil, self.varied, self.offset, self.given = spoil, varied, offset, 0

    def asked(self, prompts, num_frames=16):
        data, clips = MovingDigits("test", num_frames, seed=77), []
        for prompt in prompts:
            digit, direction = WANTED[captions(WANTED).index(prompt)]
            clips.append(data.clip(self.given if self.varied else 0, (digit + self.offset) % 10, direction).video)
            self.given += 1
        return self.spoil(torch.stack(clips))

    def sample(self, prompts, **arguments):
        return self.asked(prompts)

    def extend(self, prompts, clip, num_frames, **arguments):
        return self.asked(prompts, num_frames)


@pytest.fixture
def small(monkeypatch, small_classifier):
    """Fewer captions and real clips, a classifier that is trained for seconds, the distance to a few training digits."""
    nearest = digit_metrics.nearest_distances
    monkeypatch.setattr(sample_quality, "WANTED", WANTED[:27])
    monkeypatch.setattr(sample_quality, "REAL_PER_CAPTION", 3)
    monkeypatch.setattr(digit_metrics, "nearest_distances", lambda digits, images: nearest(digits, images[::60]))
    monkeypatch.setattr(digit_metrics, "DigitClassifier", lambda *args, **kwargs: small_classifier)


def quality_of(oracle, **arguments):
    return SampleQuality(oracle, **{"per_caption": 3, "guided": 27} | arguments)


def met(figures):
    return {figure.name: figure.met for figure in figures if figure.met is not None}


def blinking(videos):
    return videos * (1 - 0.2 * (torch.arange(videos.shape[2]) % 2))[:, None, None]


SPOILT = {
    "nothing": (Oracle, set()),
    "direction": (lambda: Oracle(lambda videos: videos.flip(2)), {"asked direction"}),
    "shape": (lambda: Oracle(blinking), {"shape held: deviation of the frames"}),
    "spread": (lambda: Oracle(varied=False), {"spread within a caption"}),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_model_misses_the_bar_of_what_it_spoils(small, spoilt):
    make, expected = SPOILT[spoilt]
    quality = quality_of(make())
    verdicts = met([*quality.direction(), *quality.shape(), *quality.copies()])
    assert len(verdicts) == 4
    verdicts.pop("not copies: nearest training digit")  # of so few clips and training digits, a matter of luck
    assert {name for name, good in verdicts.items() if not good} == expected


def test_the_bar_of_copies_is_the_distance_of_held_out_digits(small, monkeypatch):
    for ours, good in (0.0599, False), (0.0601, True):
        distances = torch.tensor([ours] * 81 + [0.06] * 81)
        monkeypatch.setattr(digit_metrics, "nearest_distances", lambda digits, images: distances)
        assert quality_of(Oracle()).copies()[0].met == good


def test_the_wrong_digit_is_seen(small):
    right, wrong = ([figure.samples for figure in quality_of(Oracle(offset=offset)).digit()] for offset in (0, 1))
    assert min(right) > 0.6 and max(wrong) < 0.2


def test_clips_with_known_frames_have_to_be_as_asked_in_every_part(small):
    def second_half_of_another_digit(videos):
        T = videos.shape[2]
        return videos if T == 16 else torch.cat((videos[:, :, : T // 2], videos.roll(9, 0)[:, :, T // 2 :]), dim=2)

    good, half = (quality_of(oracle).extension() for oracle in (Oracle(), Oracle(second_half_of_another_digit)))
    assert good[0].name == "32 frames: asked digit" and good[1].met
    assert good[0].samples > 0.6 and half[0].samples < 0.3
    backwards = quality_of(Oracle(lambda videos: videos.flip(2))).interpolation()
    assert backwards[0].samples > 0.6 and backwards[1].samples == backwards[2].samples == 0


class Denoiser(nn.Module):
    """A model whose estimate of x is `estimate(z / alpha)`."""

    def __init__(self, estimate):
        super().__init__()
        self.channels, self.estimate = 1, estimate
        self.levels = []

    def forward(self, z, logsnr, text):
        self.levels.append(logsnr[0].item())
        alpha, sigma = alpha_sigma(logsnr, z)
        return (alpha * z - self.estimate(z / alpha)) / sigma


def test_psnr_of_the_first_frame_is_of_the_models_own_estimate(small):
    def decibels(estimate):
        unet = Denoiser(lambda noisy: estimate(quality, noisy))
        quality = SampleQuality(VideoDiffusion(unet, WordEncoder(VOCABULARY, 4)), guided=3)
        in_clip, own, *_ = quality.first_frame()
        assert in_clip.samples > 100  # whatever the model makes of it
        last = quality.pipeline.schedule.steps(25)[-2].item()
        assert quality.pipeline.unet.levels[-2:] == pytest.approx([last, last])
        return own.samples

    def perfect(quality, noisy):
        return quality.pipeline.space.encode(quality.known).repeat(len(noisy) // 3, 1, 1, 1, 1)

    assert decibels(perfect) > 60
    assert 20 < decibels(lambda quality, noisy: noisy) < 28  # the noise of the last step
    assert decibels(lambda quality, noisy: torch.zeros_like(noisy)) < 18


def test_the_first_captions_have_every_digit_and_direction():
    assert len(set(WANTED)) == 80 and {digit for digit, _ in WANTED[:27]} == set(range(10))
    assert {direction for _, direction in WANTED[:27]} == set(DIRECTIONS)


def test_a_share_at_its_bar_meets_it():
    right = torch.arange(80) < 76
    assert share("", right, right, 0.95).met and not share("", right & (torch.arange(80) > 0), right, 0.95).met


def test_psnr_and_cross_fade():
    assert psnr(torch.full((2, 1, 4, 4), 0.6), torch.full((2, 1, 4, 4), 0.5)) == pytest.approx(20, abs=1e-4)
    assert psnr(torch.ones(1, 4), torch.ones(1, 4)) == pytest.approx(120)
    ramp = torch.arange(16.0).square()[None, None, :, None, None]
    faded = cross_fade(ramp, [0, 5, 10, 15]).flatten()
    assert faded[[0, 5, 10, 15]].tolist() == [0, 25, 100, 225]
    assert faded[7].item() == pytest.approx(25 + 2 / 5 * 75)


def test_table():
    rows = table([Figure("a", 0.5, 0.975, bar="at least 97%", met=False), Figure("longer", None, 0.25, ".4f", note="x")])
    assert rows.splitlines() == [
        "figure  samples  real clips  bar",
        "a         50.0%       97.5%  at least 97%  missed",
        "longer        -      0.2500                        x",
    ]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a small model that was never trained."""
    torch.manual_seed(0)
    unet = VideoUNet(widths=(8, 16), blocks=1, head_dim=4, groups=4, embedding=16, patch=4)
    nn.init.normal_(unet.head.conv.weight, std=0.1)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    VideoDiffusion(unet, WordEncoder(VOCABULARY, 16)).save(path)
    return path


def test_command(small, monkeypatch, weights, tmp_path, capsys):
    monkeypatch.setattr(sample_quality, "WANTED", WANTED[:5])
    monkeypatch.setattr(sample_quality, "REAL_PER_CAPTION", 2)
    path = tmp_path / "figures.json"
    assert main(["--weights", str(weights), "--quick", "--steps", "1", "--json", str(path)]) == 0
    header, columns, *rows = capsys.readouterr().out.splitlines()
    assert "weights small.safetensors" in header and "sampler dpmpp_2m_sde, steps 1, guidance 2.0" in header
    assert columns.split() == ["figure", "samples", "real", "clips", "bar"]
    figures = json.loads(path.read_text())["figures"]
    assert [row.split("  ")[0] for row in rows] == [figure["name"] for figure in figures]
    assert len(figures) == 20 and not any(math.isnan(figure["samples"]) for figure in figures if figure["samples"] is not None)
    by_name = {figure["name"]: figure for figure in figures}
    assert by_name["spread within a caption"]["samples"] is None
    assert not by_name["asked direction"]["met"] and not by_name["asked digit: clips"]["met"]


def test_samples_follow_from_the_seed(weights, monkeypatch):
    monkeypatch.setattr(sample_quality, "WANTED", WANTED[:2])

    def clips(**arguments):
        return SampleQuality(VideoDiffusion.load(weights), per_caption=1, arguments={"steps": 1}, **arguments).samples

    first = clips()
    assert torch.equal(first, clips()) and not torch.equal(first, clips(seed=1))
    assert not torch.equal(first[0], first[1])


BAD = {
    "steps": (["--steps", "0"], "--steps"),
    "figures": (["--only", "nothing"], "'nothing'"),
    "no weights": (["--weights", "missing.safetensors"], "no such file"),
    "not weights": (["--weights", __file__], "not a whole safetensors file"),
    "json": (["--json", "missing/figures.json"], "folder does not exist"),
    "backend": (["--backend", "triton"], "triton"),
    "flag": (["--sample"], "ambiguous"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_flags_are_one_line(bad, capsys, weights):
    flags, word = BAD[bad]
    with pytest.raises(SystemExit) as exit:
        main(["--weights", str(weights), *flags])
    message = capsys.readouterr().err
    assert exit.value.code == 2 and message.count("\n") == 1 and word in message


def test_a_model_of_something_else_is_refused():
    for shape, word in [
        (dict(num_frames=8), "T of 9"),
        (dict(size=(32, 16)), "H = W"),
        (dict(size=(16, 16)), "size 16"),
    ]:
        with pytest.raises(ValueError, match=word):
            SampleQuality(VideoDiffusion(Denoiser(None), WordEncoder(VOCABULARY, 4), **shape))
    with pytest.raises(ValueError, match="zero"):
        SampleQuality(VideoDiffusion(Denoiser(None), WordEncoder(("a", "cat"), 4)))
