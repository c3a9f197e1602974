"""Whole pipelines, given to patch as they are: the frames of the same pipeline unpatched."""

import importlib.util
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from accelerate import cpu_offload_with_hook
from PIL import Image

import vdiff_kernels as vdiff

from . import pipelines
from .models import MODELS
from .unet3d import package

ROOT = Path(__file__).parents[2]
QUIET = dict(output_type="np", num_inference_steps=2)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def example(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def close(frames, expected) -> None:
    np.testing.assert_allclose(np.asarray(frames), np.asarray(expected), rtol=0, atol=1e-3)


def test_the_example_of_modelscope(tmp_path):
    """The script itself, from the prompt to the file, with accelerate's hooks as on a GPU: diffusers puts them there alone."""
    script, pipe = example("modelscope_text_to_video"), pipelines.modelscope(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    arguments = dict(num_inference_steps=25, num_frames=4, size=16)
    before = imageio.imread(script.generate(pipe, "a cat", str(tmp_path / "before.mp4"), **arguments))
    report = vdiff.patch(pipe)
    script.save_memory(pipe)
    hook = None
    for part in (pipe.text_encoder, pipe.unet, pipe.vae):
        _, hook = cpu_offload_with_hook(part, torch.device("cpu"), prev_module_hook=hook)
    after = imageio.imread(script.generate(pipe, "a cat", str(tmp_path / "after.mp4"), **arguments))
    assert after.shape == before.shape == (4, 16, 16, 3) and pipe.vae.use_slicing
    assert np.abs(after.astype(int) - before).max() <= 2 and before.std() > 5
    calls = report.calls()
    assert calls["unet.mid_block.attentions.0"] == {"served": 25, "stepped_aside": {}}
    assert any(path.startswith("vae.decoder") and made["served"] for path, made in calls.items())


@pytest.mark.parametrize("free_noise", [False, True])
def test_animatediff(tmp_path, free_noise):
    pipe = pipelines.animatediff(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    call = dict(prompt="a cat", num_frames=20 if free_noise else 5, height=16, width=16, **QUIET)
    if free_noise:
        pipe.enable_free_noise(context_length=8, context_stride=4)
    expected = pipe(**call, generator=generator()).frames
    report = vdiff.patch(pipe)
    close(pipe(**call, generator=generator()).frames, expected)
    served = {one.class_name for one in report.replaced if one.path.startswith("unet")}
    assert ("AnimateDiffTransformer3D" in served) is not free_noise and "Transformer2DModel" in served
    assert any(one.path.startswith("motion_adapter") for one in report.replaced)


def test_stable_video_diffusion(tmp_path):
    pipe = pipelines.stable_video_diffusion(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    picture = Image.fromarray((MODELS["svd"].inputs(1, 1, 16, 16)["x"][0, 0, :3].movedim(0, -1).sigmoid() * 255).byte().numpy())
    call = dict(image=picture, height=16, width=16, num_frames=3, decode_chunk_size=2, **QUIET)
    expected = pipe(**call, generator=generator()).frames
    report = vdiff.patch(pipe)
    close(pipe(**call, generator=generator()).frames, expected)
    assert {one.path.split(".")[0] for one in report.replaced} == {"unet", "vae"}
    vdiff.unpatch(pipe)
    assert np.array_equal(pipe(**call, generator=generator()).frames, expected)


def test_the_example_of_your_own_model(capsys):
    script = example("swap_into_your_model")
    script.main(size=8, rounds=1)
    printed = capsys.readouterr().out
    assert "3 modules served, 0 candidates left alone" in printed and "3 Pseudo3DBlock  by an adapter of yours" in printed
    assert float(printed.split("largest difference ")[1].split()[0]) < 1e-4


def diffusion() -> package.GaussianDiffusion:
    return package.GaussianDiffusion(MODELS["lucidrains"].build(), image_size=8, num_frames=5, timesteps=4)


def test_lucidrains_loss_and_samples():
    model, clip = diffusion(), torch.rand(2, 3, 5, 8, 8)

    def run():
        torch.manual_seed(1)
        loss = model(clip, prob_focus_present=0.5)
        return (
            loss.detach(),
            torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]),
            model.sample(batch_size=1),
        )

    expected = run()
    with vdiff.patched(model) as report:
        torch.testing.assert_close(run(), expected, rtol=1e-3, atol=1e-5)
    assert report.replaced[0].path.startswith("denoise_fn.")


def test_lucidrains_trainer(tmp_path, monkeypatch):
    """Which copies the model for its averages, and saves and loads both."""
    monkeypatch.setattr(package, "Dataset", lambda *_, **__: torch.rand(8, 3, 5, 8, 8, generator=generator()))
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)  # where it sends its videos
    states = []
    for patched in (False, True):
        model = diffusion()
        if patched:
            report = vdiff.patch(model)
        options = dict(train_batch_size=2, train_num_steps=3, step_start_ema=1, update_ema_every=1, save_and_sample_every=100)
        trainer = package.Trainer(model, tmp_path, results_folder=tmp_path, train_lr=1e-3, **options)
        torch.manual_seed(2)
        trainer.train()
        trainer.save(1)
        trainer.load(1)
        states.append((model.state_dict(), trainer.ema_model.state_dict()))
    torch.testing.assert_close(states[1], states[0], rtol=1e-3, atol=2e-4)
    assert all(made["served"] == 6 and not made["stepped_aside"] for made in report.calls().values())
