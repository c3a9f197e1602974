"""Whole modules and bare convolutions in bfloat16: what composing them of today's parts gives, beside what models run."""

import copy
import math
from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import nn

from vdiff_kernels.bench.presets import CONVS, LAYERS, ConvShape, LayerShape, small
from vdiff_kernels.bench.replays import sets_for
from vdiff_kernels.bench.rooflines import work
from vdiff_kernels.bench.seed_blocks import TemporalAttention
from vdiff_kernels.ops.attention.call import AttentionCall, AttentionOptions, LayerCall
from vdiff_kernels.ops.autograd import run as call_of
from vdiff_kernels.ops.conv.call import ConvCall
from vdiff_kernels.ops.norm.api import channel_stats
from vdiff_kernels.ops.norm.call import StatsCall

from . import clock
from .day import Day, relative_error


def run(day: Day) -> None:
    layers, convs = list(LAYERS.values()), list(CONVS.values())
    for module in layers[:1] if day.quick else layers:
        measure_module(day, module, ["composed", "eager"])
    for conv in convs[:1] if day.quick else convs:
        for kernel in ((1, 3, 3), (3, 1, 1)):
            measure_conv(day, conv, kernel)
    measure_statistics(day, convs[0])


def label(shape) -> str:
    """As rows are named: a convolution's channels are C, as many as it makes."""
    sizes = vars(shape)
    if isinstance(shape, ConvShape):
        sizes = {**{letter: sizes[letter] for letter in "BTHW"}, "C": shape.Ci}
    return " ".join(f"{letter}{value}" for letter, value in sizes.items())


def measure_module(day: Day, shape: LayerShape, rivals: list[str]) -> None:
    shape = small(shape) if day.quick else shape
    module = TemporalAttention(shape.C, shape.N).to(day.device, torch.bfloat16)
    size = shape.B, shape.T, shape.H, shape.W, shape.C
    xs = [day.randn(*size) for _ in range(sets_for(4 * 2 * math.prod(size)))]
    with torch.no_grad():
        expected = copy.deepcopy(module).float()(xs[0][:, :, :2].float())
    weights = module.to_qkv.weight, module.to_qkv.bias, module.proj_out.weight, module.proj_out.bias
    counted = LayerCall("temporal_layer", xs[0], *weights, shape.N, None, None, None, None, AttentionOptions())
    for backward in (False, True):
        leaves = [x.detach().requires_grad_(backward) for x in xs]
        module.requires_grad_(backward)
        grad_out = day.randn(*size)
        rest = list(module.parameters()), grad_out, backward
        calls = {"composed": lambda x: composed(day, module, x), "eager": module, "torch.compile": torch.compile(module)}
        clock.measure(
            day, f"TemporalAttention {label(shape)} {'fwd+bwd' if backward else 'fwd'}",
            {name: with_gradients(calls[name], leaves, *rest) for name in rivals}, len(xs),
            lambda rival, result: relative_error(result[0][:, :, :2], expected),
            operator="TemporalAttention", backward=backward, **asdict(work(counted, backward)),
        )  # fmt: skip


def with_gradients(call, leaves: list, parameters, grad_out, backward: bool):
    """A rival: call of the i-th leaf, then, with backward, the gradients of leaf and parameters."""

    def rival(i):
        out = call(leaves[i])
        return (out, *torch.autograd.grad(out, (leaves[i], *parameters), grad_out)) if backward else (out,)

    return rival


def composed(day: Day, module: TemporalAttention, x):
    """linear, the fused operator on one packed qkv, linear: what nn.TemporalAttention makes of it without a norm."""
    qkv = F.linear(x, module.to_qkv.weight, module.to_qkv.bias).unflatten(-1, (3, module.num_heads, -1))
    T = x.shape[1]
    options = AttentionOptions(bias=module.rel_pos_emb[0, :, :T, :T], scale=module.scale)
    out = call_of(AttentionCall.packed("temporal_attention", qkv, options), day.backend)
    return F.linear(out.flatten(-2), module.proj_out.weight, module.proj_out.bias)


def measure_conv(day: Day, shape: ConvShape, kernel: tuple[int, int, int]) -> None:
    """Conv3d as models call it, and conv2d on views of the same memory, channels last."""
    shape = small(shape) if day.quick else shape
    padding = tuple(k // 2 for k in kernel)
    conv = nn.Conv3d(shape.Ci, shape.Co, kernel, padding=padding).to(day.device, torch.bfloat16)
    size = shape.B, shape.T, shape.H, shape.W, shape.Ci
    xs = [day.randn(*size).movedim(-1, 1) for _ in range(sets_for(2 * 2 * math.prod(size)))]
    with torch.no_grad():
        expected = F.conv3d(xs[0][:1].float(), conv.weight.float(), conv.bias.float(), padding=padding)
    counted = ConvCall("norm_act_conv", xs[0], conv.weight, conv.bias)
    for backward in (False, True):
        conv.requires_grad_(backward)
        grad_out = day.randn(*size).movedim(-1, 1)
        last = [x.detach().requires_grad_(backward) for x in xs]
        first = [x.detach().contiguous().requires_grad_(backward) for x in xs]

        def rival(call, leaves, layout):
            return with_gradients(call, leaves, list(conv.parameters()), grad_out.contiguous(memory_format=layout), backward)

        def searched(x):
            with torch.backends.cudnn.flags(enabled=True, benchmark=True):
                return conv(x)

        channels_last = torch.channels_last_3d
        rivals = {
            "conv2d on views": rival(lambda x: on_views(conv, x), last, channels_last),
            "Conv3d": rival(conv, first, torch.contiguous_format),
            "Conv3d channels_last_3d": rival(conv, last, channels_last),
            "Conv3d channels_last_3d, cudnn.benchmark": rival(searched, last, channels_last),
        }
        clock.measure(
            day, f"convolution {'x'.join(map(str, kernel))} {label(shape)} {'fwd+bwd' if backward else 'fwd'}", rivals, len(xs),
            lambda rival, result: relative_error(result[0][:1], expected),
            operator="convolution", backward=backward, **asdict(work(counted, backward)),
        )  # fmt: skip


def on_views(conv: nn.Conv3d, x):
    """1x3x3 on (B*T, C, H, W); 3x1x1 as 3x1 on (B, C, T, H*W): both views of (B, C, T, H, W) in channels_last_3d."""
    B, C, T, H, W = x.shape
    if conv.kernel_size[0] == 1:
        frames = x.movedim(2, 1).flatten(0, 1)
        return F.conv2d(frames, conv.weight[:, :, 0], conv.bias, padding=(1, 1)).unflatten(0, (B, T)).movedim(1, 2)
    out = F.conv2d(x.flatten(3), conv.weight[..., 0], conv.bias, padding=(1, 0))
    return out.unflatten(3, (H, W))


def measure_statistics(day: Day, shape: ConvShape) -> None:
    shape = small(shape) if day.quick else shape
    size = shape.B, shape.T, shape.H, shape.W, shape.Ci
    xs = [day.randn(*size) for _ in range(sets_for(2 * math.prod(size)))]
    expected = torch.stack(torch.var_mean(xs[0].double(), (2, 3), correction=0)[::-1], -1)
    rivals = {
        "vdiff": lambda i: channel_stats(xs[i].movedim(-1, 1), backend=day.backend),
        "torch.var_mean": lambda i: torch.stack(torch.var_mean(xs[i].float(), (2, 3), correction=0)[::-1], -1),
    }
    clock.measure(
        day, f"channel_stats {label(shape)} fwd", rivals, len(xs), lambda rival, result: relative_error(result, expected),
        operator="channel_stats", backward=False, **asdict(work(StatsCall("channel_stats", xs[0]))),
    )  # fmt: skip
