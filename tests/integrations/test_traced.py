"""Patched models under torch.compile, on tensors without data, and past the limits that other kernels have."""

from types import SimpleNamespace

import diffusers
import pytest
import torch
from diffusers.pipelines.free_noise_utils import AnimateDiffFreeNoiseMixin
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree as pytree

import vdiff_kernels as vdiff
from vdiff_kernels.backends.explain import Part

from .compare import randn, randomize
from .models import MODELS, explained, motion


@pytest.fixture(autouse=True)
def new_compiler():
    """torch.compile counts how often a function was compiled, whatever it was that it closed over."""
    torch.compiler.reset()


def small(name: str, **sizes: int) -> dict[str, torch.Tensor]:
    return MODELS[name].inputs(*{**dict(B=1, T=5, H=8, W=8), **sizes}.values())


def calls(name: str, **sizes: int) -> dict[str, tuple]:
    """By class, of one block of each that is served as a whole: (block, how the model calls it)."""
    model = MODELS[name].build()
    found = {}

    def note(block, args, kwargs):
        found[type(block).__name__] = block, args, kwargs

    with vdiff.patched(model) as report:
        for one in report.replaced:
            model.get_submodule(one.path).register_forward_pre_hook(note, with_kwargs=True)
        with torch.no_grad():
            MODELS[name].call(model, **small(name, **sizes))
    for block in model.modules():
        block._forward_pre_hooks.clear()
    return found


BLOCKS = {
    "TransformerTemporalModel": "modelscope", "Transformer2DModel": "modelscope", "TemporalConvLayer": "modelscope",
    "ResnetBlock2D": "modelscope", "Upsample2D": "modelscope", "AnimateDiffTransformer3D": "animatediff",
    "TransformerSpatioTemporalModel": "svd", "SpatioTemporalResBlock": "svd",
    "Residual": "lucidrains", "ResnetBlock": "lucidrains",
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_is_compiled_in_one_graph(name):
    """And for other sizes afterwards."""
    block, *first = calls(BLOCKS[name])[name]
    _, *second = calls(BLOCKS[name], H=12)[name]
    with torch.no_grad():
        expected = [block(*args, **kwargs) for args, kwargs in (first, second)]
        report = vdiff.patch(block)
        assert report.replaced[0].path == "", str(report)
        compiled = torch.compile(lambda args, kwargs: block(*args, **kwargs), backend="aot_eager", fullgraph=True)
        for (args, kwargs), out in zip((first, second), expected):
            torch.testing.assert_close(compiled(args, kwargs), out, rtol=1e-4, atol=2e-5)


def test_compiled_where_a_block_steps_aside():
    """The reason is found while it is traced, and the graph is whole."""
    block, args, kwargs = calls("modelscope")["TemporalConvLayer"]
    block.conv1[1].register_forward_hook(lambda module, inputs, output: 1.5 * output)
    with torch.no_grad():
        expected = block(*args, **kwargs)
        vdiff.patch(block)
        compiled = torch.compile(lambda args, kwargs: block(*args, **kwargs), backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(args, kwargs), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_compiled_whole(name):
    """One graph, and another size afterwards."""
    kind = MODELS[name]
    model = kind.build()
    expected = [kind.call(model, **inputs).detach() for inputs in (small(name), small(name, H=12))]
    vdiff.patch(model)
    compiled = torch.compile(lambda inputs: kind.call(model, **inputs), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for inputs, out in zip((small(name), small(name, H=12)), expected):
            torch.testing.assert_close(compiled(inputs), out, rtol=1e-4, atol=2e-5)


@pytest.mark.slow
def test_compiled_with_gradients():
    kind, model = MODELS["svd"], MODELS["svd"].build()

    def gradient(run):
        model.zero_grad()
        run(small("svd")).square().mean().backward()
        return [parameter.grad for parameter in model.parameters()]

    expected = gradient(lambda inputs: kind.call(model, **inputs))
    vdiff.patch(model)
    compiled = torch.compile(lambda inputs: kind.call(model, **inputs), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(gradient(compiled), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_without_data(name):
    kind, model = MODELS[name], MODELS[name].build()
    expected = kind.call(model, **small(name))
    vdiff.patch(model)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        inputs = pytree.tree_map_only(torch.Tensor, mode.from_tensor, small(name))
        out = kind.call(model, **inputs)
    assert (out.shape, out.dtype, out.stride()) == (expected.shape, expected.dtype, expected.stride())


@pytest.mark.parametrize("name", MODELS)
def test_explained_for_a_gpu_that_is_not_there(name):
    model = MODELS[name].build()
    vdiff.patch(model)
    found = explained(name, model, device="sm_90", gradients=False)
    assert found.parts and all(isinstance(part, Part) for part in found.parts)
    attention = {part.operator for part in found.parts if "attention" in part.operator or "layer" in part.operator}
    assert name == "svd autoencoder" or attention, str(found)


def test_more_than_65535_sequences():
    """As Stable Video Diffusion has at 576 x 1024 with guidance, where the grid of some kernels ends."""
    model = randomize(diffusers.models.unets.unet_motion_model.AnimateDiffTransformer3D(1, 4, in_channels=4, norm_num_groups=1))
    x = randn(2 * 3, 4, 150, 220)
    with torch.no_grad():
        expected = model(x, num_frames=3)
        for backend in (None, "cpu", "composed", "reference"):
            with vdiff.patched(model, backend=backend) as report:
                torch.testing.assert_close(model(x, num_frames=3), expected, rtol=1e-4, atol=2e-5)
                assert report.calls()[""]["served"] == 1


def test_free_noise():
    """Windows of frames are other blocks: what is in them is served by itself, whenever they come and go."""
    model, kind = motion(motion_max_seq_length=8), MODELS["animatediff"]
    inputs = small("animatediff", T=16)
    with pytest.raises(ValueError, match=r"16 frames; expected at most 8, .*\(pipe.enable_free_noise\(\)\)"):
        vdiff.patch(model)
        kind.call(model, **inputs)
    vdiff.unpatch(model)
    pipe = AnimateDiffFreeNoiseMixin()
    pipe.unet, pipe.motion_adapter = model, SimpleNamespace(config=SimpleNamespace(motion_max_seq_length=8))
    pipe.device, pipe.dtype = torch.device("cpu"), torch.float32
    with torch.no_grad():
        within = small("animatediff", T=8)
        plain = kind.call(model, **within)
        report = vdiff.patch(model)
        pipe.enable_free_noise(context_length=8, context_stride=4)
        served = kind.call(model, **inputs)
        assert "expected BasicTransformerBlock" in str(report)
        again = vdiff.patch(model)
        inner = [one.path for one in again.replaced if one.path.endswith(("attn1", "attn2", "ff"))]
        assert len(inner) == 3 * sum(one.class_name == "AnimateDiffTransformer3D" for one in again.left)
        torch.testing.assert_close(kind.call(model, **inputs), served, rtol=1e-4, atol=2e-5)
        vdiff.unpatch(model)
        torch.testing.assert_close(kind.call(model, **inputs), served, rtol=1e-4, atol=2e-5)
        vdiff.patch(model)
        pipe.disable_free_noise()
        torch.testing.assert_close(kind.call(model, **within), plain, rtol=1e-4, atol=2e-5)
