"""Files of weights: a model's tensors and the configuration that makes one like it, and the one place that knows their layout.

A file has the U-Net's tensors by their own names, the text encoder's after "text.", and in its metadata, as JSON, the arguments
of both, of the space and of the schedule.
"""

import json
import os
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..files import written_whole
from ..library import FOLDER
from ..models.text import WordEncoder
from ..models.video_unet import VideoUNet
from .space import PixelSpace

FORMAT = "vdiff_kernels video diffusion 1"


def named_tensors(modules: nn.ModuleDict, keep_vars: bool = False) -> dict[str, Tensor]:
    """The state of a model's "unet" and "text", by a file's names; with keep_vars the parameters themselves."""
    return {name.removeprefix("unet."): tensor for name, tensor in modules.state_dict(keep_vars=keep_vars).items()}


def load_tensors(modules: nn.ModuleDict, tensors: dict[str, Tensor]) -> None:
    """Raises RuntimeError, as nn.Module.load_state_dict does, for tensors that are not those of `named_tensors`."""
    modules.load_state_dict({name if name.startswith("text.") else f"unet.{name}": t for name, t in tensors.items()})


def config_of(model) -> dict:
    """The arguments of a VideoDiffusion, flat but for those of its U-Net and its vocabulary, which are under "unet"."""
    return {
        "unet": {**model.unet.config, "vocabulary": model.text.vocabulary}, "num_frames": model.num_frames, "size": model.size,
        **model.space.config, "logsnr_shift": model.schedule.shift,
    }  # fmt: skip


def arguments_of(config: dict, backend: str | None = None) -> dict:
    """The arguments of VideoDiffusion from `config_of`, its modules untrained. Raises KeyError, TypeError or ValueError."""
    config = dict(config)
    unet = dict(config.pop("unet"))
    text = WordEncoder(unet.pop("vocabulary"), unet["embedding"])
    space = PixelSpace(unet["channels"], config.pop("pixel_mean"), config.pop("pixel_scale"))
    return {"unet": VideoUNet(**unet, backend=backend), "text": text, "space": space, **config}


def write_weights(path: str | os.PathLike, model, dtype: torch.dtype) -> None:
    """Writes a VideoDiffusion's weights in `dtype`: safetensors, whole or not at all."""
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in named_tensors(model.modules).items()}
    with written_whole(path) as draft:
        metadata = {"config": json.dumps({"format": FORMAT} | config_of(model))}  # one entry: several have no fixed order
        save_file(tensors, draft, metadata)


def read_weights(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """The configuration and the tensors of a file, in float32. Raises FileNotFoundError, or ValueError for any other file."""
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


def shipped_weights() -> Path:
    return FOLDER / "weights" / "moving_digits.safetensors"
