"""What `kernels` loads, held to eager PyTorch. For test_hub.py, in a process of its own: one takes one copy of the package.

hub_probe.py FOLDER SEED_BLOCKS       FOLDER: what `make hub` makes; SEED_BLOCKS: the file of the layers to replace
"""

import copy
import importlib.util
import sys
from pathlib import Path
from unittest import mock

import torch
from diffusers.models.activations import GEGLU
from kernels import (
    LocalLayerRepository,
    Mode,
    get_local_kernel,
    kernelize,
    replace_kernel_forward_from_hub,
    use_kernel_mapping,
)
from torch import nn

folder, seed_file = map(Path, sys.argv[1:])
(variant,) = (folder / "build").iterdir()
hub = get_local_kernel(folder if "-cpu-" in variant.name else variant, backend="cpu")
spec = importlib.util.spec_from_file_location("seed_blocks", seed_file)
seed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(seed)
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)  # so that only what is wrong differs

LAYERS = {
    "TemporalAttention": (seed.TemporalAttention(32, 4), torch.randn(2, 5, 3, 4, 32), ["temporal_layer"]),
    "Pseudo3DBlock": (seed.Pseudo3DBlock(6, 24), torch.randn(2, 5, 6, 7, 5), ["norm_act_conv", "norm_act", "temporal_layer"]),
    "GEGLU": (GEGLU(12, 20), torch.randn(2, 5, 12), ["geglu"]),
}
# The variant itself: of the whole folder a torch that is a CUDA build would be given the one with CUDA kernels.
MAPPING = {name: {"cpu": LocalLayerRepository(variant, layer_name=name)} for name in LAYERS}


def kernelized(module: nn.Module, mode: Mode, mapping=MAPPING) -> nn.Module:
    with use_kernel_mapping(mapping):
        return kernelize(copy.deepcopy(module), mode=mode, device="cpu", use_fallback=len(mapping) < len(LAYERS))


def results(module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The output and every gradient."""
    x = x.clone().requires_grad_()
    out = module(x)
    return [out, *torch.autograd.grad(out, [x, *module.parameters()], torch.linspace(-1, 1, out.numel()).view(out.shape))]


def hooked(module: nn.Module, name: str) -> nn.Module:
    module.get_submodule(name).register_forward_hook(lambda child, inputs, output: output * 1.5)
    return module


def operator():
    q, k, v = torch.randn(3, 2, 5, 3, 4, 2, 8)  # (B, T, H, W, N, D)
    bias = torch.randn(2, 5, 5)
    scores = torch.einsum("bthwnd,bshwnd->bhwnts", q, k) * 8**-0.5 + bias
    expected = torch.einsum("bhwnts,bshwnd->bthwnd", scores.softmax(-1), v)
    torch.testing.assert_close(hub.temporal_attention(q, k, v, bias=bias), expected)


def layer(name: str):
    module, x, operators = LAYERS[name]
    served = kernelized(module, Mode.INFERENCE)
    assert served.forward.__func__ is getattr(hub.layers, name).forward
    with hub.backend("reference"):  # which serves every operator whole
        assert [part.operator for part in hub.explain(served, x).parts] == operators
    expected = module(x)
    with mock.patch.object(nn.Linear, "__call__", None), mock.patch.object(nn.LayerNorm, "__call__", None):  # fused, not called
        torch.testing.assert_close(served(x), expected)
    served = kernelized(module, Mode.TRAINING | Mode.TORCH_COMPILE)
    compiled = torch.compile(served, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(results(compiled, x), results(module, x))


def changed_children():
    module, x, _ = LAYERS["Pseudo3DBlock"]
    for name in ("spatial_conv", "spatial_conv.0", "spatial_conv.2", "norm", "temporal_attn", "temporal_attn.to_qkv"):
        served = hooked(kernelized(module, Mode.INFERENCE), name)
        torch.testing.assert_close(served(x), hooked(copy.deepcopy(module), name)(x), msg=lambda text: f"{name}: {text}")
    alone = kernelized(module, Mode.INFERENCE, {"Pseudo3DBlock": MAPPING["Pseudo3DBlock"]})
    assert alone.temporal_attn.forward.__func__ is seed.TemporalAttention.forward
    torch.testing.assert_close(alone(x), module(x))
    other = copy.deepcopy(module)
    alone.temporal_attn = other.temporal_attn = nn.Identity()
    torch.testing.assert_close(alone(x), other(x))


for name, (module, _, _) in LAYERS.items():
    replace_kernel_forward_from_hub(type(module), name)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
assert bool(hub.availability("cpu")) == (variant / "_C.so").exists(), hub.availability("cpu")
operator()
for name in LAYERS:
    layer(name)
changed_children()
assert "vdiff_kernels" not in sys.modules
print(f"{hub.__name__} {hub.__version__}")
