"""What people attach to a model that is patched, or patch with it attached: the results are those of the same model unpatched."""

import copy
import functools
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from accelerate import cpu_offload
from accelerate.hooks import CpuOffload, ModelHook, add_hook_to_module
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0, IPAdapterAttnProcessor2_0
from diffusers.utils.peft_utils import set_weights_and_activate_adapters
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import vdiff_kernels as vdiff

from .compare import randn
from .models import MODELS, TEXT

SMALL = 2, 5, 8, 8


def result(name: str, model: nn.Module) -> torch.Tensor:
    """In the dtype of the model's weights."""
    dtype = next(parameter.dtype for parameter in model.parameters())
    inputs = {key: t.to(dtype) if t.is_floating_point() and dtype == torch.float64 else t
              for key, t in MODELS[name].inputs(*SMALL).items()}  # fmt: skip
    with torch.no_grad():
        return MODELS[name].call(model, **inputs)


def lora(model: nn.Module) -> None:
    """On the layers of attention and feed-forward, and on convolutions."""
    convolutions = r"resnets\.\d+\.conv1|conv_shortcut|temp_convs\.\d+\.conv4\.3|temporal_res_block\.conv2"
    layers = rf".*(to_q|to_v|to_out\.0|net\.2|{convolutions})"
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=3, target_modules=layers), model)
    fill(model)


def fill(model: nn.Module) -> None:
    """LoRA starts as nothing."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.to(next(model.parameters()).dtype)


def own_processor(model: nn.Module) -> None:
    class Louder(AttnProcessor2_0):
        def __call__(self, attn, hidden_states, *args, **kwargs):
            return 1.5 * super().__call__(attn, hidden_states, *args, **kwargs)

    model.set_attn_processor(Louder())


def sliced(model: nn.Module) -> None:
    model.set_attention_slice(1) if hasattr(model, "set_attention_slice") else model.set_attn_processor(AttnProcessor())


def fused_projections(model: nn.Module) -> None:
    model.fuse_qkv_projections()


def chunked(model: nn.Module) -> None:
    model.enable_forward_chunking(chunk_size=1, dim=1)


def parametrized(model: nn.Module) -> None:
    for module in list(model.modules()):
        if isinstance(module, nn.Linear):
            nn.utils.parametrizations.weight_norm(module)
            module.parametrizations.weight.original0.data.mul_(1.2)


def spectral(model: nn.Module) -> None:
    """An old-style norm, by a hook that computes the weight before each call."""
    torch.manual_seed(0)  # its first vectors
    for name, module in list(model.named_modules()):
        if name.endswith(("to_q", "conv1")) and isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.utils.spectral_norm(module)


def quantized(model: nn.Module) -> None:
    """Few layers of the middle: each turns a difference in a last bit into a step of 1 / 255 of its range."""
    block = model.mid_block.attentions[0].transformer_blocks[0]
    torch.ao.quantization.quantize_dynamic(block, {"attn1.to_v", "ff.net.0.proj"}, inplace=True)


def cast_by_layer(model: nn.Module) -> None:
    model.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)


def offloaded(model: nn.Module) -> None:
    """Sequentially: the weights are on meta but while their layer runs."""
    cpu_offload(model, execution_device=torch.device("cpu"), offload_buffers=False)


def hooked_whole(model: nn.Module) -> None:
    """As enable_model_cpu_offload does it, which asks for an accelerator."""
    add_hook_to_module(model, CpuOffload(execution_device=torch.device("cpu")), append=True)


def hooked_blocks(model: nn.Module) -> None:
    """accelerate's hooks put a forward on each module that they are on."""

    class Louder(ModelHook):
        def post_forward(self, module, output):
            return tuple(1.5 * t for t in output) if isinstance(output, tuple) else 1.5 * output

    for name, module in model.named_modules():
        if name.endswith(("resnets.0", "attn1")):
            add_hook_to_module(module, Louder())


def hooked_inside(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if name.endswith(("attn1", "ff", "to_k", "norm2", "conv2", "nonlinearity")):
            module.register_forward_hook(lambda module, inputs, output: 1.5 * output)


def channels_last(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


CHANGES = [
    lora, own_processor, sliced, fused_projections, chunked, parametrized, spectral, quantized, cast_by_layer, offloaded,
    hooked_whole, hooked_blocks, hooked_inside, channels_last,
]  # fmt: skip
FAMILIES = ["modelscope", "animatediff", "svd"]
# They have no such method; AnimateDiff calls its layers by a keyword that quantised ones do not have.
IMPOSSIBLE = {
    ("fused_projections", "modelscope"), ("fused_projections", "svd"), ("chunked", "animatediff"), ("quantized", "animatediff"),
}  # fmt: skip


def possible() -> list:
    return [
        (change, name) for change in CHANGES for name in FAMILIES if (change.__name__, name) not in IMPOSSIBLE
    ]  # fmt: skip


SINGLE = (quantized, cast_by_layer)  # for float32 alone


def build(name: str, change) -> nn.Module:
    """In float64, where only what is wrong differs."""
    return MODELS[name].build() if change in SINGLE else MODELS[name].build().double()


@functools.cache
def plain(name: str) -> torch.Tensor:
    return result(name, MODELS[name].build())


@pytest.mark.parametrize("order", ["after", "before"])
@pytest.mark.parametrize("change, name", possible())
@pytest.mark.filterwarnings("ignore:.*quantiz.*", "ignore:.*deprecated.*")
def test_the_same_patched_and_unpatched(change, name, order):
    """order: of patch, to the change."""
    original = build(name, change)
    change(original)
    expected = result(name, original)
    if change in (lora, own_processor, parametrized, spectral, hooked_blocks, hooked_inside):
        assert (expected - plain(name)).abs().max() > 1e-2, "the change does not show"
    model = build(name, change)
    if order == "after":
        change(model)
    report = vdiff.patch(model)
    if order == "before":
        change(model)
    found = result(name, model)
    if change in SINGLE:
        error, effect = ((found - expected).abs().mean(), (expected - plain(name)).abs().mean())
        assert effect > 1e-5 and error < 0.1 * effect, f"{change.__name__} moves the result by {effect}, and patch by {error}"
    else:
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    assert report.replaced or change in (hooked_inside, own_processor, chunked), str(report)
    if change is hooked_blocks and order == "after":
        reasons = {one.reason for one in report.left if one.path.endswith("resnets.0")}
        assert reasons == {"its forward is replaced on the instance, as offloading does; patch before that"}


@pytest.mark.parametrize("order", ["after", "before"])
def test_lora_is_merged_switched_and_taken_off(order):
    """Merging writes to `.data`, which leaves no mark in a weight's version."""
    model, original = MODELS["animatediff"].build(), MODELS["animatediff"].build()
    bare = result("animatediff", original)
    if order == "before":
        vdiff.patch(model)
    for one in (model, original):
        lora(one)
    if order == "after":
        vdiff.patch(model)
    close = functools.partial(torch.testing.assert_close, rtol=2e-4, atol=5e-5)
    result("animatediff", model)
    for one in (model, original):
        one.fuse_lora(lora_scale=0.5)
    close(result("animatediff", model), result("animatediff", original))
    for one in (model, original):
        one.unfuse_lora()
        set_weights_and_activate_adapters(one, ["default"], [0.25])
    close(result("animatediff", model), result("animatediff", original))
    model.delete_adapters("default")
    close(result("animatediff", model), bare)


def test_what_is_inside_is_served_where_a_block_steps_aside():
    """An image prompt's processor, on the attention to the text: the block runs as it did, its own attention is served."""
    model = MODELS["modelscope"].build()
    report = vdiff.patch(model)
    block = model.mid_block.attentions[0].transformer_blocks[0]
    block.attn2.set_processor(AttnProcessor())

    class Other(AttnProcessor2_0):
        pass

    block.attn2.set_processor(Other())
    result("modelscope", model)
    calls = report.calls()["mid_block.attentions.0"]
    (reason,) = calls["stepped_aside"]
    assert reason.startswith("Attention cannot be served: its processor is Other") and not calls["served"]
    assert (patch_served(block.attn1), patch_served(block.ff), patch_served(block.attn2)) == (1, 1, 0)
    assert f"     1 {reason}" in str(report)


def patch_served(module: nn.Module) -> int:
    return module._vdiff_patch.served


def test_an_image_prompt():
    """IP-Adapter: a processor with weights of its own, and a context of two parts. The attention to itself stays fused."""
    model = MODELS["animatediff"].build()
    block = model.down_blocks[0].attentions[0]
    inner = block.transformer_blocks[0]
    torch.manual_seed(0)
    inner.attn2.set_processor(IPAdapterAttnProcessor2_0(16, TEXT, num_tokens=(3,), scale=0.7))
    x, context = randn(10, 16, 8, 8), (randn(10, 4, TEXT, seed=4), [randn(10, 1, 3, TEXT, seed=5)])
    with torch.no_grad():
        expected = block(x, context, return_dict=False)[0]
        vdiff.patch(model)
        torch.testing.assert_close(block(x, context, return_dict=False)[0], expected, rtol=1e-4, atol=2e-5)
        with pytest.raises(AssertionError):
            torch.testing.assert_close(block(x, context[0], return_dict=False)[0], expected, rtol=1e-4, atol=2e-5)
    assert (patch_served(inner.attn1), patch_served(inner.ff), patch_served(inner.attn2)) == (2, 2, 0)


# ------------------------------------------------------------------------------------------------------------ training


def gradients(name: str, model: nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(1)
    MODELS[name].call(model, **MODELS[name].inputs(*SMALL)).square().mean().backward()
    return {key: parameter.grad for key, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", ["modelscope", "latte"])
def test_dropout_drops_what_it_did(name):
    """With p = 0.1 where it acts in training: the same elements, by the same seed."""
    original = MODELS[name].build().train()
    for module in original.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    model = copy.deepcopy(original)
    report = vdiff.patch(model)
    found, expected = gradients(name, model), gradients(name, original)
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=1e-5, msg=lambda text: f"{key}: {text}")
    assert "it is training with p above 0" in str(report)
    model.eval()
    torch.testing.assert_close(result(name, model), result(name, original.eval()), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["animatediff", "svd", "latte"])
def test_gradient_checkpointing(name):
    """It is done as it was: block by block."""
    original = MODELS[name].build().train()
    for module in original.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model = copy.deepcopy(original)
    vdiff.patch(model)
    calls = []
    for one in (model, original):
        with mock.patch.object(torch.utils.checkpoint, "checkpoint", wraps=torch.utils.checkpoint.checkpoint) as checkpoint:
            one.enable_gradient_checkpointing()
            calls.append((gradients(name, one), checkpoint.call_count))
    (found, times), (expected, times_before) = calls
    assert times == times_before > 0
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=1e-5, msg=lambda text: f"{key}: {text}")


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def distributed(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def sharded(model: nn.Module) -> nn.Module:
    mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
    for block in model.mid_block.attentions:
        for inner in block.transformer_blocks:
            fully_shard(inner, mesh=mesh)
    return fully_shard(model, mesh=mesh)


@pytest.mark.parametrize("order", ["after", "before"])
@pytest.mark.parametrize("wrap", [distributed, sharded])
def test_data_parallel(wrap, order, one_process):
    expected = gradients("modelscope", MODELS["modelscope"].build())
    model = MODELS["modelscope"].build()
    if order == "before":
        vdiff.patch(model)
    wrapped = wrap(model)
    if order == "after":
        vdiff.patch(wrapped)
    for key, gradient in gradients("modelscope", wrapped).items():
        gradient = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
        key = key.removeprefix("module.")
        torch.testing.assert_close(gradient, expected[key], rtol=1e-3, atol=1e-5, msg=lambda text: f"{key}: {text}")
