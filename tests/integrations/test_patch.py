"""patch, unpatch and the report: what changes in a model, what does not, and what is refused."""

import copy
import io
import json
import pickle
import warnings

import diffusers
import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from torch import nn

import vdiff_kernels as vdiff
from vdiff_kernels.bench import seed_blocks
from vdiff_kernels.integrations import Adapter, Unserved

from .compare import randn
from .models import MODELS, explained

SMALL = 1, 5, 8, 8


def result(name: str, model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return MODELS[name].call(model, **MODELS[name].inputs(*SMALL))


def modules_of(model: nn.Module) -> dict:
    """Class, attributes and hooks of every module."""
    return {name: (module, type(module), dict(vars(module))) for name, module in model.named_modules()}


def assert_same_modules(model: nn.Module, before: dict) -> None:
    after = modules_of(model)
    assert after.keys() == before.keys()
    for name, (module, cls, attributes) in after.items():
        assert module is before[name][0] and cls is before[name][1], name
        assert attributes.keys() == before[name][2].keys(), name
        assert all(value is before[name][2][key] for key, value in attributes.items()), name


@pytest.mark.parametrize("name", MODELS)
def test_what_stays_and_what_comes_back(name):
    model = MODELS[name].build()
    expected, before = result(name, model), modules_of(model)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    report = vdiff.patch(model)
    assert report.replaced and all(isinstance(model.get_submodule(one.path), before[one.path][1]) for one in report.replaced)
    assert dict(model.named_parameters()).keys() == parameters.keys()
    assert all(value is parameters[key] for key, value in model.named_parameters())
    assert {type(module).__name__ for module in model.modules()} == {cls.__name__ for _, cls, _ in before.values()}
    torch.testing.assert_close(result(name, model), expected, rtol=1e-4, atol=2e-5)
    calls = report.calls()
    assert calls.keys() == {one.path for one in report.replaced} and all(made["served"] for made in calls.values())
    vdiff.unpatch(model)
    assert_same_modules(model, before)
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert torch.equal(result(name, model), expected)


def test_the_report():
    model = MODELS["modelscope"].build()
    report = vdiff.patch(model)
    text = str(report)
    assert text.startswith("26 modules served, 1 candidates left alone\n")
    assert "   8 TemporalConvLayer         norm, SiLU and residual in the 3x1x1 convolutions\n" in text
    assert text.endswith("left alone:\n     1 Downsample2D  a strided convolution, which PyTorch's library computes")
    data = json.loads(json.dumps(report.as_data()))
    assert {one["path"] for one in data["replaced"]} == {one.path for one in report.replaced} and data["inner"] > 0
    assert data["left"][0]["path"] == "down_blocks.0.downsamplers.0"


def test_twice_and_with_another_backend():
    model = MODELS["svd"].build()
    first = vdiff.patch(model)
    before = modules_of(model)
    again = vdiff.patch(model)
    assert_same_modules(model, before)
    assert (again.replaced, again.left, again.inner) == (first.replaced, first.left, first.inner)
    path = first.replaced[0].path
    with pytest.raises(ValueError, match=f"{path} is patched with backend None; expected that again, or unpatch first"):
        vdiff.patch(model, backend="reference")
    assert_same_modules(model, before)


def test_patched_ends_with_its_block():
    model = MODELS["lucidrains"].build()
    vdiff.patch(model, include=["mid*"])
    before = modules_of(model)
    with pytest.raises(KeyError), vdiff.patched(model) as report:
        assert len(report.replaced) > 4
        raise KeyError
    assert_same_modules(model, before)


def test_a_copy_is_a_model_of_its_own():
    model = MODELS["svd"].build()
    before, expected = modules_of(model), result("svd", model)
    vdiff.patch(copy.deepcopy(model))
    assert_same_modules(model, before)
    vdiff.patch(model)
    served = result("svd", model)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), saved_and_loaded(model)):
        assert torch.equal(result("svd", again), served)
        vdiff.unpatch(again)
        assert torch.equal(result("svd", again), expected)
        assert torch.equal(result("svd", model), served)


def saved_and_loaded(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("name", ["latte", "modelscope"])
def test_saved_as_a_pretrained_model(name, tmp_path):
    """A served Latte is of another class, of the same name: so that its config names what diffusers knows."""
    model = MODELS[name].build()
    vdiff.patch(model)
    model.save_pretrained(tmp_path)
    again = type(MODELS[name].build()).from_pretrained(tmp_path).eval()
    vdiff.unpatch(model)
    assert type(again) is type(model) and torch.equal(result(name, again), result(name, model))


def test_weights_are_loaded_moved_and_cast():
    model, other = MODELS["modelscope"].build(), MODELS["modelscope"].build()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)
    vdiff.patch(model)
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(result("modelscope", model), result("modelscope", other), rtol=1e-4, atol=2e-5)
    model.double()
    inputs = {key: t.double() for key, t in MODELS["modelscope"].inputs(*SMALL).items()}
    with torch.no_grad():
        expected = MODELS["modelscope"].call(other.double(), **inputs)
        torch.testing.assert_close(MODELS["modelscope"].call(model, **inputs), expected, rtol=1e-10, atol=1e-11)


# ------------------------------------------------------------------------------------------------------ what is chosen


def test_parts():
    served = {
        part: {one.class_name for one in vdiff.patch(MODELS["modelscope"].build(), **{part: False}).replaced}
        for part in ("attention", "convolution", "feedforward")
    }
    convolutions = {"ResnetBlock2D", "TemporalConvLayer", "Upsample2D"}
    assert served == {
        "attention": convolutions | {"FeedForward"},
        "convolution": {"Transformer2DModel", "TransformerTemporalModel"},
        "feedforward": convolutions | {"Attention"},
    }  # fmt: skip


def test_include_and_exclude():
    model = MODELS["modelscope"].build()
    expected = result("modelscope", model)
    with vdiff.patched(model, include=["mid_block.*"], exclude=[TemporalConvLayer]) as report:
        assert {one.path.split(".")[0] for one in report.replaced} == {"mid_block"}
        assert "TemporalConvLayer" not in {one.class_name for one in report.replaced}
        torch.testing.assert_close(result("modelscope", model), expected, rtol=1e-4, atol=2e-5)
    inner = "mid_block.attentions.0.transformer_blocks.0.attn2"
    with vdiff.patched(model, exclude=inner) as report:
        reasons = {one.path: one.reason for one in report.left}
        assert reasons["mid_block.attentions.0"] == f"{inner} in it is excluded" and reasons[inner] == "it is excluded"
        served = {one.path for one in report.replaced}
        assert {inner.replace("attn2", "attn1"), inner.replace("attn2", "ff")} < served and inner not in served
        torch.testing.assert_close(result("modelscope", model), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_chosen_backend_serves_every_call(backend):
    model = MODELS["svd"].build()
    vdiff.patch(model, backend=backend)
    found = explained("svd", model, gradients=False)
    assert {part.backend for part in found.parts} == {backend}


# ------------------------------------------------------------------------------------------------- an adapter of yours


def seed_attention(module: nn.Module, x: torch.Tensor, *, backend: str | None = None) -> torch.Tensor:
    T = x.shape[1]
    return vdiff.temporal_layer(
        x, module.to_qkv.weight, module.to_qkv.bias, module.proj_out.weight, module.proj_out.bias,
        num_heads=module.num_heads, bias=module.rel_pos_emb[0, :, :T, :T], backend=backend,
    )  # fmt: skip


def test_an_adapter_of_yours():
    model = nn.Sequential(seed_blocks.Pseudo3DBlock(8, 16), seed_blocks.Pseudo3DBlock(16, 16))
    x = randn(2, 5, 8, 6, 4)
    with torch.no_grad():
        expected = model(x)
        report = vdiff.patch(model, adapters={seed_blocks.TemporalAttention: seed_attention})
        assert [one.path for one in report.replaced] == ["0.temporal_attn", "1.temporal_attn"]
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=2e-5)
        assert [made["served"] for made in report.calls().values()] == [1, 1]


def test_an_adapter_that_steps_aside():
    def check(module):
        if module.num_heads != 8:
            raise Unserved(f"it has {module.num_heads} heads")

    model = nn.Sequential(seed_blocks.TemporalAttention(16), seed_blocks.TemporalAttention(16, 4))
    report = vdiff.patch(model, adapters={seed_blocks.TemporalAttention: Adapter(seed_attention, check)})
    assert [one.path for one in report.replaced] == ["0"] and report.left[0].reason == "it has 4 heads"


@pytest.mark.parametrize("nth", range(4))
def test_all_or_nothing(nth):
    """Whatever a check raises at whichever module: nothing was patched."""
    seen = []

    def check(module):
        seen.append(module)
        if len(seen) > nth:
            raise RuntimeError("of the adapter")

    model = nn.Sequential(*(seed_blocks.TemporalAttention(8, 2) for _ in range(4)), MODELS["modelscope"].build())
    before = modules_of(model)
    with pytest.raises(RuntimeError, match="of the adapter"):
        vdiff.patch(model, adapters={seed_blocks.TemporalAttention: Adapter(seed_attention, check)})
    assert_same_modules(model, before)


class WithoutSubclass(nn.Module):
    def __init_subclass__(cls, **options):
        raise TypeError("closed")


class OfOneClass(nn.Module):
    def __setattr__(self, name, value):
        if name == "__class__":
            raise TypeError("closed")
        super().__setattr__(name, value)


@pytest.mark.parametrize("Closed", [WithoutSubclass, OfOneClass])
def test_a_module_that_cannot_be_patched_leaves_the_others_as_they_were(Closed):
    model = nn.Sequential(MODELS["modelscope"].build(), Closed())
    before = modules_of(model)
    with pytest.raises(TypeError, match="closed"):
        vdiff.patch(model, adapters={Closed: seed_attention})
    assert_same_modules(model, before)


@pytest.mark.parametrize(
    "broken, words",
    [
        (lambda out: out[..., :-1], r"\(2, 5, 3, 4, 15\) of torch.float32; its forward returns a tensor \(2, 5, 3, 4, 16\)"),
        (lambda out: out.half(), "torch.float16; its forward returns a tensor .* of torch.float32"),
        (lambda out: (out,), r"\('a tensor .*',\); its forward returns a tensor"),
    ],
    ids=["shape", "dtype", "kind"],
)
def test_an_adapter_that_returns_something_else(broken, words):
    model = nn.Sequential(nn.Identity(), seed_blocks.TemporalAttention(16))
    adapter = lambda module, x, backend: broken(seed_attention(module, x, backend=backend))  # noqa: E731
    vdiff.patch(model, adapters={seed_blocks.TemporalAttention: adapter})
    with pytest.raises(ValueError, match=f"the adapter of 1 .TemporalAttention. returned .*{words}"):
        model(randn(2, 5, 3, 4, 16))


# ------------------------------------------------------------------------------------------------------------- refused


def test_bad_arguments():
    model = MODELS["modelscope"].build()
    before = modules_of(model)
    with pytest.raises(TypeError, match="model is .* expected a module, or a pipeline with unet, transformer, vae"):
        vdiff.patch([model])
    with pytest.raises(ValueError, match="backend is 'cud'; expected one of"):
        vdiff.patch(model, backend="cud")
    with pytest.raises(TypeError, match="attention is 1; expected"):
        vdiff.patch(model, attention=1)
    with pytest.raises(TypeError, match="exclude has 3; expected paths and classes"):
        vdiff.patch(model, exclude=[3])
    with pytest.raises(TypeError, match="adapters has 'Conv'; expected classes of modules"):
        vdiff.patch(model, adapters={"Conv": seed_attention})
    with pytest.raises(TypeError, match="the adapter of Conv2d is 3; expected a function or an Adapter"):
        vdiff.patch(model, adapters={nn.Conv2d: 3})
    twice = [(seed_blocks.TemporalAttention, seed_attention)] * 2
    with pytest.raises(ValueError, match="TemporalAttention twice; expected one adapter for each class"):
        vdiff.patch(model, adapters=twice)
    with pytest.raises(ValueError, match="ResnetBlock2D, which has an adapter already"):
        vdiff.patch(model, adapters={ResnetBlock2D: seed_attention})
    assert_same_modules(model, before)


def test_weights_without_data():
    model = MODELS["modelscope"].build()
    model.mid_block.resnets[1].to("meta")
    before = modules_of(model)
    with pytest.raises(ValueError, match=r"mid_block.resnets.1.norm1.weight is on the meta device; expected weights that"):
        vdiff.patch(model)
    assert_same_modules(model, before)


def test_a_model_with_nothing_to_serve():
    with pytest.warns(UserWarning, match="Sequential has nothing to serve; looked for layers of diffusers' video models"):
        report = vdiff.patch(nn.Sequential(nn.Linear(3, 3)))
    assert not report.replaced and not report.left


def test_a_model_that_is_not_factorized():
    model = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=4, text_embed_dim=8,
        num_layers=1, sample_width=8, sample_height=8, sample_frames=5,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = vdiff.patch(model)
    assert not report.replaced
    assert "it attends over all pixels of all frames at once" in str(report)


def test_a_class_that_changed_since_is_not_unpatched():
    model = MODELS["modelscope"].build()
    vdiff.patch(model)
    block = model.mid_block.resnets[0]
    block.__class__ = type("Sharded", (type(block),), {})
    before = modules_of(model)
    with pytest.raises(ValueError, match="unpatch: mid_block.resnets.0 is of .*Sharded.* since it was patched"):
        vdiff.unpatch(model)
    assert_same_modules(model, before)
