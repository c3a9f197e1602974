"""`vdiff sample`: the file holds what the library samples, and what is wrong is said before the sampling starts."""

import errno
import os
import re

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from vdiff_kernels.backends import registry
from vdiff_kernels.diffusion import VideoDiffusion
from vdiff_kernels.diffusion.sampler import SAMPLERS
from vdiff_kernels.media import save_video

from .conftest import tiny

PROMPT = "a seven moving left"


@pytest.fixture
def model(weights):
    return VideoDiffusion.load(weights)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.gif"


@pytest.fixture
def never_sampled(monkeypatch):
    def sample(*args, **kwargs):
        raise AssertionError("it sampled")

    monkeypatch.setattr(VideoDiffusion, "sample", sample)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_shows(path, video, scale: int = 1):
    """The file's frames are those of video (C, T, H, W)."""
    frames = (video[0] * 255).round().byte().numpy().repeat(scale, axis=1).repeat(scale, axis=2)
    assert np.array_equal(iio.imread(path, mode="L"), frames)


def test_defaults_are_those_of_the_library(vdiff, weights, model, out):
    result = vdiff("sample", PROMPT, "-o", out, "--weights", weights, "--seed", 3)
    assert (result.exit_code, result.stderr) == (0, "")
    assert_shows(out, model.sample(PROMPT, generator=seeded(3))[0], scale=16)  # 16 pixels to 256
    assert re.fullmatch(
        rf"{re.escape(str(out))}: 4 frames, seed 3\nsampled in \d+\.\d s by cpu \(the compiled library\)\n", result.stdout
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_option_reaches_the_sampler(vdiff, weights, model, out, sampler):
    vdiff(
        "sample", PROMPT, "-o", out, "--weights", weights, "--seed", 0, "--sampler", sampler, "--steps", 2, "--guidance", 4.5,
        "--frames", 3, "--scale", 2, "--fps", 20,
    )  # fmt: skip
    arguments = dict(sampler=sampler, steps=2, guidance=4.5, num_frames=3, generator=seeded(0))
    assert_shows(out, model.sample(PROMPT, **arguments)[0], scale=2)
    assert iio.immeta(out)["duration"] == 50


def test_the_seed_that_it_chose_gives_the_video_again(vdiff, weights, out, tmp_path):
    arguments = ["sample", PROMPT, "--weights", weights, "--steps", 1]
    seeds = [re.search(r"seed (\d+)", vdiff(*arguments, "-o", out).stdout)[1] for _ in range(2)]
    assert seeds[0] != seeds[1]
    vdiff(*arguments, "-o", tmp_path / "again.gif", "--seed", seeds[1])
    assert out.read_bytes() == (tmp_path / "again.gif").read_bytes()


def test_first_frame_and_extension(vdiff, weights, model, out, tmp_path):
    frame = torch.randint(0, 256, (1, 1, 16, 16)) / 255
    save_video(tmp_path / "first.png", frame, scale=1)
    result = vdiff(
        "sample", PROMPT, "-o", out, "--weights", weights, "--seed", 3, "--steps", 2, "--frames", 3, "--scale", 1,
        "--first-frame", tmp_path / "first.png", "--extend-to", 8,
    )  # fmt: skip
    generator = seeded(3)
    clip = model.animate(PROMPT, frame[:, 0], num_frames=3, steps=2, generator=generator)
    video = model.extend(PROMPT, clip, 8, overlap=2, steps=2, generator=generator)[0]
    assert_shows(out, video)
    assert (video[:, 0] - frame[:, 0]).abs().max() < 1e-6
    assert ": 8 frames," in result.stdout


@pytest.mark.parametrize("extend_to, clips", [(4, 1), (5, 2), (6, 2), (7, 3), (9, 4)])
def test_the_bar_ends_with_the_last_step(vdiff, weights, out, monkeypatch, extend_to, clips):
    """A bar of all clips, which share half of their frames."""
    bars = []

    class Bar:
        def __init__(self, total, **options):
            self.total, self.done = total, 0
            bars.append(self)

        def update(self):
            self.done += 1

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

    monkeypatch.setattr("vdiff_kernels.cli.sample.tqdm", Bar)
    vdiff("sample", PROMPT, "-o", out, "--weights", weights, "--steps", 2, "--extend-to", extend_to)
    assert [(bar.done, bar.total) for bar in bars] == [(2 * clips, 2 * clips)]


class TestBackend:
    def test_what_ran_is_said(self, vdiff, weights, out, backend):
        result = vdiff("sample", PROMPT, "-o", out, "--weights", weights, "--steps", 1, "--backend", backend)
        words = {"cpu": "the compiled library", "reference": "eager PyTorch", "composed": "PyTorch's library calls"}
        assert result.stdout.endswith(f" s by {backend} ({words[backend]})\n")

    def test_without_the_compiled_library(self, vdiff, weights, out, monkeypatch):
        monkeypatch.setattr(registry.BACKENDS["cpu"], "kernels", {})
        monkeypatch.setattr("vdiff_kernels.backends.native.LOAD_ERROR", "it is not built")
        registry.forget()
        result = vdiff("sample", PROMPT, "-o", out, "--weights", weights, "--steps", 1)
        assert result.stdout.endswith(" s by composed (PyTorch's library calls), as cpu: not available: it is not built\n")

    def test_compare(self, vdiff, weights, model, out, monkeypatch):
        """The reference runs from the same seed; the difference is the largest of all, in levels."""
        video = model.sample(PROMPT, steps=1, generator=seeded(3))
        other = video.clone()
        other[0, 0, 2, 5, 7] = 1.0 - video[0, 0, 2, 5, 7].round()
        runs = []

        def sample(self, prompt, generator, **arguments):
            runs.append((self.unet.stem.backend, generator.initial_seed()))
            return other if self.unet.stem.backend == "reference" else video

        monkeypatch.setattr(VideoDiffusion, "sample", sample)
        result = vdiff("sample", PROMPT, "-o", out, "--weights", weights, "--seed", 3, "--compare", "--scale", 1)
        assert runs == [(None, 3), ("reference", 3)]
        most = ((video - other) * 255).round().abs().max().int().item()
        assert re.search(rf"\nreference: \d+\.\d s; largest difference of a pixel: {most} of 255 levels\n$", result.stdout)
        assert most > 100
        assert_shows(out, video[0])


REFUSED = {
    "unknown word": (["a purple cat"], "prompt 'a purple cat' has the word 'purple'; expected words of: a, zero, one,"),
    "contradiction": (["a two moving left and right"], "prompt 'a two moving left and right' has the words 'left', 'right'"),
    "empty prompt": ([""], "prompt '' is empty; expected words of: a, zero,"),
    "no frames": ([PROMPT, "--frames", "0"], "--frames is '0'; expected a whole number from 1 to 1024"),
    "half a frame": ([PROMPT, "--frames", "1.5"], "--frames is '1.5'; expected a whole number"),
    "too many frames": ([PROMPT, "--frames", "100000000"], "--frames is '100000000'; expected a whole number from 1 to 1024"),
    "no steps": ([PROMPT, "--steps", "0"], "--steps is '0'; expected a whole number from 1 to 1000"),
    "sampler": ([PROMPT, "--sampler", "euler"], "--sampler is 'euler'; expected one of 'ancestral', 'ddim', 'dpmpp_2m'"),
    "guidance nan": ([PROMPT, "--guidance", "nan"], "--guidance is 'nan'; expected a number from 0.0 to 100.0"),
    "guidance inf": ([PROMPT, "--guidance", "inf"], "--guidance is 'inf'; expected a number from 0.0"),
    "guidance below": ([PROMPT, "--guidance=-1"], "--guidance is '-1'; expected a number from 0.0"),
    "guidance text": ([PROMPT, "--guidance", "high"], "--guidance is 'high'; expected a number from 0.0"),
    "seed below": ([PROMPT, "--seed=-1"], "--seed is '-1'; expected a whole number from 0 to 9223372036854775807"),
    "seed too large": ([PROMPT, "--seed", str(2**63)], f"--seed is '{2**63}'; expected a whole number from 0"),
    "fps": ([PROMPT, "--fps", "0"], "--fps is '0'; expected a number from 0.1 to 50"),
    "scale": ([PROMPT, "--scale", "0"], "--scale is '0'; expected a whole number from 1"),
    "scale too large": ([PROMPT, "--scale", "513"], "--scale: save_video: scale is 513 for frames of 16 x 16; expected at most"),
    "backend": (
        [PROMPT, "--backend", "gpu"],
        "--backend is 'gpu'; expected one of 'reference', 'composed', 'cpu', 'cuda', 'triton'",
    ),
    "extension": ([PROMPT, "-o", "out.avi"], "--output: 'out.avi' ends in '.avi'; expected .gif, .mp4 or .png"),
    "no folder": ([PROMPT, "-o", "nowhere/out.gif"], "--output: 'nowhere/out.gif': no folder 'nowhere'; expected one"),
    "a folder": ([PROMPT, "-o", "taken.gif"], "--output: 'taken.gif' is not a file; expected a new one, or one to replace"),
    "extension too short": ([PROMPT, "--extend-to", "3"], "--extend-to is 3; expected at least the 4 frames of the first clip"),
    "too short to extend": (
        [PROMPT, "--frames", "1", "--extend-to", "3"], "--frames is 1; expected at least 2 with --extend-to",
    ),
    "no image": ([PROMPT, "--first-frame", "no.png"], "--first-frame: 'no.png': no such file; expected an image of 16 x 16"),
    "text for an image": ([PROMPT, "--first-frame", "text.png"], "--first-frame: 'text.png' cannot be read"),
    "image size": ([PROMPT, "--first-frame", "wide.png"], "--first-frame: 'wide.png' has 3 x 9 pixels (H x W); expected 16 x 16"),
    "no weights": ([PROMPT, "--weights", "no.safetensors"], "weights 'no.safetensors': no such file"),
    "weights a folder": ([PROMPT, "--weights", "taken.gif"], "weights 'taken.gif': no such file"),
    "weights an image": ([PROMPT, "--weights", "wide.png"], "weights 'wide.png': not a whole safetensors file"),
    "weights cut off": ([PROMPT, "--weights", "half.safetensors"], "weights 'half.safetensors': not a whole safetensors file"),
    "weights of another": (
        [PROMPT, "--weights", "foreign.safetensors"], "weights 'foreign.safetensors': not of a vdiff_kernels video model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_the_sampling(refused, weights, tmp_path, monkeypatch, never_sampled, case):
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    os.mkdir("taken.gif")
    (tmp_path / "text.png").write_text("hello")
    save_video("wide.png", torch.rand(1, 1, 3, 9), scale=1)
    (tmp_path / "half.safetensors").write_bytes(weights.read_bytes()[:-1000])
    save_file({"x": torch.ones(2)}, "foreign.safetensors")
    (tmp_path / "out.gif").write_bytes(b"old")
    before = set(os.listdir())

    arguments, line = REFUSED[case]
    for option, value in (("-o", "out.gif"), ("--weights", weights)):
        arguments = arguments if option in arguments else [*arguments, option, value]
    assert refused("sample", *arguments).startswith(f"vdiff: {line}")
    assert set(os.listdir()) == before and (tmp_path / "out.gif").read_bytes() == b"old"


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_a_backend_of_gpus_gives_its_reason(refused, weights, out, never_sampled, backend):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    line = refused("sample", PROMPT, "-o", out, "--weights", weights, "--backend", backend)
    assert re.fullmatch(
        rf"vdiff: --backend is '{backend}', which cannot run here: .*; expected one of 'reference', 'composed', 'cpu'", line
    )


def test_a_default_backend_that_does_not_exist(refused, weights, out, never_sampled, monkeypatch):
    monkeypatch.setattr(registry, "_default", "gpu")  # as VDIFF_BACKEND=gpu leaves it
    line = refused("sample", "a seven", "-o", out, "--weights", weights)
    assert line.startswith("vdiff: the environment variable VDIFF_BACKEND is 'gpu'; expected one of 'reference'")


def test_a_model_of_single_frames_is_not_extended(refused, tmp_path, out, never_sampled):
    tiny(num_frames=1).save(tmp_path / "image.safetensors")
    line = refused("sample", PROMPT, "-o", out, "--weights", tmp_path / "image.safetensors", "--extend-to", 3)
    assert line.startswith("vdiff: --extend-to is given; expected a model of clips")


def test_weights_that_are_no_numbers(refused, model, tmp_path, out):
    model.unet.head.conv.weight.fill_(torch.nan)
    model.save(tmp_path / "nan.safetensors")
    line = refused("sample", PROMPT, "-o", out, "--weights", tmp_path / "nan.safetensors", "--steps", 1)
    assert "--weights is" in line and "pixels that are no numbers" in line and not out.exists()


def test_a_full_disk(vdiff, weights, out, monkeypatch):
    def write_half(path, data):
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", write_half)
    with open(out, "wb") as file:
        file.write(b"old")
    result = vdiff("sample", PROMPT, "-o", out, "--weights", weights, "--steps", 1)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"vdiff: --output {str(out)!r}: No space left on device\n"
    assert out.read_bytes() == b"old" and os.listdir(out.parent) == ["out.gif"]


def test_ctrl_c(vdiff, weights, out, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setitem(SAMPLERS, "dpmpp_2m_sde", interrupt)
    out.write_bytes(b"old")
    result = vdiff("sample", PROMPT, "-o", out, "--weights", weights)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "vdiff sample: interrupted\n")
    assert out.read_bytes() == b"old" and os.listdir(out.parent) == ["out.gif"]
