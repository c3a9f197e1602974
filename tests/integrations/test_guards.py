"""A layer that computes more, or says less, than its weight is called, where others have their weight read. Where a module that
holds layers computes something else, the adapter refuses before it computes anything.
"""

import copy

import pytest
import torch
import torch.nn.utils.prune
from diffusers.models.attention import FreeNoiseTransformerBlock
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer, TemporalResnetBlock
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn

from vdiff_kernels.integrations import animatediff, diffusers_transformers, guards, latte, lucidrains, modelscope, svd
from vdiff_kernels.integrations.diffusers_resnets import resnet_2d

from .compare import randn, randomize
from .models import latte as latte_model
from .unet3d import Unet3D

T, C = 2, 8
BACKEND = dict(backend="reference")


def motion() -> nn.Module:
    return randomize(AnimateDiffTransformer3D(2, 4, in_channels=C, norm_num_groups=2, num_layers=1, cross_attention_dim=6))


def lucid() -> nn.Module:
    return randomize(Unet3D(dim=8, dim_mults=(1, 2), channels=3, attn_heads=2, attn_dim_head=4))


X, TEXT = randn(T, C, 3, 4), randn(T, 5, 6, seed=3)
CLIP = randn(1, 8, T, 3, 4)
LATENTS, TIME, TEXT_OF_LATTE = randn(2, 4, 5, 4, 4), torch.tensor([3, 700]), randn(2, 4, 16, seed=3)

# Per family: the block, its call, its adapter's call, the layers whose weights that reads, and what holds them.
FAMILIES = {
    "motion": (
        motion,
        lambda block: block(X, num_frames=T),
        lambda block: animatediff.motion_module(block, X, T, **BACKEND),
        ("norm", "proj_in", "transformer_blocks.0.attn1.to_q", "transformer_blocks.0.attn1.to_out.0",
         "transformer_blocks.0.norm1", "transformer_blocks.0.norm3", "transformer_blocks.0.ff.net.0",
         "transformer_blocks.0.ff.net.0.proj",
         "transformer_blocks.0.ff.net.1", "transformer_blocks.0.ff.net.2"),
        ("transformer_blocks.0", "transformer_blocks.0.attn1", "transformer_blocks.0.attn2", "transformer_blocks.0.ff"),
    ),
    "text": (
        lambda: randomize(Transformer2DModel(2, 4, in_channels=C, norm_num_groups=2, cross_attention_dim=6)),
        lambda block: block(X, TEXT, return_dict=False)[0],
        lambda block: diffusers_transformers.transformer_2d(block, X, TEXT, return_dict=False, **BACKEND)[0],
        ("norm", "proj_in", "proj_out", "transformer_blocks.0.attn2.to_k", "transformer_blocks.0.norm2"),
        ("transformer_blocks.0.attn2",),
    ),
    "latte": (
        latte_model,
        lambda block: block(LATENTS, TIME, TEXT_OF_LATTE, return_dict=False)[0],
        lambda block: latte.transformer(block, LATENTS, TIME, TEXT_OF_LATTE, return_dict=False, **BACKEND)[0],
        ("transformer_blocks.0.attn1.to_q", "transformer_blocks.0.norm1", "transformer_blocks.0.norm2", "norm_out",
         "transformer_blocks.0.attn2.to_v", "temporal_transformer_blocks.0.attn1.to_out.0", "proj_out"),
        ("transformer_blocks.0", "temporal_transformer_blocks.0.attn1", "temporal_transformer_blocks.0.ff"),
    ),
    "resnet": (
        lambda: randomize(ResnetBlock2D(in_channels=C, out_channels=2 * C, groups=2, temb_channels=None)),
        lambda block: block(X, None),
        lambda block: resnet_2d(block, X, **BACKEND),
        ("conv1", "conv2", "conv_shortcut", "norm1", "norm2"),
        ("nonlinearity", "dropout"),
    ),
    "modelscope": (
        lambda: randomize(TemporalConvLayer(C, C, norm_num_groups=2)),
        lambda block: block(X, num_frames=T),
        lambda block: modelscope.temporal_conv_layer(block, X, T, **BACKEND),
        ("conv1.0", "conv1.2", "conv4.3"),
        ("conv1", "conv1.1"),
    ),
    "svd": (
        lambda: randomize(TemporalResnetBlock(32, 64, temb_channels=4)),
        lambda block: block(randn(1, 32, T, 3, 4), randn(1, T, 4)),
        lambda block: svd.temporal_resnet(block, randn(1, 32, T, 3, 4), randn(1, T, 4), **BACKEND),
        ("conv1", "conv2", "conv_shortcut", "norm1", "norm2"),
        ("nonlinearity",),
    ),
    "lucidrains": (
        lambda: lucid().downs[1][0],
        lambda block: block(CLIP, randn(1, 32)),
        lambda block: lucidrains.resnet_block(block, CLIP, randn(1, 32), **BACKEND),
        ("block1.proj", "block2.proj", "res_conv", "mlp.1"),
        ("block1", "block1.norm", "block1.act"),
    ),
    "linear attention": (
        lambda: lucid().downs[0][2],
        lambda block: block(CLIP),
        lambda block: lucidrains.residual(block, CLIP, **BACKEND),
        ("fn.fn.to_qkv", "fn.fn.to_out"),
        ("fn", "fn.fn", "fn.norm"),
    ),
}  # fmt: skip
LAYERS = [(family, name) for family, (*_, names, _) in FAMILIES.items() for name in names]
HOLDERS = [(family, name) for family, (*_, names) in FAMILIES.items() for name in names]


def bent(t):
    """A change that no norm takes back."""
    return t + t * t


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
        return bent(self.base(*arguments, **options))


def wrap(module):
    return Wrapped(module)


def subclass(module):
    module = copy.copy(module)
    double = {"forward": lambda self, *arguments, **options: bent(super(type(self), self).forward(*arguments, **options))}
    module.__class__ = type(f"LoRA{type(module).__name__}", (type(module),), double)
    return module


def hook(module):
    module.register_forward_hook(lambda module, inputs, output: bent(output))
    return module


def _squared(module, inputs, options):
    return tuple(t * t for t in inputs), {name: t * t for name, t in options.items()}


def pre_hook(module):
    module.register_forward_pre_hook(_squared, with_kwargs=True)
    return module


def own_forward(module):
    original = module.forward
    module.forward = lambda *arguments, **options: bent(original(*arguments, **options))
    return module


CHANGES = [wrap, subclass, hook, pre_hook, own_forward]


def changed(family, name, change) -> nn.Module:
    block = FAMILIES[family][0]()
    block.set_submodule(name, change(block.get_submodule(name)))
    return block


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("family, name", LAYERS)
def test_a_layer_that_is_more_than_its_weight_is_called(family, name, change):
    make, original, served, *_ = FAMILIES[family]
    block = changed(family, name, change)
    with torch.no_grad():
        expected, plain = original(block), original(make())
        assert (expected - plain).abs().max() > 1e-3, "the change does not show"
        torch.testing.assert_close(served(block), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("family, name", HOLDERS)
def test_what_would_be_passed_over_is_refused(family, name, change):
    _, _, served, *_ = FAMILIES[family]
    block = changed(family, name, change)
    with pytest.raises(guards.Unserved, match="cannot be served: "):
        served(block)


def test_free_noise_is_refused():
    """It is switched on in a model that runs already: diffusers puts other blocks in the place of the plain ones."""
    model = motion()
    model.transformer_blocks[0] = FreeNoiseTransformerBlock(
        dim=8, num_attention_heads=2, attention_head_dim=4, context_length=2, context_stride=1
    )
    with pytest.raises(ValueError, match="FreeNoiseTransformerBlock cannot be served: expected BasicTransformerBlock"):
        animatediff.motion_module(model, X, T, **BACKEND)


@pytest.mark.parametrize(
    "change",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda conv: nn.utils.prune.l1_unstructured(conv, "weight", 0.5),
    ],
    ids=["parametrized", "weight norm", "spectral norm", "pruned"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
def test_weights_that_are_computed(change):
    make, original, served, *_ = FAMILIES["svd"]
    block = make()
    change(block.conv2)
    with torch.no_grad():
        block.conv2.weight_g.mul_(2) if hasattr(block.conv2, "weight_g") else None
        torch.testing.assert_close(served(block), original(block), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("family, name", [("resnet", "conv1"), ("svd", "conv2"), ("lucidrains", "block1.proj")])
def test_a_convolution_that_wraps_around_is_called(family, name):
    """As people set it for pictures that tile."""
    make, original, served, *_ = FAMILIES[family]
    block = make()
    conv = block.get_submodule(name)
    conv.padding_mode, conv._reversed_padding_repeated_twice = "circular", [p for p in reversed(conv.padding) for _ in range(2)]
    with torch.no_grad():
        assert (original(block) - original(make())).abs().max() > 1e-3
        torch.testing.assert_close(served(block), original(block), rtol=1e-4, atol=2e-5)


def test_plain_blocks_are_served():
    for make, original, served, *_ in FAMILIES.values():
        block = make()
        with torch.no_grad():
            torch.testing.assert_close(served(block), original(block), rtol=1e-4, atol=2e-5)


def test_a_class_of_another_version_is_refused():
    """Its name is the same and what it computes is not: by one line of its forward."""

    class ResnetBlock2D(type(FAMILIES["resnet"][0]())):
        def forward(self, input_tensor, temb):
            return super().forward(input_tensor, temb) + 1

    ResnetBlock2D.__module__ = "diffusers.models.resnet"
    ResnetBlock2D.__qualname__ = "ResnetBlock2D"
    block = FAMILIES["resnet"][0]()
    block.__class__ = ResnetBlock2D
    with pytest.raises(guards.Unserved, match="expected ResnetBlock2D, of a version that was tested"):
        resnet_2d(block, X, **BACKEND)
