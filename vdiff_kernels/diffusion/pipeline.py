"""From a prompt to a clip: the U-Net, its schedule and the scale of its pixels, with the samplers and their guidance."""

import json
import math
import os
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from ..files import written_whole
from ..models.video_unet import VideoUNet
from ..ops import checks
from .guidance import frame_guided, text_guided
from .interop import sample_with_scheduler
from .sampler import noise_like, sample
from .schedule import CosineSchedule

FORMAT = "vdiff_kernels video diffusion 1"


class VideoDiffusion:
    """A trained VideoUNet with all that sampling needs. `VideoDiffusion.load()` has the weights that ship: moving digits."""

    def __init__(
        self,
        unet: VideoUNet,
        *,
        num_frames: int = 16,               # T of the clips it was trained on.
        size: tuple[int, int] = (32, 32),   # (H, W) of them.
        pixel_mean: float = 0.06,           # x = (pixel - pixel_mean) * pixel_scale, pixels from 0 to 1.
        pixel_scale: float = 3.0,
        logsnr_shift: float = -2.0,         # Of the cosine schedule.
    ):  # fmt: skip
        self.unet = unet
        self.num_frames, self.size = num_frames, tuple(size)
        self.pixel_mean, self.pixel_scale = pixel_mean, pixel_scale
        self.schedule = CosineSchedule(logsnr_shift)

    def to_x(self, pixels: Tensor) -> Tensor:
        return (pixels - self.pixel_mean) * self.pixel_scale

    def to_pixels(self, x: Tensor) -> Tensor:
        return (x / self.pixel_scale + self.pixel_mean).clamp(0, 1)

    @torch.no_grad()
    def sample(
        self,
        prompts: str | Sequence[str],             # B captions.
        *,
        num_frames: int | None = None,            # T. Default: as trained.
        size: tuple[int, int] | None = None,      # (H, W). Default: as trained.
        steps: int = 25,
        sampler="dpmpp_2m_sde",                   # A key of SAMPLERS, or a scheduler object of diffusers.
        guidance: float = 2.0,                    # Of the text; 1 for none.
        rescale: float = 0.0,                     # Of the guidance, 0 to 1.
        known: Tensor | None = None,              # (B, C, T, H, W) pixels, or (1, ...) for all; looked at in known_frames.
        known_frames: Sequence[int] = (),
        reconstruction: float = 2.0,              # Weight of the guidance to the known frames.
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,            # (B, C, T, H, W), the noise to start from.
        callback: Callable[[int, Tensor], None] | None = None,  # callback(step, estimate of x) after each step.
        progress: bool = False,                   # A bar on stderr.
    ) -> Tensor:  # fmt: skip
        """Returns pixels (B, C, T, H, W) in [0, 1], float32. Raises ValueError for a word that the model does not know."""
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        num_frames = self.num_frames if num_frames is None else num_frames
        for name, value in (("num_frames", num_frames), ("steps", steps)):
            checks.require_positive_int("sample", name, value)
        for name, value in (("guidance", guidance), ("rescale", rescale), ("reconstruction", reconstruction)):
            checks.require_number("sample", name, value)
            if not 0 <= value < math.inf:
                raise ValueError(f"sample: {name} is {value}; expected a finite number from 0")
        shape = (len(prompts), self.unet.channels, num_frames, *(self.size if size is None else size))
        text = self.unet.text(prompts)
        if latents is None:
            latents = noise_like(text.new_empty(shape), generator)
        elif latents.shape != shape:
            raise ValueError(f"sample: latents has shape {tuple(latents.shape)}; expected (B, C, T, H, W) = {shape}")

        denoise = text_guided(self.unet, text, self.unet.text.null, guidance=guidance, rescale=rescale)
        if known is None and len(known_frames) > 0:
            raise ValueError(f"sample: known_frames is {list(known_frames)} and known is None; expected pixels (B, C, T, H, W)")
        if known is not None:
            frames = self._known_frames(known, known_frames, shape).to(text.device)
            denoise = frame_guided(denoise, self.to_x(known.to(text)), frames, weight=reconstruction)
        clip = tuple(self.to_x(torch.tensor([0.0, 1.0])).tolist())
        common = dict(clip=clip, generator=generator, callback=callback, progress=progress)
        if isinstance(sampler, str):
            x = sample(denoise, latents, self.schedule.steps(steps), sampler=sampler, **common)
        else:
            x = sample_with_scheduler(denoise, latents, sampler, steps, **common)
        return self.to_pixels(x)

    def animate(self, prompts: str | Sequence[str], image: Tensor, *, num_frames: int | None = None, **arguments) -> Tensor:
        """`sample` with the first frame fixed: image (C, H, W) or (B, C, H, W), pixels."""
        image = image if image.dim() == 4 else image[None]
        if image.dim() != 4 or image.shape[1] != self.unet.channels:
            allowed = f"(B, C, H, W) with C = {self.unet.channels}"
            raise ValueError(f"animate: image has shape {tuple(image.shape)}; expected {allowed}")
        known = image[:, :, None].expand(-1, -1, self.num_frames if num_frames is None else num_frames, -1, -1)
        size = tuple(image.shape[-2:])
        return self.sample(prompts, num_frames=num_frames, known=known, known_frames=[0], size=size, **arguments)

    def extend(
        self,
        prompts: str | Sequence[str],
        clip: Tensor,        # (B, C, T, H, W) or (1, ...) pixels, T at least overlap.
        num_frames: int,     # Of the whole, at least T.
        *,
        overlap: int | None = None,  # Last frames of what is there, known to the next clip. Default: half a clip.
        **arguments,
    ) -> Tensor:  # fmt: skip
        """The clip continued to num_frames, clip by clip of the trained length, each after the last frames of the one before."""
        overlap = self.num_frames // 2 if overlap is None else overlap
        if not 1 <= overlap < self.num_frames or clip.shape[2] < overlap or num_frames < clip.shape[2]:
            raise ValueError(
                f"extend: clip has shape {tuple(clip.shape)}, num_frames is {num_frames} and overlap {overlap}; expected overlap "
                f"from 1 to {self.num_frames - 1}, at least as many frames, and no fewer in the end"
            )
        clip = clip.expand(1 if isinstance(prompts, str) else len(prompts), -1, -1, -1, -1)
        while clip.shape[2] < num_frames:
            last = clip[:, :, -overlap:]
            known = torch.cat((last, last[:, :, -1:].expand(-1, -1, self.num_frames - overlap, -1, -1)), dim=2)
            size = tuple(clip.shape[-2:])
            longer = self.sample(prompts, known=known, known_frames=range(overlap), size=size, **arguments)
            clip = torch.cat((clip, longer[:, :, overlap:]), dim=2)
        return clip[:, :, :num_frames]

    @staticmethod
    def _known_frames(known: Tensor, known_frames: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        T = shape[2]
        if known.dim() != 5 or known.shape[0] not in (1, shape[0]) or known.shape[1:] != shape[1:]:
            raise ValueError(f"sample: known has shape {tuple(known.shape)}; expected (B or 1, C, T, H, W) = {shape}")
        if not known_frames or not all(0 <= frame < T for frame in known_frames):
            raise ValueError(f"sample: known_frames is {list(known_frames)}; expected at least one, each from 0 to {T - 1}")
        frames = torch.zeros(T, dtype=torch.bool)
        frames[list(known_frames)] = True
        return frames

    @property
    def config(self) -> dict:
        """The arguments that make an untrained model like this one, those of its VideoUNet under "unet"."""
        return {
            "unet": self.unet.config, "num_frames": self.num_frames, "size": self.size,
            "pixel_mean": self.pixel_mean, "pixel_scale": self.pixel_scale, "logsnr_shift": self.schedule.shift,
        }  # fmt: skip

    def save(self, path: str | os.PathLike, dtype: torch.dtype = torch.float16) -> None:
        """Writes the weights in `dtype`, with the configuration in the metadata: safetensors, whole or not at all."""
        tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in self.unet.state_dict().items()}
        with written_whole(path) as draft:
            metadata = {"config": json.dumps({"format": FORMAT} | self.config)}  # one entry: several have no fixed order
            save_file(tensors, draft, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike | None = None, backend: str | None = None) -> "VideoDiffusion":
        """The model of `save`, in float32 and frozen; without a path, the one that ships.

        Raises FileNotFoundError, or ValueError for a file that is corrupt or not from `save`.
        """
        path = shipped_weights() if path is None else Path(path)
        config, tensors = _read(path)
        try:
            pipeline = cls(VideoUNet(**config.pop("unet"), backend=backend), **config)
            pipeline.unet.load_state_dict(tensors)
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(f"weights {str(path)!r} do not fit this version: {str(error).splitlines()[0]}") from None
        pipeline.unet.eval().requires_grad_(False)  # guidance by known frames differentiates by the clip alone
        return pipeline


def shipped_weights() -> Path:
    return Path(str(resources.files("vdiff_kernels") / "weights" / "moving_digits.safetensors"))


def _read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"weights {str(path)!r}: no such file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"weights {str(path)!r}: not a whole safetensors file ({error})") from None
    try:
        config = json.loads(metadata["config"])
        known = config.pop("format") == FORMAT
    except (KeyError, TypeError, ValueError, AttributeError):
        known = False
    if not known:
        raise ValueError(f"weights {str(path)!r}: not of a vdiff_kernels video model; expected a file of `vdiff train`")
    return config, tensors
