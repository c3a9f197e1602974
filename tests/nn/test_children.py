"""A module does what its children do, whatever they have become: wrapped, hooked, pruned, parametrized, replaced."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import vdiff_kernels as vdiff
from vdiff_kernels.models.aligned_attention import AlignedAttention
from vdiff_kernels.models.video_unet import Stage


class Adapter(nn.Module):
    """As peft's: `weight` is that of the layer it wraps, forward adds to it."""

    def __init__(self, base):
        super().__init__()
        self.base_layer = base
        self.scale = nn.Parameter(torch.tensor(0.5))

    weight = property(lambda self: self.base_layer.weight)
    bias = property(lambda self: self.base_layer.bias)

    def forward(self, x):
        return self.base_layer(x) * (1 + self.scale)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def wrapped(module, name):
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, Adapter(module.get_submodule(name)))


def hooked(module, name):
    module.get_submodule(name).register_forward_hook(lambda child, inputs, output: output * 1.5)


def hooked_before(module, name):
    module.get_submodule(name).register_forward_pre_hook(lambda child, inputs: (inputs[0] * 1.5,))


def replaced(module, name):
    """As accelerate and quantisation do: a forward of the instance's own."""
    child = module.get_submodule(name)
    forward = child.forward
    child.forward = lambda *inputs: forward(*inputs) * 1.5


def overridden(module, name):
    child = module.get_submodule(name)
    base = type(child)
    child.__class__ = type("Overridden", (base,), {"forward": lambda self, x: base.forward(self, x) * 1.5})


def parametrized(module, name):
    parametrize.register_parametrization(module.get_submodule(name), "weight", Doubled())


CHANGES = [wrapped, hooked, hooked_before, replaced, overridden, parametrized]
CLIP, FRAMES = torch.randn(1, 8, 3, 4, 4), torch.randn(1, 3, 4, 4, 8)
NORM = vdiff.Norm("layer", torch.rand(8), torch.rand(8))

MODULES = {
    "temporal-attention": (lambda: vdiff.nn.TemporalAttention(8, 2), lambda m: m(FRAMES, norm=NORM, residual=FRAMES),
                           ["to_qkv", "proj_out"]),
    "spatial-attention": (lambda: vdiff.nn.SpatialAttention(8, 2, (4, 4)), lambda m: m(FRAMES), ["to_qkv", "proj_out"]),
    "t5": (lambda: vdiff.nn.TemporalAttention(8, 2, position="t5"), lambda m: m(FRAMES), ["position.relative_attention_bias"]),
    "factorized": (
        lambda: vdiff.nn.FactorizedAttention(8, 2), lambda m: m(FRAMES),
        ["spatial_norm", "temporal_norm", "spatial_attn.to_qkv", "temporal_attn.proj_out"],
    ),
    "norm-act-conv": (lambda: vdiff.nn.NormActConv(8, 6, groups=2), lambda m: m(CLIP), ["norm", "conv"]),
    "norm-act-conv-clip": (
        lambda: vdiff.nn.NormActConv(8, 8, "temporal", groups=2, scope="clip"),
        lambda m: m(CLIP, temb=torch.ones(1, 8), residual=CLIP, mix=torch.tensor(0.3)), ["norm", "conv"],
    ),
    "pseudo3d-conv": (lambda: vdiff.nn.Pseudo3DConv(8, 8), lambda m: m(CLIP), ["spatial", "temporal"]),
    "resnet": (
        lambda: vdiff.nn.ResnetBlock3D(8, 16, 6, groups=4), lambda m: m(CLIP, torch.ones(1, 6)),
        ["norm1", "conv1", "norm2", "conv2", "time_emb_proj", "conv_shortcut"],
    ),
    "pseudo3d-block": (
        lambda: vdiff.nn.Pseudo3DBlock(8, 8, 2), lambda m: m(CLIP.transpose(1, 2)),
        ["spatial_conv.0", "spatial_conv.1", "norm", "temporal_attn.to_qkv"],
    ),
    "feed-forward": (lambda: vdiff.nn.FeedForward(8, mult=2), lambda m: m(FRAMES), ["net.0.proj", "net.2"]),
    "stage": (lambda: Stage(8, 8, 6, 2, 2, None), lambda m: m(CLIP, torch.ones(1, 3, 6), None), ["motion", "block.conv2"]),
    "aligned": (
        lambda: AlignedAttention(8, 2, 2, None), lambda m: m(CLIP, torch.zeros(1, 3, 2), None),
        ["attention_norm", "enter", "norm"],
    ),
}  # fmt: skip


NOT_LINEAR = (
    "norm",
    "attention_norm",
    "norm1",
    "norm2",
    "spatial_norm",
    "temporal_norm",
    "spatial_conv.1",
    "position.relative_attention_bias",
)


def everywhere():
    """A norm hides a factor of its input, and an embedding's indices have none."""
    for kind, (_, _, children) in MODULES.items():
        for child in children:
            for change in CHANGES:
                if change is not hooked_before or child not in NOT_LINEAR:
                    yield pytest.param(kind, child, change, id=f"{kind}-{child}-{change.__name__}")


def made(kind, dtype=torch.float64):
    torch.manual_seed(0)
    module = MODULES[kind][0]().to(dtype)
    for parameter in module.parameters():  # some start as zeros, which would hide a change
        nn.init.normal_(parameter, std=0.3)
    return module


def ran(kind, module, backend):
    with vdiff.backend(backend), torch.no_grad():
        torch.set_default_dtype(torch.float64)
        try:
            return MODULES[kind][1](module)
        finally:
            torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def doubles(monkeypatch):
    """The inputs above, in float64."""
    for name in ("CLIP", "FRAMES"):
        monkeypatch.setitem(globals(), name, globals()[name].double())
    norm = vdiff.Norm("layer", NORM.weight.double(), NORM.bias.double())
    monkeypatch.setitem(globals(), "NORM", norm)


@pytest.mark.parametrize("kind, child, change", list(everywhere()))
def test_a_changed_child_is_honoured(kind, child, change):
    """A child that does more is as good as weights that say the same: all of these are a factor of its output or input."""
    module = made(kind)
    before = ran(kind, module, "cpu")
    expected = copy.deepcopy(module)
    change(module, child)
    folded = expected.get_submodule(child)
    with torch.no_grad():
        if change in (hooked_before, parametrized):
            folded.weight.mul_(2 if change is parametrized else 1.5)
        else:
            for parameter in folded.parameters():
                parameter.mul_(1.5)
    after = ran(kind, module, "cpu")
    torch.testing.assert_close(after, ran(kind, expected, "cpu"))
    assert (after - before).abs().max() > 1e-6


@pytest.mark.parametrize("kind", [kind for kind in MODULES if kind != "t5"])
def test_a_plain_child_is_never_called(kind, monkeypatch):
    """It is fused: calling it would cost what the operator saves."""
    module = made(kind, torch.float64)
    fused = [
        child
        for child in MODULES[kind][2]
        if child not in ("time_emb_proj", "conv_shortcut", "net.2", "enter", "norm" * (kind == "aligned"))
    ]
    called = []
    for child in map(module.get_submodule, fused):
        monkeypatch.setattr(
            type(child), "__call__", lambda self, *inputs: called.append(self) or type(self).forward(self, *inputs)
        )
    ran(kind, module, "cpu")
    assert not [child for child in map(module.get_submodule, fused) if any(child is one for one in called)]


@pytest.mark.parametrize("index, settings", [
    (0, {"padding_mode": "circular"}),
    (0, {"padding": (2, 2), "dilation": (2, 2)}),
    (2, {"__class__": nn.GELU, "approximate": "none"}),
], ids=["circular", "dilated", "gelu"])  # fmt: skip
def test_another_kind_of_layer_is_honoured(index, settings):
    module = made("pseudo3d-block")
    before = ran("pseudo3d-block", module, "cpu")
    for name, value in settings.items():
        setattr(module.spatial_conv[index], name, value)
    after = ran("pseudo3d-block", module, "cpu")
    assert (after - before).abs().max() > 1e-6
    module.spatial_conv.register_forward_hook(lambda *_: None)  # so that it is called in any case
    torch.testing.assert_close(after, ran("pseudo3d-block", module, "cpu"))


def test_a_pruned_child_trains():
    module = vdiff.nn.NormActConv(8, 8, groups=2)
    prune.random_unstructured(module.conv, "weight", 0.5)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        module(CLIP.float()).square().sum().backward()
        optimizer.step()
    module(CLIP.float())
    assert (module.conv.weight[module.conv.weight_mask == 0] == 0).all()


def test_a_weight_norm_of_either_kind():
    for normalised in (parametrizations.weight_norm, torch.nn.utils.weight_norm):
        module = made("feed-forward", torch.float32)
        normalised(module.net[0].proj)
        with torch.no_grad():
            for name, parameter in module.net[0].proj.named_parameters():
                if name.endswith(("weight_g", "original0")):
                    parameter.mul_(2)
        x = FRAMES.float()
        a, b = module.net[0].proj(x).chunk(2, dim=-1)
        torch.testing.assert_close(module(x), module.net[2](a * nn.functional.gelu(b)))


def test_an_offloaded_child():
    """Its weights are elsewhere until it is called, as accelerate does with a hook and a forward of the instance's own."""
    module = made("temporal-attention", torch.float64)
    expected = ran("temporal-attention", module, "cpu")
    child = module.to_qkv
    kept = {name: parameter.data for name, parameter in child.named_parameters()}
    forward = type(child).forward
    child.to("meta")

    def loaded(x):
        return nn.functional.linear(x, kept["weight"], kept["bias"])

    assert forward is nn.Linear.forward
    child.forward = loaded
    torch.testing.assert_close(ran("temporal-attention", module, "cpu"), expected)
