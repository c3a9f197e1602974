"""From a prompt to a clip: the U-Net, its schedule and the scale of its pixels, with the samplers and their guidance."""

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from ..arrays import as_indices, as_tensor
from ..files import written_whole
from ..models.video_unet import VideoUNet
from ..ops import checks
from ..ops.library import acc_dtype
from .guidance import frame_guided, outside_inference_mode, text_guided
from .interop import sample_with_scheduler
from .sampler import Generators, noise_like, require_generator, sample
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

    @torch.inference_mode(False)  # guidance to known frames needs gradients, whoever calls
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
        known_frames: Sequence[int] = (),         # In any kind of sequence.
        reconstruction: float = 2.0,              # Weight of the guidance to the known frames.
        generator: Generators = None,             # Of all noise: one for all clips, or one for each.
        latents: Tensor | None = None,            # (B, C, T, H, W), the noise to start from.
        callback: Callable[[int, Tensor], None] | None = None,  # callback(step, estimate of x) after each step.
        progress: bool = False,                   # A bar on stderr.
    ) -> Tensor:  # fmt: skip
        """Returns pixels (B, C, T, H, W) in [0, 1], float32, whatever the model computes in. Arrays may be NumPy's, too.

        Each clip of a list of generators is what it would be alone, but for the rounding of a larger batch.
        Raises ValueError or TypeError that names the argument; ValueError for a word that the model does not know.
        """
        prompts = _captions("sample", prompts)
        num_frames = self.num_frames if num_frames is None else num_frames
        for name, value in (("num_frames", num_frames), ("steps", steps)):
            checks.require_positive_int("sample", name, value)
        for name, value in (("guidance", guidance), ("rescale", rescale), ("reconstruction", reconstruction)):
            checks.require_number("sample", name, value)
            if not 0 <= value < math.inf:
                raise ValueError(f"sample: {name} is {value}; expected a finite number from 0")
        H, W = self.size if size is None else _size("sample", size)
        shape = (len(prompts), self.unet.channels, num_frames, H, W)
        require_generator("sample", generator, len(prompts))
        unet = outside_inference_mode(self.unet)
        text = self.unet.text(prompts)
        dtype = acc_dtype(text.dtype)  # of everything but the model
        if latents is None:
            latents = noise_like(text.new_empty(shape, dtype=dtype), generator)
        else:
            latents = as_tensor("sample", "latents", latents).to(text.device, dtype)
            checks.require_shape("sample", "latents", latents, "(B, C, T, H, W)", shape)

        def model(z, logsnr, text):
            return unet(z.to(text.dtype), logsnr, text).to(dtype)

        denoise = text_guided(model, text, self.unet.text.null, guidance=guidance, rescale=rescale)
        if known is not None:
            known, frames = _known_frames(known, known_frames, shape)
            known = self.to_x(known.to(text.device, dtype))
            denoise = frame_guided(denoise, known, frames.to(text.device), weight=reconstruction)
        elif known_frames is None or len(known_frames) > 0:
            raise ValueError(f"sample: known_frames is {known_frames} and known is None; expected pixels (B, C, T, H, W)")
        clip = tuple(self.to_x(torch.tensor([0.0, 1.0])).tolist())
        common = dict(clip=clip, generator=generator, callback=callback, progress=progress)
        if isinstance(sampler, str):
            x = sample(denoise, latents, self.schedule.steps(steps), sampler=sampler, **common)
        else:
            known_levels = tuple(self.schedule.logsnr(torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist())
            x = sample_with_scheduler(denoise, latents, sampler, steps, logsnr_range=known_levels, **common)
        return self.to_pixels(x).float()

    def animate(self, prompts: str | Sequence[str], image: Tensor, *, num_frames: int | None = None, **arguments) -> Tensor:
        """`sample` with the first frame fixed: image (C, H, W) or (B, C, H, W), pixels."""
        image = as_tensor("animate", "image", image)
        image = image if image.dim() == 4 else image[None]
        if image.dim() != 4 or image.shape[1] != self.unet.channels:
            allowed = f"(B, C, H, W) with C = {self.unet.channels}"
            raise ValueError(f"animate: image has shape {tuple(image.shape)}; expected {allowed}")
        num_frames = self.num_frames if num_frames is None else num_frames
        checks.require_positive_int("animate", "num_frames", num_frames)
        known = image[:, :, None].expand(-1, -1, num_frames, -1, -1)
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
        clip = as_tensor("extend", "clip", clip).float()
        checks.require_rank("extend", "clip", clip, "(B, C, T, H, W)")
        overlap = self.num_frames // 2 if overlap is None else overlap
        for name, value in (("num_frames", num_frames), ("overlap", overlap)):
            checks.require_number("extend", name, value)
        if not 1 <= overlap < self.num_frames or clip.shape[2] < overlap or num_frames < clip.shape[2]:
            raise ValueError(
                f"extend: clip has shape {tuple(clip.shape)}, num_frames is {num_frames} and overlap {overlap}; expected overlap "
                f"from 1 to {self.num_frames - 1}, at least as many frames, and no fewer in the end"
            )
        prompts = _captions("extend", prompts)
        if clip.shape[0] not in (1, len(prompts)):
            raise ValueError(f"extend: clip has shape {tuple(clip.shape)}; expected B = 1 or {len(prompts)}, as prompts")
        clip = clip.expand(len(prompts), -1, -1, -1, -1)
        while clip.shape[2] < num_frames:
            last = clip[:, :, -overlap:]
            known = torch.cat((last, last[:, :, -1:].expand(-1, -1, self.num_frames - overlap, -1, -1)), dim=2)
            size = tuple(clip.shape[-2:])
            longer = self.sample(prompts, known=known, known_frames=range(overlap), size=size, **arguments)
            clip = torch.cat((clip, longer[:, :, overlap:]), dim=2)
        return clip[:, :, :num_frames]

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
    @torch.inference_mode(False)  # whose tensors no guidance could differentiate through
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


def _captions(op: str, prompts: str | Sequence[str]) -> list[str]:
    given = [prompts] if isinstance(prompts, str) else prompts
    try:
        captions = list(given)
    except TypeError:
        captions = [given]
    for caption in captions:
        if not isinstance(caption, str):
            raise TypeError(f"{op}: prompts has {checks.shown(caption)}; expected a caption or a sequence of captions")
    if not captions:
        raise ValueError(f"{op}: prompts is empty; expected at least one caption")
    return captions


def _size(op: str, size) -> tuple[int, int]:
    """(H, W)"""
    sides = tuple(size.tolist() if hasattr(size, "tolist") else size) if isinstance(size, Iterable) else (size,)
    if len(sides) != 2:
        raise ValueError(f"{op}: size is {size}; expected (H, W)")
    for name, side in zip("HW", sides):
        checks.require_positive_int(op, f"{name} of size", side)
    return sides


def _known_frames(known, known_frames: Sequence[int], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """known as a tensor, and which of its frames are: (T,) bool."""
    T = shape[2]
    known = as_tensor("sample", "known", known)
    if known.dim() != 5 or known.shape[0] not in (1, shape[0]) or known.shape[1:] != shape[1:]:
        raise ValueError(f"sample: known has shape {tuple(known.shape)}; expected (B or 1, C, T, H, W) = {shape}")
    places = as_indices("sample", "known_frames", known_frames, T)
    low, high = known[:, :, places].aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"sample: known has values from {low.item():g} to {high.item():g}; expected pixels from 0 to 1")
    frames = torch.zeros(T, dtype=torch.bool)
    frames[places] = True
    return known, frames


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
