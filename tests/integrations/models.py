"""Small models with random weights, as their packages build them, and inputs that they take."""

from collections.abc import Callable
from dataclasses import dataclass

import diffusers
import torch
from torch import Tensor, nn

import vdiff_kernels as vdiff

from .compare import randn, randomize
from .unet3d import Unet3D

TEXT = 12  # channels of a token
CHANNELS = dict(block_out_channels=(16, 32), layers_per_block=1)


@dataclass(frozen=True)
class Model:
    """build() makes it. inputs(B, T, H, W): tensors by name, "x" first. call(model, **inputs) gives its result."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int, int, int, int], dict[str, Tensor]]
    call: Callable[..., Tensor]


def text(B: int, tokens: int = 4, channels: int = TEXT) -> Tensor:
    return randn(B, tokens, channels, seed=4)


def steps(B: int) -> Tensor:
    return torch.arange(B) * 100 + 7


def unet3d() -> nn.Module:
    blocks = dict(down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"))
    options = dict(sample_size=8, cross_attention_dim=TEXT, attention_head_dim=8, norm_num_groups=4)
    return randomize(diffusers.UNet3DConditionModel(**CHANNELS, **blocks, **options))


def motion(**options) -> nn.Module:
    blocks = dict(
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
    )
    heads = dict(num_attention_heads=2, motion_num_attention_heads=2)
    sizes = dict(sample_size=8, cross_attention_dim=TEXT, norm_num_groups=4, use_motion_mid_block=True)
    return randomize(diffusers.UNetMotionModel(**CHANNELS, **blocks, **heads, **{**sizes, **options}))


def svd() -> nn.Module:
    blocks = dict(
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    )
    embeddings = dict(projection_class_embeddings_input_dim=24, addition_time_embed_dim=8)
    return randomize(
        diffusers.UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=TEXT, num_attention_heads=(2, 4), in_channels=8,
            sample_size=8, **blocks, **embeddings,
        )
    )  # fmt: skip


def autoencoder() -> nn.Module:
    blocks = ("DownEncoderBlock2D", "DownEncoderBlock2D")
    model = diffusers.AutoencoderKLTemporalDecoder(block_out_channels=(32, 64), layers_per_block=1, down_block_types=blocks)
    return randomize(model)


def i2vgen() -> nn.Module:
    blocks = dict(down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"))
    options = dict(sample_size=8, cross_attention_dim=TEXT, attention_head_dim=8, norm_num_groups=4)
    return randomize(diffusers.I2VGenXLUNet(**CHANNELS, **blocks, **options))


def latte() -> nn.Module:
    return randomize(
        diffusers.LatteTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=8, num_layers=2, cross_attention_dim=24,
            attention_bias=True, sample_size=8, patch_size=2, activation_fn="gelu-approximate", norm_type="ada_norm_single",
            norm_elementwise_affine=False, caption_channels=16, video_length=5,
        )
    )  # fmt: skip


def lucidrains() -> nn.Module:
    return randomize(Unet3D(dim=8, dim_mults=(1, 2), channels=3, attn_heads=2, attn_dim_head=8))


MODELS = {
    "modelscope": Model(
        unet3d,
        lambda B, T, H, W: {"x": randn(B, 4, T, H, W), "time": steps(B), "context": text(B)},
        lambda model, x, time, context: model(x, time, context, return_dict=False)[0],
    ),
    "animatediff": Model(
        motion,
        lambda B, T, H, W: {"x": randn(B, 4, T, H, W), "time": steps(B), "context": text(B * T)},
        lambda model, x, time, context: model(x, time, context, return_dict=False)[0],
    ),
    "svd": Model(
        svd,
        lambda B, T, H, W: {
            "x": randn(B, T, 8, H, W), "time": steps(B), "context": text(B, tokens=1), "added": torch.tensor([[6, 127, 2]] * B),
        },
        lambda model, x, time, context, added: model(x, time, context, added, return_dict=False)[0],
    ),
    "svd autoencoder": Model(
        autoencoder,
        lambda B, T, H, W: {"x": randn(B * T, 3, H - H % 2, W - W % 2)},
        lambda model, x: model(x, num_frames=len(x), return_dict=False)[0],
    ),
    "i2vgen": Model(
        i2vgen,
        lambda B, T, H, W: {
            "x": randn(B, 4, T, H, W), "time": steps(B), "rate": torch.full((B,), 16), "picture": randn(B, 4, T, H, W, seed=5),
            "embedding": randn(B, TEXT, seed=6), "context": text(B),
        },
        lambda model, x, **others: model(x, *others.values(), return_dict=False)[0],
    ),
    "latte": Model(
        latte,
        lambda B, T, H, W: {"x": randn(B, 4, T, H - H % 2, W - W % 2), "time": steps(B), "context": text(B, channels=16)},
        lambda model, x, time, context: model(x, time, context, return_dict=False)[0],
    ),
    "lucidrains": Model(
        lucidrains,
        lambda B, T, H, W: {"x": randn(B, 3, T, H - H % 2, W - W % 2), "time": steps(B).float()},
        lambda model, x, time: model(x, time),
    ),
}  # fmt: skip


class Called(nn.Module):
    """A model as it is called here, for what takes a module and its inputs."""

    def __init__(self, name: str, model: nn.Module):
        super().__init__()
        self.name, self.model = name, model

    def forward(self, **inputs: Tensor) -> Tensor:
        return MODELS[self.name].call(self.model, **inputs)


def explained(name: str, model: nn.Module, **options):
    return vdiff.explain(Called(name, model), **MODELS[name].inputs(1, 5, 8, 8), **options)
