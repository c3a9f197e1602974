"""The calls that the static tables measure: their floors, what PyTorch does with the same tensors, and CUDA's kernels."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.ops.attention import simulated as attention_kernels
from tests.ops.conv import simulated as conv_kernels
from tests.ops.feedforward import simulated as feedforward_kernels
from tests.ops.linear import simulated as linear_kernels
from tests.ops.norm import simulated as norm_kernels
from vdiff_kernels.bench.rivals import Frames, Pixels, eager, efficient
from vdiff_kernels.bench.rooflines import work
from vdiff_kernels.ops.attention.call import AttentionCall, AttentionOptions, LayerCall
from vdiff_kernels.ops.call import Call
from vdiff_kernels.ops.conv.call import ConvCall
from vdiff_kernels.ops.feedforward.call import GegluCall
from vdiff_kernels.ops.linear.call import LinearCall
from vdiff_kernels.ops.norm.call import Norm, NormCall, StatsCall
from vdiff_kernels.ops.schema import Kernels

# Those whose CUDA kernels there are, simulated.
FAMILIES = (attention_kernels, norm_kernels, conv_kernels, linear_kernels, feedforward_kernels)


def simulated(run) -> dict[str, Kernels]:
    """The CUDA kernels of each operator that has any."""
    return {operator: kernels for family in FAMILIES for operator, kernels in family.kernels_of(run).items()}


@dataclass(frozen=True)
class Subject:
    """A call of a public operator, as small as its ratios allow, and what its rivals do with the same tensors."""

    call: Call
    eager: Callable[..., Tensor]
    given: tuple[Tensor, ...]  # to eager
    fused: Callable[..., Tensor] | None = None  # PyTorch's SDPA, where it computes the same

    def work(self, direction: str) -> tuple[float, float]:
        """(bytes, flops) of the direction alone: each operand read once, a table of a bias, too, and each result written once."""
        alone, both = work(self.call), work(self.call, True)
        table = self.call.options.table if isinstance(self.call, AttentionCall) else None
        tables = 0 if table is None else table.nbytes
        if direction == "forward":
            return alone.bytes + tables, alone.flops
        return both.bytes - alone.bytes + 2 * tables, both.flops - alone.flops

    def serve(self, kernels: Kernels, direction: str, forward_is_done: Callable[[], None], call: Call | None = None) -> None:
        """Runs the kernels forward, and backward if that is the direction. call: with other tensors, if not the subject's own."""
        call = call or self.call.ready()
        out, saved = kernels.forward(call, direction == "backward")
        if direction == "backward":
            grad_out, needs = torch.ones_like(out), [t is not None and t.is_floating_point() for t in call.tensors()]
            forward_is_done()
            kernels.backward(call, saved, grad_out, needs)


def directions(kernels: Kernels) -> tuple[str, ...]:
    return ("forward", "backward") if kernels.backward else ("forward",)


def attention(kind: str, T: int, H: int, W: int, N: int, D: int, bias: str | None = None, context: int = 0):
    """bias: "rel" or "dense". context: that many keys, shared by the frames."""

    def subject(dtype):
        q = torch.randn(1, T, H, W, N, D).to(dtype)
        k, v = (torch.randn((1, context, N, D) if context else q.shape).to(dtype) for _ in range(2))
        L, relative = (T, (2 * T - 1,)) if kind == "temporal" else (H * W, (2 * H - 1, 2 * W - 1))
        tables = torch.randn(N, L, L) if bias == "dense" else None, torch.randn(N, *relative) if bias == "rel" else None
        call = AttentionCall(f"{kind}_attention", q, k, v, AttentionOptions(*tables))
        if context:
            k, v = (t[:, None].expand(-1, T, -1, -1, -1) for t in (k, v))
        layout = Frames if kind == "temporal" else Pixels
        given = (q, k, v, torch.empty(N, L, L)) if bias else (q, k, v)  # rivals know dense tables alone
        return Subject(call, eager(layout), given, efficient(layout))

    return subject


def temporal_layer(T: int, size: int, C: int, N: int):
    """As in a block of attention: a layer norm, the projections, the sum."""

    def subject(dtype):
        x = image(dtype, T, size, C).movedim(1, -1)
        weights = [torch.randn(*shape).to(dtype) for shape in ((3 * C, C), (3 * C,), (C, C), (C,))]
        given = Norm("layer", torch.rand(C), torch.rand(C))
        call = LayerCall("temporal_layer", x, *weights, N, given, None, None, x, AttentionOptions())

        def by_pytorch(x, w_qkv, b_qkv, w_out, b_out, norm_weight, norm_bias):
            h = F.layer_norm(x, (C,), norm_weight, norm_bias)
            q, k, v = F.linear(h, w_qkv, b_qkv).unflatten(-1, (3, N, C // N)).unbind(4)
            return x + F.linear(eager(Frames)(q, k, v).flatten(-2), w_out, b_out)

        return Subject(call, by_pytorch, (x, *weights, given.weight.to(dtype), given.bias.to(dtype)))

    return subject


def image(dtype, T: int, size: int, C: int) -> Tensor:
    return torch.randn(1, T, size, size, C).to(dtype).movedim(-1, 1)


def group_norm(C: int, scope: str = "frame") -> Norm:
    return Norm("group", torch.rand(C), torch.rand(C), groups=32, scope=scope)


def frames(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(0, 1)


def statistics(T: int, size: int, C: int):
    def by_pytorch(x):
        return torch.stack(torch.var_mean(x.float(), (3, 4), correction=0), -1)

    def subject(dtype):
        x = image(dtype, T, size, C)
        return Subject(StatsCall("channel_stats", x), by_pytorch, (x,))

    return subject


def norm(T: int, size: int, C: int, kind: str = "group", scope: str = "frame"):
    def subject(dtype):
        x = image(dtype, T, size, C)
        weight, bias = (torch.rand(C).to(dtype) for _ in range(2))
        given = group_norm(C, scope) if kind == "group" else Norm(kind, torch.rand(C), torch.rand(C))

        def by_pytorch(x, weight, bias):
            if kind == "group":
                return F.silu(F.group_norm(frames(x) if scope == "frame" else x, 32, weight, bias))
            return F.silu(F.layer_norm(x.movedim(1, -1), (C,), weight, bias))

        return Subject(NormCall("norm_act", x, given, "silu"), by_pytorch, (x, weight, bias))

    return subject


def conv(T: int, size: int, C: int, *taps: int):
    """As in a residual block: with its norm, the time's embedding and the sum."""

    def subject(dtype):
        x, residual = image(dtype, T, size, C), image(dtype, T, size, C)
        weight, bias = torch.randn(C, C, *taps).to(dtype), torch.randn(C).to(dtype)
        given, temb = group_norm(C), torch.randn(1, T, C).to(dtype)
        call = ConvCall("norm_act_conv", x, weight, bias, given, "silu", temb, residual)
        parameters = given.weight.to(dtype), given.bias.to(dtype)

        def by_pytorch(x, weight, bias, temb, residual, norm_weight, norm_bias):
            h = F.silu(F.group_norm(frames(x), 32, norm_weight, norm_bias)).unflatten(0, (1, T)).transpose(1, 2)
            h = F.conv3d(h, weight, bias, padding=tuple(tap // 2 for tap in taps))
            return residual + (h + temb.transpose(1, 2)[..., None, None])

        return Subject(call, by_pytorch, (x, weight, bias, temb, residual, *parameters))

    return subject


def linear(T: int, size: int, C: int, Co: int):
    """As before an attention: a layer norm and a product."""

    def subject(dtype):
        x, weight = image(dtype, T, size, C).movedim(1, -1), torch.randn(Co, C).to(dtype)
        given = Norm("layer", torch.rand(C), torch.rand(C))
        parameters = given.weight.to(dtype), given.bias.to(dtype)

        def by_pytorch(x, weight, *parameters):
            return F.linear(F.layer_norm(x, (C,), *parameters), weight)

        return Subject(LinearCall("norm_linear", x, weight, None, given), by_pytorch, (x, weight, *parameters))

    return subject


def geglu(M: int, C: int):
    def by_pytorch(x, weight, bias):
        a, b = F.linear(x, weight, bias).chunk(2, -1)
        return a * F.gelu(b)

    def subject(dtype):
        given = torch.randn(M, C).to(dtype), torch.randn(8 * C, C).to(dtype), torch.randn(8 * C).to(dtype)
        return Subject(GegluCall("geglu", *given), by_pytorch, given)

    return subject


SUBJECTS = {
    "temporal_attention T16 H8 W4 N8 D64, rel bias": attention("temporal", 16, 8, 4, 8, 64, bias="rel"),
    "temporal_attention T16 H8 W4 N8 D40, rel bias": attention("temporal", 16, 8, 4, 8, 40, bias="rel"),
    "temporal_attention T64 H2 W4 N2 D64, rel bias": attention("temporal", 64, 2, 4, 2, 64, bias="rel"),
    "spatial_attention 32x32 N1 D64, rel bias": attention("spatial", 1, 32, 32, 1, 64, bias="rel"),
    "spatial_attention T2 16x16 N2 D64, context of 77": attention("spatial", 2, 16, 16, 2, 64, context=77),
    "temporal_layer T16 8x8 C128 N4": temporal_layer(16, 8, 128, 4),
    "channel_stats T2 32x32 C320": statistics(2, 32, 320),
    "norm_act T2 32x32 C320, group, silu": norm(2, 32, 320),
    "norm_act T2 32x32 C320, layer, silu": norm(2, 32, 320, "layer"),
    "norm_act_conv 1x3x3 T1 16x16 C320": conv(1, 16, 320, 1, 3, 3),
    "norm_act_conv 1x3x3 T1 32x32 C64": conv(1, 32, 64, 1, 3, 3),
    "norm_act_conv 3x1x1 T4 16x16 C320": conv(4, 16, 320, 3, 1, 1),
    "norm_linear T1 32x32 C320 to 960, layer": linear(1, 32, 320, 960),
    "geglu M512 C320 E1280": geglu(512, 320),
}
