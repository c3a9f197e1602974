"""[norm, activation, convolution] in one, beside the bare convolution in its best layout and the same in plain PyTorch."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import vdiff_kernels as vdiff
from vdiff_kernels.bench.presets import CPU_CONVS, UNET_CONVS, ConvShape
from vdiff_kernels.bench.rooflines import work
from vdiff_kernels.bench.rows import Row
from vdiff_kernels.bench.timing import interleaved
from vdiff_kernels.ops.conv.call import ConvCall


def last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


def bare_layouts(x: Tensor, weight: Tensor) -> dict:
    """The convolution alone, its input in every layout that PyTorch may like: name -> call."""
    B, C, T, H, W = x.shape
    spatial = weight.shape[2] == 1
    padding = (0, 1, 1) if spatial else (1, 0, 0)
    x, weight = x.contiguous(), weight.contiguous()
    x_last, weight_last = last(x), last(weight)
    calls = {
        "conv3d": lambda: F.conv3d(x, weight, padding=padding),
        "conv3d last": lambda: F.conv3d(x_last, weight_last, padding=padding),
    }
    if spatial:
        frames, taps = x.transpose(1, 2).flatten(0, 1).contiguous(), weight[:, :, 0]
        frames_last, taps_last = last(frames), last(taps)
        calls["conv2d"] = lambda: F.conv2d(frames, taps, padding=1)
        calls["conv2d last"] = lambda: F.conv2d(frames_last, taps_last, padding=1)
    else:
        plane, taps = x.flatten(3), weight[..., 0]
        plane_last, taps_last = last(plane), last(taps)
        rows = x.permute(0, 3, 4, 1, 2).flatten(0, 2).contiguous()
        calls["conv2d"] = lambda: F.conv2d(plane, taps, padding=(1, 0))
        calls["conv2d last"] = lambda: F.conv2d(plane_last, taps_last, padding=(1, 0))
        calls["conv1d"] = lambda: F.conv1d(rows, weight[..., 0, 0], padding=1)
    return calls


def bare(x: Tensor, weight: Tensor):
    calls = bare_layouts(x.detach(), weight.detach())
    times = interleaved(calls, rounds=3)
    return calls[min(times, key=lambda name: times[name].seconds)]


@dataclass(frozen=True)
class Conv:
    """GN and SiLU, a convolution with temb, a residual; statistics of the output too. backward: forward and every gradient."""

    kind: str  # "1x3x3" or "3x1x1"
    shape: ConvShape
    backward: bool
    faster: dict
    groups: int = 32

    @property
    def label(self) -> str:
        what, shape = "fwd+bwd" if self.backward else "fwd", self.shape
        return f"{self.kind} {what} f32 B{shape.B} T{shape.T} H{shape.H} W{shape.W} {shape.Ci} to {shape.Co}"

    def measure(self) -> Row:
        B, T, H, W, Ci, Co = vars(self.shape).values()
        taps = (1, 3, 3) if self.kind == "1x3x3" else (3, 1, 1)
        x, residual = last(torch.randn(B, Ci, T, H, W)), last(torch.randn(B, Co, T, H, W))
        grad_out = last(torch.randn_like(residual))
        weight = torch.randn(Co, Ci, *taps) / (3 * Ci) ** 0.5
        bias, temb = torch.randn(Co), torch.randn(B, T, Co)
        gain, offset = torch.randn(Ci), torch.randn(Ci)
        leaves = [x, weight, bias, temb, residual, gain, offset]
        for leaf in leaves:
            leaf.requires_grad_(self.backward)
        norm = vdiff.Norm("group", gain, offset, groups=self.groups)
        padding = tuple(size // 2 for size in taps)

        def ours():
            arguments = dict(norm=norm, act="silu", temb=temb, residual=residual, return_stats=True)
            return vdiff.norm_act_conv(x, weight, bias, **arguments, backend="cpu")[0]

        def eager():
            frames = x.transpose(1, 2).flatten(0, 1)
            h = F.silu(F.group_norm(frames, self.groups, gain, offset)).unflatten(0, (B, T)).transpose(1, 2)
            return F.conv3d(h, weight, bias, padding=padding) + temb.movedim(-1, 1)[..., None, None] + residual

        def with_gradients(call):
            return lambda: torch.autograd.grad(call(), leaves, grad_out)

        calls = {"ours": ours, "eager": eager}
        if self.backward:
            calls = {name: with_gradients(call) for name, call in calls.items()}
        else:
            calls["bare"] = bare(x, weight)
        counted = work(ConvCall("norm_act_conv", x, weight, bias, norm, "silu", temb, residual), self.backward)
        return Row(self.label, interleaved(calls), "ours", counted, self.faster)


def cases() -> list[Conv]:
    kinds = ("1x3x3", "3x1x1")
    wide = [Conv(kind, shape, False, {"bare": 1.3}) for kind in kinds for shape in CPU_CONVS]
    own = [
        Conv(kind, shape, backward, {"eager": 1.4}, groups=8)
        for kind in kinds for backward in (False, True) for shape in UNET_CONVS if kind == "1x3x3" or shape.Ci == shape.Co
    ]  # fmt: skip
    return [*wide, *own]
