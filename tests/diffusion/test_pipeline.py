"""The pipeline: weights that survive a round trip, sampling, known frames, and errors that name what is wrong."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vdiff_kernels.diffusion import VideoDiffusion
from vdiff_kernels.diffusion import weights as file_of_weights
from vdiff_kernels.diffusion.sampler import SAMPLERS
from vdiff_kernels.diffusion.schedule import CosineSchedule
from vdiff_kernels.diffusion.space import PixelSpace

from .tiny import tiny

PROMPT = "a seven moving left"
EXACT = dict(rtol=0, atol=2**-22)  # known pixels go to x and back: an ulp or two of float32 below 1


@pytest.fixture(scope="module")
def model():
    return tiny()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Weights


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    tiny(num_frames=5, size=(16, 24), space=PixelSpace(1, 0.1, 2.0), logsnr_shift=-1.5).save(path)
    return path


def test_a_round_trip_in_half_precision(weights):
    original, loaded = tiny(), VideoDiffusion.load(weights)
    assert (loaded.num_frames, loaded.size, loaded.space) == (5, (16, 24), PixelSpace(1, 0.1, 2.0))
    assert loaded.schedule == CosineSchedule(-1.5) and loaded.config | original.config == loaded.config | tiny().config
    for name, value in original.modules.state_dict().items():
        assert torch.equal(loaded.modules.state_dict()[name], value.half().float()), name
    assert not loaded.modules.training and not any(p.requires_grad for p in loaded.modules.parameters())
    again = weights.with_name("again.safetensors")
    loaded.save(again)
    assert again.read_bytes() == weights.read_bytes()  # nothing more is lost, and the bytes follow from the model alone
    assert loaded.sample(PROMPT, steps=2).shape == (1, 1, 5, 16, 24)


def test_a_file_is_two_bytes_a_parameter(weights):
    count = sum(parameter.numel() for parameter in tiny().modules.parameters())
    tensors = load_file(weights)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    header = 200 * len(tensors) + 2000
    assert 2 * count < weights.stat().st_size < 2 * count + header


def test_other_precisions_and_backends(weights, model):
    model.save(weights, torch.float32)
    loaded = VideoDiffusion.load(weights, backend="reference")
    for name, value in model.modules.state_dict().items():
        assert torch.equal(loaded.modules.state_dict()[name], value), name
    assert loaded.unet.stem.backend == loaded.unet.middle.attention.temporal_attn.backend == "reference"


def test_a_failed_save_leaves_what_was_there(weights, monkeypatch):
    before = weights.read_bytes()

    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(file_of_weights, "save_file", fail)
    with pytest.raises(OSError, match="No space"):
        tiny().save(weights)
    assert weights.read_bytes() == before and os.listdir(weights.parent) == [weights.name]


def rewritten(path, change):
    """The file with change(text) in the place of what its metadata says of the configuration."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = {key: change(text) if text.startswith("{") else text for key, text in file.metadata().items()}
    save_file(tensors, path, metadata)


def without(config: str, *names: str) -> str:
    return json.dumps({name: value for name, value in json.loads(config).items() if name not in names})


BROKEN = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "not a whole safetensors file"),
    "header": (lambda path: path.write_bytes(path.read_bytes()[:50]), "not a whole safetensors file"),
    "empty": (lambda path: path.write_bytes(b""), "not a whole safetensors file"),
    "no-safetensors": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(500)), "not a whole safetensors file"),
    "foreign": (lambda path: save_file({"a": torch.zeros(2)}, path), "not of a vdiff_kernels video model"),
    "foreign-metadata": (lambda path: save_file({}, path, {"format": "pt"}), "not of a vdiff_kernels video model"),
    "no-json": (lambda path: rewritten(path, lambda _: "{"), "(do not fit this version|not of a vdiff_kernels)"),
    "no-unet": (lambda path: rewritten(path, lambda config: without(config, "unet")), "do not fit this version"),
    "new-option": (lambda path: rewritten(path, lambda c: c.replace("num_frames", "frames")), "do not fit this version"),
    "other-width": (lambda path: rewritten(path, lambda c: c.replace("[8, 16]", "[8, 24]")), "do not fit this version"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_weights_are_one_clear_error(weights, case):
    spoil, message = BROKEN[case]
    spoil(weights)
    with pytest.raises(ValueError, match=f"^weights '.*weights.safetensors'.* {message}") as caught:
        VideoDiffusion.load(weights)
    assert "\n" not in str(caught.value) and caught.value.__cause__ is None


def test_missing_weights(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match="^weights '.*': no such file"):
            VideoDiffusion.load(path)


# Sampling


def test_the_generator_decides_the_clip(model):
    torch.manual_seed(1)
    first = model.sample(PROMPT, steps=3, generator=seeded(5), sampler="ancestral")
    torch.manual_seed(2)
    assert torch.equal(model.sample([PROMPT], steps=3, generator=seeded(5), sampler="ancestral"), first)
    assert not torch.equal(model.sample(PROMPT, steps=3, generator=seeded(6), sampler="ancestral"), first)
    assert first.shape == (1, 1, 4, 16, 16) and first.dtype == torch.float32 and not first.requires_grad
    assert 0 <= first.min() and first.max() <= 1 and first.std() > 0.01


def test_latents_decide_the_clip_of_each_prompt(model):
    latents, prompts = torch.randn(2, 1, 4, 16, 16), [PROMPT, "a two"]
    kept = latents.clone()
    both = model.sample(prompts, steps=3, latents=latents, sampler="dpmpp_2m")
    assert torch.equal(latents, kept)
    for place in range(2):  # nothing passes from one to the other; batches of other sizes round otherwise
        alone = model.sample(prompts[place], steps=3, latents=latents[place : place + 1], sampler="dpmpp_2m")
        torch.testing.assert_close(both[place : place + 1], alone, rtol=0, atol=1e-4)
    assert (both[0] - both[1]).abs().max() > 0.1
    words = model.sample(prompts, steps=3, latents=latents[:1].expand(2, -1, -1, -1, -1), sampler="dpmpp_2m")
    assert (words[0] - words[1]).abs().max() > 0.01  # the text alone, too


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_clip_follows_from_its_own_generator(model, name):
    """Whatever batch it is in: as diffusers does it. Batches of other sizes round otherwise."""
    arguments = dict(steps=4, sampler=name)
    both = model.sample([PROMPT, "a two"], generator=[seeded(1), seeded(2)], **arguments)
    for place, prompt in enumerate([PROMPT, "a two"]):
        alone = model.sample(prompt, generator=seeded(place + 1), **arguments)
        torch.testing.assert_close(both[place : place + 1], alone, rtol=0, atol=1e-4)
    turned = model.sample(["a two", PROMPT], generator=(seeded(2), seeded(1)), **arguments)
    torch.testing.assert_close(turned.flip(0), both, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_pixels_are_float32_whatever_the_model_computes_in(dtype):
    model = tiny()
    model.modules.to(dtype)
    known = torch.rand(1, 1, 4, 16, 16, dtype=dtype)
    out = model.sample(PROMPT, steps=2, known=known, known_frames=[0], generator=seeded(1))
    assert out.dtype == torch.float32 and out.isfinite().all()
    torch.testing.assert_close(out[:, :, 0], known[:, :, 0].float(), **EXACT)  # not rounded to the model's dtype on the way


def test_the_noise_of_a_half_model_is_that_of_the_whole_one():
    """Drawn in float32, whatever the model computes in: the same clip, rounded."""
    seen = []
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny()
        model.modules.to(dtype)
        model.unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        model.sample(PROMPT, steps=1, guidance=1.0, generator=seeded(1))
    assert torch.equal(seen[0].bfloat16(), seen[1])


@pytest.mark.parametrize("num_frames, size", [(1, (16, 16)), (7, (8, 24))])
def test_other_lengths_and_sizes_than_trained(model, num_frames, size):
    out = model.sample(PROMPT, steps=2, num_frames=num_frames, size=size)
    assert out.shape == (1, 1, num_frames, *size) and out.isfinite().all()


def test_steps_guidance_and_rescale_take_effect(model):
    arguments = dict(steps=3, latents=torch.randn(1, 1, 4, 16, 16))
    plain = model.sample(PROMPT, generator=seeded(5), **arguments)
    defaults = dict(guidance=2.0, rescale=0.0, sampler="dpmpp_2m_sde")
    assert torch.equal(model.sample(PROMPT, generator=seeded(5), **defaults, **arguments), plain)
    for change in (dict(guidance=1.0), dict(rescale=0.7), dict(sampler="ddim"), dict(steps=4)):
        assert (model.sample(PROMPT, generator=seeded(5), **{**arguments, **change}) - plain).abs().max() > 1e-5, change


def test_the_callback_sees_every_estimate(model):
    seen = []
    out = model.sample(PROMPT, steps=3, callback=lambda step, x: seen.append((step, x)))
    assert [step for step, _ in seen] == [1, 2, 3]
    assert torch.equal(model.space.decode(seen[-1][1]), out)  # the last estimate is the clip
    low, high = model.space.limits
    assert all(low <= x.min() and x.max() <= high for _, x in seen)


def test_pixels_to_x_and_back(model):
    pixels = torch.linspace(0, 1, 11)
    space = model.space
    torch.testing.assert_close(space.decode(space.encode(pixels)), pixels, **EXACT)
    assert space.encode(torch.tensor(space.mean)) == 0
    assert space.limits == tuple(space.encode(torch.tensor([0.0, 1.0])).tolist()) and space.shape(3, (4, 5)) == (1, 3, 4, 5)
    assert model.space.decode(torch.tensor([-9.0, 9.0])).tolist() == [0, 1]


# Known frames


def test_frames_between_two_that_are_known(model):
    known = torch.rand(1, 1, 4, 16, 16)
    prompts = [PROMPT, "a two"]  # one known clip for both
    out = model.sample(prompts, steps=3, known=known, known_frames=[0, 3])
    for frame in (0, 3):
        torch.testing.assert_close(out[:, :, frame], known[:, :, frame].expand(2, -1, -1, -1), **EXACT)
    assert (out[:, :, 1:3] - known[:, :, 1:3]).abs().amax((1, 2, 3, 4)).min() > 0.1  # frames 1 and 2 were not looked at
    assert all(parameter.grad is None for parameter in model.unet.parameters())


def test_reconstruction_reaches_the_unknown_frames(model):
    known, latents = torch.rand(1, 1, 4, 16, 16), torch.randn(1, 1, 4, 16, 16)
    replaced, guided = (
        model.sample(PROMPT, steps=3, latents=latents, known=known, known_frames=[0], reconstruction=w, generator=seeded(5))
        for w in (0.0, 2.0)
    )
    assert (replaced - guided)[:, :, 1:].abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 1, 24, 8)])
def test_animate_begins_with_the_image(model, shape):
    image = torch.rand(shape)
    B = shape[0] if len(shape) == 4 else 1
    out = model.animate([PROMPT] * B, image, steps=2, num_frames=3, generator=seeded(1))
    assert out.shape == (B, 1, 3, *shape[-2:])
    torch.testing.assert_close(out[:, :, 0], image.reshape(B, 1, *shape[-2:]), **EXACT)


@pytest.mark.parametrize("num_frames", [4, 5, 9])
def test_extend_keeps_the_clip_and_goes_on(model, num_frames):
    clip, seen = torch.rand(1, 1, 4, 16, 16), []
    out = model.extend(PROMPT, clip, num_frames, overlap=2, steps=2, callback=lambda step, x: seen.append(x))
    assert out.shape == (1, 1, num_frames, 16, 16) and torch.equal(out[:, :, :4], clip) and 0 <= out.min() and out.max() <= 1
    # Each clip of 4 adds 2, and begins with the last 2 of those before.
    assert len(seen) == 2 * ((num_frames - 4 + 1) // 2)
    for place, x in enumerate(seen[1::2]):
        before = out[:, :, 2 + 2 * place : 4 + 2 * place]
        torch.testing.assert_close(model.space.decode(x)[:, :, :2], before, **EXACT)


def test_extend_for_several_prompts(model):
    out = model.extend([PROMPT, "a two"], torch.rand(2, 1, 4, 16, 16), 6, overlap=1, steps=2)
    assert out.shape == (2, 1, 6, 16, 16)


@pytest.mark.parametrize("made", ["outside", "inside", "loaded", "moved"])
def test_known_frames_under_inference_mode(model, weights, made):
    """Guidance to them needs gradients, whoever made or loaded the model, and wherever."""
    arguments = dict(steps=2, guidance=1.0, latents=torch.randn(1, 1, 4, 16, 16))
    known = torch.rand(1, 1, 4, 16, 16)
    if made == "loaded":
        model.save(weights, torch.float32)
    with torch.inference_mode():
        if made == "inside":
            other = tiny()
        elif made == "loaded":
            other = VideoDiffusion.load(weights)
        else:
            other = tiny() if made == "moved" else model
            other.modules.double().float()
        inside = other.sample(PROMPT, known=known + 0, known_frames=[0], generator=seeded(1), **arguments)
        extended = other.extend(PROMPT, inside, 6, overlap=2, steps=1)
        other.animate(PROMPT, known[0, :, 0] + 0, steps=1)
    assert extended.shape == (1, 1, 6, 16, 16)
    outside = model.sample(PROMPT, known=known, known_frames=[0], generator=seeded(1), **arguments)
    torch.testing.assert_close(inside, outside, rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [torch.tensor([0, 3]), np.array([0, 3]), (0, 3), range(0, 4, 3), {0: "a", 3: "b"}.keys()])
def test_arrays_of_every_kind(model, frames):
    known, latents = torch.rand(1, 1, 4, 16, 16), torch.randn(1, 1, 4, 16, 16)
    ours = model.sample(PROMPT, steps=2, latents=latents, known=known, known_frames=[0, 3], generator=seeded(1))
    for given in (known, known.numpy(), known.double(), known.numpy().tolist()):
        arguments = dict(latents=latents.numpy(), known=given, known_frames=frames, size=np.array([16, 16]))
        theirs = model.sample(PROMPT, steps=2, generator=seeded(1), **arguments)
        assert torch.equal(theirs, ours)
    animated = model.animate(PROMPT, known[0, :, 0], steps=1, latents=latents, generator=seeded(1))
    assert torch.equal(model.animate(PROMPT, known[0, :, 0].numpy(), steps=1, latents=latents, generator=seeded(1)), animated)
    extended = model.extend(PROMPT, known, 5, overlap=3, steps=1, generator=seeded(1))
    assert torch.equal(model.extend(PROMPT, known.numpy(), 5, overlap=3, steps=1, generator=seeded(1)), extended)


KNOWN = torch.rand(1, 1, 4, 16, 16)
BAD = {
    "word": (lambda m: m.sample("a cat"), "prompt 'a cat' has the word 'cat'; expected words of: a, zero, one"),
    "empty": (lambda m: m.sample(["a two", ""]), "prompt '' is empty"),
    "latents": (lambda m: m.sample("a", latents=KNOWN[:, :, :3]), r"latents has shape \(1, 1, 3, 16, 16\); expected .* = \(1"),
    "latents-batch": (lambda m: m.sample(["a"] * 2, latents=KNOWN), r"latents has shape \(1, .* = \(2, 1, 4, 16, 16\)"),
    "size": (lambda m: m.sample("a", size=(16, 18)), r"z has shape \(2, 1, 4, 16, 18\); .* multiples of 4"),
    "frames": (lambda m: m.sample("a", num_frames=0), "sample: num_frames is 0; expected at least 1"),
    "steps": (lambda m: m.sample("a", steps=0), "sample: steps is 0; expected at least 1"),
    "guidance": (lambda m: m.sample("a", guidance=float("nan")), "sample: guidance is nan; expected a finite number from 0"),
    "sampler": (lambda m: m.sample("a", sampler="euler"), "sampler is 'euler'; expected one of 'ancestral'"),
    "known": (lambda m: m.sample("a", known=KNOWN[0], known_frames=[0]), r"known has shape \(1, 4, 16, 16\); expected \(B or 1"),
    "known-batch": (lambda m: m.sample(["a"] * 3, known=KNOWN.expand(2, 1, 4, 16, 16), known_frames=[0]), "known has shape"),
    "known-size": (lambda m: m.sample("a", size=(8, 8), known=KNOWN, known_frames=[0]), r"known has .* = \(1, 1, 4, 8, 8\)"),
    "known-none": (lambda m: m.sample("a", known=KNOWN), r"known_frames is \[\]; expected at least one, each from 0 to 3"),
    "known-far": (lambda m: m.sample("a", known=KNOWN, known_frames=[4]), r"known_frames is \[4\]; expected .* from 0 to 3"),
    "image": (lambda m: m.animate("a", torch.rand(3, 16, 16)), r"image has shape \(1, 3, 16, 16\); .* with C = 1"),
    "overlap": (lambda m: m.extend("a", KNOWN, 8, overlap=4), r"overlap 4; expected overlap from 1 to 3"),
    "clip": (lambda m: m.extend("a", KNOWN[:, :, :1], 8, overlap=2), r"clip has shape \(1, 1, 1, .* at least as many frames"),
    "no-prompts": (lambda m: m.sample([]), "sample: prompts is empty; expected at least one caption"),
    "no-prompts-extend": (lambda m: m.extend([], KNOWN, 8), "extend: prompts is empty; expected"),
    "generators": (lambda m: m.sample(["a"] * 3, generator=[seeded(0)]), "generator is a list of 1; expected one a clip, 3"),
    "size-one": (lambda m: m.sample("a", size=(16,)), r"size is \(16,\); expected \(H, W\)"),
    "known-negative": (lambda m: m.sample("a", known=KNOWN, known_frames=[-1]), r"known_frames is \[-1\]; expected .* from 0"),
    "known-range": (lambda m: m.sample("a", known=KNOWN * 255, known_frames=[1]), "known has values from .* pixels from 0 to 1"),
    "known-nan": (lambda m: m.sample("a", known=KNOWN * torch.nan, known_frames=[1]), "known has values from nan"),
    "frames-without": (lambda m: m.sample("a", known_frames=torch.tensor([1])), "known_frames is .* and known is None"),
    "clip-batch": (lambda m: m.extend(["a"] * 3, KNOWN.expand(2, 1, 4, 16, 16), 8), "clip has shape .*; expected B = 1 or 3"),
    "shorter": (lambda m: m.extend("a", KNOWN, 3, overlap=2), "num_frames is 3 .* no fewer in the end"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_arguments_are_named(model, case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(model)


TYPES = {
    "generator": (lambda m: m.sample("a", generator=5), "generator is 5; expected a torch.Generator, or a list"),
    "generators": (lambda m: m.sample("a", generator=[5]), "generator is 5; expected a torch.Generator"),
    "known-levels": (lambda m: m.sample("a", known=KNOWN.byte(), known_frames=[1]), "known has dtype torch.uint8; expected"),
    "known-text": (lambda m: m.sample("a", known="clip.gif", known_frames=[1]), "known is 'clip.gif'; expected a torch.Tensor"),
    "mask": (
        lambda m: m.sample("a", known=KNOWN, known_frames=torch.tensor([True, False, False, True])),
        r"known_frames is \[True, False, False, True\]; expected whole numbers from 0 to 3",
    ),
    "half-frames": (lambda m: m.sample("a", known=KNOWN, known_frames=[0.5]), r"known_frames is \[0.5\]; expected whole numbers"),
    "one-frame": (lambda m: m.sample("a", known=KNOWN, known_frames=1), "known_frames is 1; expected whole numbers from 0 to 3"),
    "no-frames": (lambda m: m.sample("a", known=KNOWN, known_frames=None), "known_frames is None; expected whole numbers"),
    "latents": (lambda m: m.sample("a", latents=KNOWN.int()), "latents has dtype torch.int32; expected float32"),
    "image": (lambda m: m.animate("a", np.zeros((16, 16, 1), np.uint8)), "image has dtype torch.uint8; expected float32"),
    "image-text": (lambda m: m.animate("a", "a.png"), "image is 'a.png'; expected a torch.Tensor or an array of numbers"),
    "clip": (lambda m: m.extend("a", None, 8), "clip is None; expected a torch.Tensor"),
    "prompts": (lambda m: m.sample(None), "prompts has None; expected a caption or a sequence of captions"),
    "prompt": (lambda m: m.sample(["a", 7]), "prompts has 7; expected a caption"),
    "size": (lambda m: m.sample("a", size=16.5), "size is 16.5|size"),
    "frames": (lambda m: m.animate("a", torch.rand(1, 16, 16), num_frames="3"), "num_frames is '3'; expected an int"),
}  # fmt: skip


@pytest.mark.parametrize("case", TYPES)
def test_arguments_of_other_types_are_named(model, case):
    call, message = TYPES[case]
    with pytest.raises((TypeError, ValueError), match=f"^(sample|animate|extend): {message}") as caught:
        call(model)
    assert "\n" not in str(caught.value)
