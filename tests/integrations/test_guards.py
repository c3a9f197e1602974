"""What reads a module's weight in the place of calling it refuses a module that computes more, or says less, than its weight."""

import copy

import pytest
import torch
import torch.nn.utils.prune
from diffusers.models.attention import FreeNoiseTransformerBlock
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer, TemporalResnetBlock
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn

from vdiff_kernels.integrations import animatediff, lucidrains, modelscope, svd
from vdiff_kernels.integrations.diffusers_blocks import resnet_2d

from .compare import randn, randomize
from .unet3d import Unet3D

T, C = 2, 8
BACKEND = dict(backend="reference")


def motion() -> nn.Module:
    return randomize(AnimateDiffTransformer3D(2, 4, in_channels=C, norm_num_groups=2, num_layers=1))


def lucid() -> nn.Module:
    return randomize(Unet3D(dim=8, dim_mults=(1, 2), channels=3, attn_heads=2, attn_dim_head=4).downs[1][0])


# Per family: the block, its adapter's call, and the modules whose weights it reads.
FAMILIES = {
    "animatediff": (
        motion,
        lambda block: animatediff.motion_module(block, randn(T, C, 3, 4), T, **BACKEND),
        ("norm", "transformer_blocks.0.attn1", "transformer_blocks.0.attn1.to_q", "transformer_blocks.0.norm1",
         "transformer_blocks.0.ff", "transformer_blocks.0.ff.net.0.proj", "transformer_blocks.0"),
    ),
    "resnet": (
        lambda: randomize(ResnetBlock2D(in_channels=C, out_channels=2 * C, groups=2, temb_channels=None)),
        lambda block: resnet_2d(block, randn(T, C, 3, 4), **BACKEND),
        ("conv1", "conv2", "conv_shortcut", "norm1", "norm2"),
    ),
    "modelscope": (
        lambda: randomize(TemporalConvLayer(C, C, norm_num_groups=2)),
        lambda block: modelscope.temporal_conv_layer(block, randn(T, C, 3, 4), T, **BACKEND),
        ("conv1.0", "conv1.2", "conv4.3"),
    ),
    "svd": (
        lambda: randomize(TemporalResnetBlock(32, 64, temb_channels=4)),
        lambda block: svd.temporal_resnet(block, randn(1, 32, T, 3, 4), randn(1, T, 4), **BACKEND),
        ("conv1", "conv2", "conv_shortcut", "norm1", "norm2"),
    ),
    "lucidrains": (
        lucid,
        lambda block: lucidrains.resnet_block(block, randn(1, block.block1.proj.in_channels, T, 3, 4), randn(1, 32), **BACKEND),
        ("block1", "block1.proj", "block1.norm", "block2.proj", "res_conv"),
    ),
}  # fmt: skip
CASES = [(family, name) for family, (_, _, names) in FAMILIES.items() for name in names]


class Wrapped(nn.Module):
    """As LoRA wraps a layer: its weight is there to read, and what is added to it is not."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.base, name)

    def forward(self, *arguments, **options):
        return self.base(*arguments, **options) * 2


def wrap(module):
    return Wrapped(module)


def subclass(module):
    module = copy.copy(module)
    module.__class__ = type(f"LoRA{type(module).__name__}", (type(module),), {})
    return module


def hook(module):
    module.register_forward_hook(lambda module, inputs, output: output)
    return module


def pre_hook(module):
    module.register_forward_pre_hook(lambda module, inputs: None)
    return module


def own_forward(module):
    module.forward = lambda *arguments, **options: None
    return module


@pytest.mark.parametrize("change", [wrap, subclass, hook, pre_hook, own_forward])
@pytest.mark.parametrize("family, name", CASES)
def test_what_would_be_dropped_in_silence_is_refused(family, name, change):
    make, call, _ = FAMILIES[family]
    block = make()
    call(block)
    block.set_submodule(name, change(block.get_submodule(name)))
    with pytest.raises(ValueError, match="cannot be served: "):
        call(block)


def test_free_noise_is_refused():
    """It is switched on in a model that runs already: diffusers puts other blocks in the place of the plain ones."""
    model = motion()
    model.transformer_blocks[0] = FreeNoiseTransformerBlock(
        dim=8, num_attention_heads=2, attention_head_dim=4, context_length=2, context_stride=1
    )
    with pytest.raises(ValueError, match="FreeNoiseTransformerBlock cannot be served: expected BasicTransformerBlock"):
        animatediff.motion_module(model, randn(T, C, 3, 4), T, **BACKEND)


def test_weight_norm_and_pruning_are_refused():
    for change in (nn.utils.parametrizations.weight_norm, lambda conv: nn.utils.prune.l1_unstructured(conv, "weight", 0.5)):
        block = FAMILIES["svd"][0]()
        change(block.conv2)
        with pytest.raises(ValueError, match="Conv3d cannot be served"):
            FAMILIES["svd"][1](block)


def test_plain_blocks_are_served():
    for make, call, _ in FAMILIES.values():
        assert torch.isfinite(call(make())).all()
