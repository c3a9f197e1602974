"""Trains the reference model on moving digits and writes clips of it: `vdiff train` in a few lines of Python.

    python examples/train_moving_digits.py runs/digits

Run it again to go on from the last checkpoint.
"""

import sys
from pathlib import Path

import torch

from vdiff_kernels.data import MovingDigits
from vdiff_kernels.diffusion.trainer import Trainer, TrainSettings
from vdiff_kernels.media import grid, save_video

PROMPTS = ["a seven moving left", "a zero moving up and right", "a four moving down", "a two moving right"]


def show_loss(step: int, loss: float) -> None:
    if step % 10 == 0:
        print(f"step {step}: loss {loss:.4f}", flush=True)


def write_clips(trainer: Trainer) -> None:
    """The same four prompts from the same noise at every checkpoint, side by side."""
    model = trainer.averaged()
    clips = model.sample(PROMPTS, generator=torch.Generator().manual_seed(0))  # (B, C, T, H, W)
    save_video(trainer.folder / "clips.gif", grid(clips, columns=2), scale=4)


def main() -> None:
    settings = TrainSettings(steps=2_000)  # More make better digits.
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/digits")
    folder.mkdir(parents=True, exist_ok=True)
    data = MovingDigits("train", settings.num_frames, settings.size, seed=settings.seed)
    trainer = Trainer(settings, folder, data)
    trainer.run(checkpoint_seconds=300, on_step=show_loss, on_checkpoint=write_clips)


if __name__ == "__main__":
    main()
