"""Prints what modules dispatch on a fake GPU, as JSON: a process of test_on_a_gpu.py, which says how."""

import ctypes
import json
import sys

import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)
import vdiff_kernels as vdiff  # noqa: E402
from vdiff_kernels.backends import registry  # noqa: E402
from vdiff_kernels.ops import autograd  # noqa: E402

cuda, cpu = registry.BACKENDS["cuda"], registry.BACKENDS["cpu"]
cuda.kernels = {name: cpu.kernels[name] for name in ("temporal_attention", "spatial_attention", "channel_stats")}
cuda.why_not_here = lambda call: None
registry.first_use_check = lambda name, variant: None
ran = []


class Recorder(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        ran.append((str(function), str(arguments[0].dtype) if arguments and isinstance(arguments[0], torch.Tensor) else ""))
        return function(*arguments, **(keywords or {}))


SHAPES = {}  # of what each node of our rule has made


def own_nodes(node, seen):
    """The nodes of our rule that lead to a result."""
    if node is None or node in seen:
        return []
    seen[node] = True
    found = [node] if node.name() == "_DifferentiableBackward" else []
    return found + [other for following, _ in node.next_functions for other in own_nodes(following, seen)]


def noting(apply):
    def applied(*arguments):
        result = apply(*arguments)
        first = result[0] if isinstance(result, tuple) else result
        SHAPES[first.grad_fn] = first.shape
        return result

    return applied


autograd._Differentiable.apply = noting(autograd._Differentiable.apply)


def modules(half):
    yield "temporal", vdiff.nn.TemporalAttention(64, 2), (1, 8, 4, 4, 64), dict(norm=vdiff.Norm("layer", half(64), half(64)))
    yield "spatial", vdiff.nn.SpatialAttention(64, 2), (1, 8, 4, 4, 64), {}
    yield "spatial-biased", vdiff.nn.SpatialAttention(64, 2, (4, 4)), (1, 8, 4, 4, 64), {}
    yield "conv", vdiff.nn.NormActConv(64, 64, groups=8), (1, 64, 4, 8, 8), {}
    yield "resnet", vdiff.nn.ResnetBlock3D(64, 64, groups=8), (1, 64, 4, 8, 8), {}
    yield "feed-forward", vdiff.nn.FeedForward(64), (2, 3, 64), {}
    yield "seed", vdiff.nn.Pseudo3DBlock(8, 64, 2), (1, 4, 8, 8, 8), {}


found = {}
with FakeTensorMode():

    def half(*shape):
        return torch.empty(*shape, device="cuda", dtype=torch.bfloat16, requires_grad=True)

    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        made = list(modules(half))
    torch.set_default_dtype(torch.float32)
    for name, module, shape, options in made:
        for training in (False, True):
            ran.clear()
            x = half(*shape)
            with Recorder(), torch.set_grad_enabled(training):
                out = module(x, **options)
                for node in own_nodes(out.grad_fn, {}):
                    with torch.no_grad():
                        gradients = node.apply(torch.empty(SHAPES[node], device="cuda", dtype=torch.bfloat16))
                    assert all(g is None or g.device.type == "cuda" for g in gradients)
            assert out.device.type == "cuda" and out.dtype == torch.bfloat16
            found[f"{name} {'training' if training else 'inference'}"] = list(ran)
print(json.dumps(found))
