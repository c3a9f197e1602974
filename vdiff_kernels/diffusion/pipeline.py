"""From a prompt to a clip: a U-Net, a text encoder, the space and schedule of the diffusion, the samplers and their guidance."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..arrays import as_indices, as_tensor
from ..models.video_unet import VideoUNet
from ..ops import checks
from ..ops.tensors import acc_dtype
from .guidance import frame_guided, outside_inference_mode, text_guided
from .interop import sample_with_scheduler
from .sampler import Generators, noise_like, require_generator, sample
from .schedule import CosineSchedule
from .space import PixelSpace, Space
from .weights import arguments_of, config_of, load_tensors, read_weights, shipped_weights, write_weights


class VideoDiffusion:
    """A trained VideoUNet with all that sampling needs. `VideoDiffusion.load()` has the weights that ship: moving digits."""

    def __init__(
        self,
        unet: VideoUNet,                    # unet(z, logsnr (B,), embedding (B, E)) -> v; its channels are those of space's x.
        text: nn.Module,                    # text(B captions) -> embedding (B, E); text.null (E,), that of no caption.
        *,
        space: Space | None = None,         # Where unet works. Default: pixels.
        num_frames: int = 16,               # T of the clips it was trained on.
        size: tuple[int, int] = (32, 32),   # (H, W) of them, in pixels.
        logsnr_shift: float = -2.0,         # Of the cosine schedule.
    ):  # fmt: skip
        self.modules = nn.ModuleDict({"text": text, "unet": unet})
        self.space = PixelSpace(unet.channels) if space is None else space
        self.num_frames, self.size = num_frames, tuple(size)
        self.schedule = CosineSchedule(logsnr_shift)
        channels = self.space.shape(num_frames, self.size)[0]
        if channels != unet.channels:
            raise ValueError(f"VideoDiffusion: space has {channels} channels; expected {unet.channels}, as unet")

    @property
    def unet(self) -> VideoUNet:
        return self.modules["unet"]

    @property
    def text(self) -> nn.Module:
        return self.modules["text"]

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
        latents: Tensor | None = None,            # (B, *space.shape(T, (H, W))), the noise to start from.
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
        size = self.size if size is None else _size("sample", size)
        shape = (len(prompts), *self.space.shape(num_frames, size))  # of x
        require_generator("sample", generator, len(prompts))
        unet = outside_inference_mode(self.unet)
        text = self.text(prompts)
        dtype = acc_dtype(text.dtype)  # of everything but the model
        if latents is None:
            latents = noise_like(text.new_empty(shape, dtype=dtype), generator)
        else:
            latents = as_tensor("sample", "latents", latents).to(text.device, dtype)
            checks.require_shape("sample", "latents", latents, "(B, C, T, H, W)", shape)

        own = next((p.dtype for p in unet.parameters()), dtype) if isinstance(unet, nn.Module) else text.dtype

        def model(z, logsnr, text):
            return unet(z.to(own), logsnr, text.to(own)).to(dtype)

        denoise = text_guided(model, text, self.text.null, guidance=guidance, rescale=rescale)
        if known is not None:
            seen = (len(prompts), self.space.channels, num_frames, *size)
            known, frames = _known_frames(known, known_frames, seen)
            known = self.space.encode(known.to(text.device, dtype))
            denoise = frame_guided(denoise, known, frames.to(text.device), weight=reconstruction)
        elif known_frames is None or len(known_frames) > 0:
            raise ValueError(f"sample: known_frames is {known_frames} and known is None; expected pixels (B, C, T, H, W)")
        common = dict(clip=self.space.limits, generator=generator, callback=callback, progress=progress)
        if isinstance(sampler, str):
            x = sample(denoise, latents, self.schedule.steps(steps), sampler=sampler, **common)
        else:
            known_levels = tuple(self.schedule.logsnr(torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist())
            x = sample_with_scheduler(denoise, latents, sampler, steps, logsnr_range=known_levels, **common)
        return self.space.decode(x).float()

    def animate(self, prompts: str | Sequence[str], image: Tensor, *, num_frames: int | None = None, **arguments) -> Tensor:
        """`sample` with the first frame fixed: image (C, H, W) or (B, C, H, W), pixels."""
        image = as_tensor("animate", "image", image)
        image = image if image.dim() == 4 else image[None]
        if image.dim() != 4 or image.shape[1] != self.space.channels:
            allowed = f"(B, C, H, W) with C = {self.space.channels}"
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
        """The arguments that make an untrained model like this one, as a file has them."""
        return config_of(self)

    def save(self, path: str | os.PathLike, dtype: torch.dtype = torch.float16) -> None:
        """Writes the weights in `dtype`, with the configuration in the metadata: safetensors, whole or not at all."""
        write_weights(path, self, dtype)

    @classmethod
    @torch.inference_mode(False)  # whose tensors no guidance could differentiate through
    def load(cls, path: str | os.PathLike | None = None, backend: str | None = None) -> "VideoDiffusion":
        """The model of `save`, in float32 and frozen; without a path, the one that ships.

        Raises FileNotFoundError, or ValueError for a file that is corrupt or not from `save`.
        """
        path = shipped_weights() if path is None else Path(path)
        config, tensors = read_weights(path)
        try:
            pipeline = cls(**arguments_of(config, backend))
            load_tensors(pipeline.modules, tensors)
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(f"weights {str(path)!r} do not fit this version: {str(error).splitlines()[0]}") from None
        pipeline.modules.eval().requires_grad_(False)  # guidance by known frames differentiates by the clip alone
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
