"""The reference UNet, untrained, beside itself in plain PyTorch, channels_last: one sampling step and one training step."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from vdiff_kernels.bench.rooflines import Work
from vdiff_kernels.bench.rows import Row
from vdiff_kernels.bench.timing import interleaved
from vdiff_kernels.data.moving_digits import MovingDigits
from vdiff_kernels.diffusion.trainer import Batch, TrainingLoss, TrainSettings


@dataclass(frozen=True)
class Step:
    """training: the loss of a batch, every gradient and the optimizer; else v of one clip, with and without its text."""

    training: bool

    @property
    def label(self) -> str:
        return f"reference UNet, one {'training' if self.training else 'sampling'} step"

    def measure(self) -> Row:
        settings = TrainSettings()
        calls = {name: self.call(settings, backend) for name, backend in (("ours", "cpu"), ("eager", "reference"))}
        with FlopCounterMode(display=False) as counter:
            calls["eager"]()
        times = interleaved(calls, rounds=5 if self.training else 9)
        return Row(self.label, times, "ours", Work(0, counter.get_total_flops()), {"eager": 1.4})

    def call(self, settings: TrainSettings, backend: str):
        pipeline = settings.pipeline(MovingDigits.vocabulary, backend)
        unet = pipeline.unet
        if not self.training:
            z, logsnr, text = torch.randn(2, 1, 16, 32, 32), torch.zeros(2), torch.randn(2, unet.config["embedding"])
            return torch.no_grad()(lambda: unet(z, logsnr, text))
        data = MovingDigits("train", settings.num_frames, settings.size, seed=settings.seed)
        batch = Batch(settings, pipeline, data, 0, range(settings.batch))
        loss = TrainingLoss(settings, pipeline)
        optimizer = torch.optim.AdamW(loss.parameters(), lr=settings.lr)

        def step():
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()

        return step


def cases() -> list[Step]:
    return [Step(False), Step(True)]
