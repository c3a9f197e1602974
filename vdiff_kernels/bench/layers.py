"""Whole layers beside what models run in their place: attention modules, [norm, activation, convolution], GEGLU, statistics."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import nn

from ..nn.attention import TemporalAttention
from ..ops.attention.call import AttentionOptions, LayerCall
from ..ops.conv.api import norm_act_conv
from ..ops.conv.call import ConvCall
from ..ops.feedforward.api import geglu
from ..ops.feedforward.call import GegluCall
from ..ops.norm.api import channel_stats, norm_act
from ..ops.norm.call import Norm, NormCall, StatsCall
from . import seed_blocks
from .contest import Contest, Setting, relative_error, with_gradients
from .presets import ConvShape, LayerShape, RowsShape, direction
from .replays import sets_for
from .rooflines import work

COMPILED = "torch.compile"
GROUPS = 32
CHANNELS_LAST = torch.channels_last_3d


def label(shape) -> str:
    """As rows are named: a convolution's channels are C, as many as it makes."""
    sizes = dict(vars(shape))
    if isinstance(shape, ConvShape):
        sizes = {**{letter: sizes[letter] for letter in "BTHW"}, "C": shape.Ci} | (
            {"Co": shape.Co} if shape.Co != shape.Ci else {}
        )
    return " ".join(f"{letter}{value}" for letter, value in sizes.items())


def module(shape: LayerShape, setting: Setting, backward: bool) -> Contest:
    """nn.TemporalAttention, beside the module of the source text that it replaces."""
    seed = seed_blocks.TemporalAttention(shape.C, shape.N).to(setting.device, setting.dtype)
    size = shape.B, shape.T, shape.H, shape.W, shape.C
    xs = [setting.randn(*size).requires_grad_(backward) for _ in range(sets_for(2 * 2 * math.prod(size)))]
    grad_out = setting.randn(*size)
    with torch.no_grad():
        expected = copy.deepcopy(seed).float()(xs[0][:, :, :2].float())
    modules = {name: TemporalAttention(shape.C, shape.N, backend=backend) for name, backend in setting.backends.items()}
    for one in modules.values():
        one.to(setting.device, setting.dtype).load_state_dict(seed.state_dict())
    modules |= {"eager": seed, COMPILED: torch.compile(seed)}
    rivals = {}
    for name, one in modules.items():
        one.requires_grad_(backward)
        rivals[name] = with_gradients(one, xs, list(one.parameters()), grad_out, backward)
    weights = seed.to_qkv.weight, seed.to_qkv.bias, seed.proj_out.weight, seed.proj_out.bias
    counted = LayerCall("temporal_layer", xs[0], *weights, shape.N, None, None, None, None, AttentionOptions())
    return Contest(
        f"TemporalAttention {label(shape)} {direction(backward)}", "TemporalAttention", backward, rivals, len(xs),
        lambda rival, result: relative_error(result[0][:, :, :2], expected), work(counted, backward),
    )  # fmt: skip


def conv(shape: ConvShape, kernel: str, setting: Setting, backward: bool) -> Contest:
    """Group norm of each frame, SiLU, convolution, residual: as one operator, and one after the other."""
    taps = {"1x3x3": (1, 3, 3), "3x1x1": (3, 1, 1)}[kernel]
    padding, B, T = tuple(size // 2 for size in taps), shape.B, shape.T
    layer = nn.Conv3d(shape.Ci, shape.Co, taps, padding=padding).to(setting.device, setting.dtype)
    norm = nn.GroupNorm(GROUPS, shape.Ci).to(setting.device, setting.dtype)
    parameters = [*layer.parameters(), *norm.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(backward)

    def clip(channels: int):
        return setting.randn(B, T, shape.H, shape.W, channels).movedim(-1, 1)

    sets = sets_for(2 * setting.dtype.itemsize * B * T * shape.H * shape.W * shape.Ci)
    last = [(clip(shape.Ci).requires_grad_(backward), clip(shape.Co).requires_grad_(backward)) for _ in range(sets)]
    grad_out = clip(shape.Co)

    given = Norm("group", norm.weight, norm.bias, groups=GROUPS)

    def ours(backend):
        return lambda x, residual: norm_act_conv(
            x, layer.weight, layer.bias, norm=given, act="silu", residual=residual, backend=backend
        )  # fmt: skip

    def in_turn(x, residual):
        frames = x.transpose(1, 2).flatten(0, 1)
        return layer(F.silu(norm(frames)).unflatten(0, (B, T)).transpose(1, 2)) + residual

    def exact(x, residual):
        return copy.deepcopy(layer).float()(
            F.silu(copy.deepcopy(norm).float()(x.float().transpose(1, 2).flatten(0, 1)))
            .unflatten(0, (1, T)).transpose(1, 2)
        ) + residual.float()  # fmt: skip

    def with_layout(call, layout):
        inputs = [tuple(t.detach().contiguous(memory_format=layout).requires_grad_(backward) for t in pair) for pair in last]
        return with_gradients(call, inputs, parameters, grad_out.contiguous(memory_format=layout), backward)

    with torch.no_grad():
        expected = exact(*(t[:1] for t in last[0]))
    rivals = {
        name: with_gradients(ours(backend), last, parameters, grad_out, backward) for name, backend in setting.backends.items()
    }
    rivals["eager"] = with_layout(in_turn, torch.contiguous_format)
    rivals["eager channels_last_3d"] = with_layout(in_turn, CHANNELS_LAST)
    rivals[COMPILED] = with_layout(torch.compile(in_turn), CHANNELS_LAST)
    x, residual = last[0]
    described = ConvCall("norm_act_conv", x, layer.weight, layer.bias, given, "silu", residual=residual)
    return Contest(
        f"norm_act_conv {kernel} {label(shape)} {direction(backward)}", "norm_act_conv", backward, rivals, sets,
        lambda rival, result: relative_error(result[0][:1], expected), work(described, backward),
    )  # fmt: skip


def feedforward(shape: RowsShape, setting: Setting, backward: bool) -> Contest:
    """geglu, beside linear, gelu and the product of the halves."""
    rows, C, E = shape.M, shape.C, 4 * shape.C
    weight = (setting.randn(2 * E, C) / C**0.5).requires_grad_(backward)
    bias = setting.randn(2 * E).requires_grad_(backward)
    xs = [setting.randn(rows, C).requires_grad_(backward) for _ in range(sets_for(setting.dtype.itemsize * rows * (C + E)))]
    grad_out = setting.randn(rows, E)

    def eager(x, weight=weight, bias=bias):
        a, b = F.linear(x, weight, bias).chunk(2, -1)
        return a * F.gelu(b)

    with torch.no_grad():
        expected = eager(xs[0][:64].float(), weight.float(), bias.float())
    calls = {
        name: lambda x, backend=backend: geglu(x, weight, bias, backend=backend) for name, backend in setting.backends.items()
    }
    calls |= {"eager": eager, COMPILED: torch.compile(eager)}
    return Contest(
        f"geglu {label(shape)} {direction(backward)}", "geglu", backward,
        {name: with_gradients(call, xs, [weight, bias], grad_out, backward) for name, call in calls.items()}, len(xs),
        lambda rival, result: relative_error(result[0][:64], expected), work(GegluCall("geglu", xs[0], weight, bias), backward),
    )  # fmt: skip


def norm(shape: ConvShape, setting: Setting, backward: bool) -> Contest:
    """Group norm of each frame and SiLU."""
    B, T, C = shape.B, shape.T, shape.Ci
    weight, bias = (setting.randn(C).requires_grad_(backward) for _ in range(2))
    size = B, T, shape.H, shape.W, C
    sets = sets_for(2 * setting.dtype.itemsize * math.prod(size))
    xs = [setting.randn(*size).movedim(-1, 1).requires_grad_(backward) for _ in range(sets)]
    grad_out = setting.randn(*size).movedim(-1, 1)
    given = Norm("group", weight, bias, groups=GROUPS)

    def eager(x, weight=weight, bias=bias):
        frames = x.transpose(1, 2).flatten(0, 1)
        return F.silu(F.group_norm(frames, GROUPS, weight, bias)).unflatten(0, x.shape[:1] + x.shape[2:3]).transpose(1, 2)

    with torch.no_grad():
        expected = eager(xs[0][:1].float(), weight.float(), bias.float())
    calls = {name: lambda x, backend=backend: norm_act(x, given, act="silu", backend=backend)
             for name, backend in setting.backends.items()}  # fmt: skip
    calls |= {"eager": eager, COMPILED: torch.compile(eager)}
    return Contest(
        f"norm_act {label(shape)} {direction(backward)}", "norm_act", backward,
        {name: with_gradients(call, xs, [weight, bias], grad_out, backward) for name, call in calls.items()}, sets,
        lambda rival, result: relative_error(result[0][:1], expected), work(NormCall("norm_act", xs[0], given, "silu"), backward),
    )  # fmt: skip


def statistics(shape: ConvShape, setting: Setting) -> Contest:
    """channel_stats: the mean and variance of each channel of each frame."""
    size = shape.B, shape.T, shape.H, shape.W, shape.Ci
    xs = [setting.randn(*size) for _ in range(sets_for(setting.dtype.itemsize * math.prod(size)))]
    expected = torch.stack(torch.var_mean(xs[0].double(), (2, 3), correction=0)[::-1], -1)

    def ours(backend):
        return lambda i: channel_stats(xs[i].movedim(-1, 1), backend=backend)

    rivals = {name: ours(backend) for name, backend in setting.backends.items()}
    rivals["torch.var_mean"] = lambda i: torch.stack(torch.var_mean(xs[i].float(), (2, 3), correction=0)[::-1], -1)
    return Contest(
        f"channel_stats {label(shape)} fwd", "channel_stats", False, rivals, len(xs),
        lambda rival, result: relative_error(result, expected), work(StatsCall("channel_stats", xs[0])),
    )  # fmt: skip
