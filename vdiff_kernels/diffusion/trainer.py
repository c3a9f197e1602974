"""Training: batches that follow from the seed and the step alone, checkpoints that resume bit for bit."""

import copy
import csv
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ..files import written_whole
from ..models.text import WordEncoder
from ..models.video_unet import VideoUNet
from ..streams import random_stream
from .pipeline import VideoDiffusion
from .training import draw_times, v_loss
from .weights import load_tensors, named_tensors

EMBEDDING = 192  # E of the models that settings make.
STATE, LOG, WEIGHTS = "state.safetensors", "loss.csv", "weights.safetensors"


class Captioned(Protocol):
    video: Tensor  # (C, T, H, W) float32, pixels from 0 to 1; a single image has T = 1.
    caption: str


class ClipData(Protocol):
    """What a Trainer asks of its data: clips and single images without end, index i always the same one."""

    vocabulary: tuple[str, ...]  # The words of its captions.

    def clip(self, index: int) -> Captioned: ...

    def image(self, index: int) -> Captioned: ...


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """What a run is; a resumed run has the same, but for `steps`."""

    # fmt: off
    steps: int = 10_000                  # Optimizer steps in all.
    batch: int = 8                       # Clips a step, over all processes.
    images: int = 1                      # Single images appended to each clip.
    lr: float = 6e-4                     # Of AdamW: rises over `warmup` steps, stays, falls to zero in the last `decay` of all.
    warmup: int = 200
    decay: float = 0.25
    ema: float = 0.999                   # Decay of the weights' moving average, which is what ships; less in the first steps.
    time_power: float = 0.8              # Times t = u^time_power: below 1 draws more of high noise, where motion is decided.
    weighting: str = "v"                 # Of the loss: training.WEIGHTINGS.
    null_rate: float = 0.1               # Share of clips and images without their caption, for classifier-free guidance.
    seed: int = 0
    num_frames: int = 16                 # T.
    size: int = 32                       # H = W.
    widths: tuple[int, ...] = (32, 64, 128)  # This and the next: of VideoUNet.
    blocks: int = 2
    patch: int = 2
    head_dim: int = 32
    # fmt: on

    def pipeline(self, vocabulary: tuple[str, ...], backend: str | None = None) -> VideoDiffusion:
        """The untrained model of captions in those words, the same for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            text = WordEncoder(vocabulary, EMBEDDING)
            unet = VideoUNet(
                widths=self.widths, blocks=self.blocks, patch=self.patch, head_dim=self.head_dim, embedding=EMBEDDING,
                backend=backend,
            )  # fmt: skip
        return VideoDiffusion(unet, text, num_frames=self.num_frames, size=(self.size, self.size))

    @staticmethod
    def of_model(model: VideoDiffusion, vocabulary: tuple[str, ...]) -> dict:
        """The settings that a run from the weights of `model` needs, those of its shape. ValueError where no settings give it."""
        config = model.unet.config
        needed = {name: config[name] for name in ("widths", "blocks", "patch", "head_dim")}
        needed |= dict(num_frames=model.num_frames, size=model.size[0])
        theirs, ours = model.config, TrainSettings(**needed).pipeline(vocabulary).config
        if theirs != ours:
            other = ", ".join(name for name in ours if theirs[name] != ours[name])
            raise ValueError(f"the weights to begin from are of another kind of model ({other}); expected one of `vdiff train`")
        return needed


def saved_settings(folder: Path) -> TrainSettings | None:
    """Those of the run in a folder; None where there is none, or one whose state Trainer refuses."""
    try:
        with safetensors.safe_open(folder / STATE, "pt") as file:
            return TrainSettings(**json.loads((file.metadata() or {})["settings"]))
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError):
        return None


def saved_step(folder: Path) -> int:
    """The step of the last checkpoint in a folder, 0 where there is none."""
    if not (folder / STATE).exists():
        return 0
    with safetensors.safe_open(folder / STATE, "pt") as file:
        return int(file.get_tensor("step"))


class Batch:
    """Clips `places` of a step: x (B, C, T+images, H, W), the captions of each clip and its images, what is drawn for them."""

    def __init__(self, settings: TrainSettings, pipeline: VideoDiffusion, data: ClipData, step: int, places: range):
        K, seed = settings.images, settings.seed
        of_step = random_stream("step", seed, step)
        jitter = torch.rand((), generator=of_step)
        videos, self.captions, noise, dropped = [], [], [], []
        for place in places:
            index = step * settings.batch + place
            clip, images = data.clip(index), [data.image(index * K + k) for k in range(K)]
            videos.append(torch.cat([part.video for part in (clip, *images)], dim=1))
            self.captions.append([clip.caption, *(image.caption for image in images)])
            of_clip = random_stream("noise", seed, index)
            shape = pipeline.space.shape(videos[-1].shape[1], videos[-1].shape[2:])
            noise.append(torch.randn(shape, generator=of_clip))
            dropped.append(torch.rand(1 + K, generator=of_clip) < settings.null_rate)
        self.x, self.noise = pipeline.space.encode(torch.stack(videos)), torch.stack(noise)
        self.dropped = torch.stack(dropped)  # (B, 1 + images)
        # One uniform number in each of batch equal intervals: Kingma et al. 2021 (arXiv 2107.00630), appendix I.1.
        uniform = (jitter + torch.tensor(list(places)) / settings.batch) % 1
        self.times = draw_times(uniform, settings.time_power)
        self.focus_present = torch.arange(self.x.shape[2]).expand(len(places), -1) >= settings.num_frames


class TrainingLoss(nn.Module):
    """The mean loss of a batch: one module, so that DistributedDataParallel can hold it."""

    def __init__(self, settings: TrainSettings, pipeline: VideoDiffusion):
        super().__init__()
        self.settings, self.schedule = settings, pipeline.schedule
        self.text, self.unet = pipeline.text, pipeline.unet

    def forward(self, batch: Batch) -> Tensor:
        T, K = self.settings.num_frames, self.settings.images
        text = self.text([caption for captions in batch.captions for caption in captions]).unflatten(0, (-1, 1 + K))
        text = torch.where(batch.dropped[..., None], self.text.null, text)
        text = text.repeat_interleave(torch.tensor([T] + [1] * K), dim=1)  # (B, T + images, E)
        loss = v_loss(
            self.unet, batch.x, text, self.schedule, batch.times, batch.noise,
            focus_present=batch.focus_present if K > 0 else None, weighting=self.settings.weighting,
        )  # fmt: skip
        return loss.mean()


class Trainer:
    """One process of a run in a folder, which resumes from the folder's last checkpoint."""

    def __init__(
        self,
        settings: TrainSettings,
        folder: Path,
        data: ClipData,                      # Of settings.num_frames, settings.size and settings.seed.
        backend: str | None = None,
        init: VideoDiffusion | None = None,  # Begins from its weights, not from untrained ones; settings are of its shape.
    ):  # fmt: skip
        self.settings, self.folder = settings, Path(folder)
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if settings.batch % self.world != 0:
            raise ValueError(f"batch is {settings.batch}; expected a multiple of the {self.world} processes")
        share = settings.batch // self.world
        self.places = range(self.rank * share, (self.rank + 1) * share)
        self.data = data
        self.pipeline = settings.pipeline(data.vocabulary, backend)
        if init is not None:
            self.pipeline.modules.load_state_dict(init.modules.state_dict())
        self.average = copy.deepcopy(self.pipeline.modules).requires_grad_(False)
        parameters = self.pipeline.modules.parameters()
        self.optimizer = torch.optim.AdamW(parameters, lr=settings.lr, betas=(0.9, 0.99), weight_decay=0.01)
        self.step, self.losses = 0, []
        if self.rank == 0:
            for draft in self.folder.glob(f".{Path(STATE).stem}.*"):
                draft.unlink()  # of a run that was killed as it wrote
        if (self.folder / STATE).exists():
            self._resume()
        loss = TrainingLoss(settings, self.pipeline)
        self.loss = DistributedDataParallel(loss) if self.world > 1 else loss

    def averaged(self) -> VideoDiffusion:
        """The model with its averaged weights."""
        other = copy.copy(self.pipeline)
        other.modules = self.average
        return other

    def run(
        self,
        checkpoint_seconds: float = 60.0,
        on_step: Callable[[int, float], None] | None = None,
        on_checkpoint: Callable[["Trainer"], None] | None = None,
    ) -> None:
        """Trains to the last step; on_step(step, loss) after each, on_checkpoint(self) after each checkpoint, on rank 0."""
        saved = time.monotonic()
        while self.step < self.settings.steps:
            loss = self._take_step()
            self.losses.append((self.step, loss))
            if self.rank != 0:
                continue
            if on_step is not None:
                on_step(self.step, loss)
            if self.step == self.settings.steps or time.monotonic() - saved > checkpoint_seconds:
                self.checkpoint()
                if on_checkpoint is not None:
                    on_checkpoint(self)
                saved = time.monotonic()

    def _take_step(self) -> float:
        settings, parameters = self.settings, list(self.pipeline.modules.parameters())
        batch = Batch(settings, self.pipeline, self.data, self.step, self.places)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * _lr_factor(self.step, settings)
        self.optimizer.zero_grad()
        loss = self.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), parameters, 1 - decay)
        mean = loss.detach()
        if self.world > 1:
            dist.all_reduce(mean)
        return mean.item() / self.world

    def checkpoint(self) -> None:
        """Writes the state last, so that a kill leaves a state whose log and weights are at least as new."""
        self.averaged().save(self.folder / WEIGHTS)
        with written_whole(self.folder / LOG) as draft, open(draft, "w", newline="") as file:
            csv.writer(file).writerows([("step", "loss"), *((step, repr(loss)) for step, loss in self.losses)])
        tensors = {f"model.{name}": tensor for name, tensor in named_tensors(self.pipeline.modules).items()}
        tensors |= {f"average.{name}": tensor for name, tensor in named_tensors(self.average).items()}
        for name, parameter in named_tensors(self.pipeline.modules, keep_vars=True).items():
            for moment, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{moment}.{name}"] = value
        tensors["step"] = torch.tensor(self.step)
        # One entry, for safetensors writes several in no fixed order.
        metadata = {"settings": json.dumps(dataclasses.asdict(self.settings))}
        with written_whole(self.folder / STATE) as draft:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, draft, metadata)

    def _resume(self) -> None:
        path = self.folder / STATE
        try:
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (safetensors.SafetensorError, OSError) as error:
            raise ValueError(f"{str(path)!r}: not a whole training state ({error}); remove it to begin anew") from None
        ours = json.loads(json.dumps(dataclasses.asdict(self.settings)))
        theirs = json.loads(metadata.get("settings", "{}"))
        fixed = sorted(ours.keys() - {"steps"})
        changed = [f"{name} {theirs.get(name)!r}, now {ours[name]!r}" for name in fixed if theirs.get(name) != ours[name]]
        if changed:
            raise ValueError(f"{str(path)!r} is of another run ({'; '.join(changed)}); give its settings or another folder")

        def part(prefix):
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        try:
            load_tensors(self.pipeline.modules, part("model."))
            load_tensors(self.average, part("average."))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{str(path)!r} is of another version ({reason}); remove it to begin anew") from None
        moments = {moment: part(f"optimizer.{moment}.") for moment in ("step", "exp_avg", "exp_avg_sq")}
        for name, parameter in named_tensors(self.pipeline.modules, keep_vars=True).items():
            self.optimizer.state[parameter] = {moment: values[name] for moment, values in moments.items()}
        self.step = int(tensors["step"])
        with open(self.folder / LOG, newline="") as file:
            rows = list(csv.reader(file))[1:]
        self.losses = [(int(step), float(loss)) for step, loss in rows][: self.step]


def _lr_factor(step: int, settings: TrainSettings) -> float:
    rising = (step + 1) / max(1, settings.warmup)
    falling = (settings.steps - step) / max(1.0, settings.steps * settings.decay)
    return min(1.0, rising, falling)
