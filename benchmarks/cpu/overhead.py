"""What calls cost on inputs that are next to nothing, by one thread, beside the dispatch of an operator that does nothing."""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import vdiff_kernels as vdiff
from vdiff_kernels.bench.timing import Time, interleaved

ALLOWED = 15e-6  # s. More than the empty operator, without gradients.
ROUNDS = 51


def cases() -> list["Overhead"]:
    operators = [Overhead(f"call overhead, {words}", functools.partial(public, backward), None if backward else ALLOWED)
                 for backward, words in ((False, "no gradients"), (True, "fwd+bwd"))]  # fmt: skip
    return [*operators, Overhead("autograd rule around an empty kernel", rules)]


@dataclass(frozen=True)
class Overhead:
    """calls: makes what is timed, by name, the operator that does nothing first. allowed: s more than that."""

    label: str
    calls: Callable[[], dict[str, Callable]]
    allowed: float | None = None

    def measure(self) -> "OverheadRow":
        with one_thread():
            return OverheadRow(self, interleaved(self.calls(), rounds=ROUNDS))


@dataclass(frozen=True)
class OverheadRow:
    case: Overhead
    times: dict[str, Time]

    def text(self, machine) -> str:
        (first, empty), *others = ((name, time.seconds) for name, time in self.times.items())
        cells = [f"{self.case.label:46}", f"{first} {empty * 1e6:.1f} us"]
        for name, seconds in others:
            more, allowed = seconds - empty, self.case.allowed
            verdict = "" if allowed is None else f" ({'met' if more <= allowed else 'missed'} {allowed * 1e6:g})"
            cells.append(f"{name} {more * 1e6:+.1f} us{verdict}")
        return " | ".join(cells)


@contextlib.contextmanager
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def public(backward: bool) -> dict[str, Callable]:
    """The public operators. backward: with the gradients of every tensor."""

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape).requires_grad_(backward)

    q, table = randn(1, 4, 1, 1, 1, 8), randn(1, 7)
    x, qkv_weight, out_weight = randn(1, 4, 1, 1, 8), randn(24, 8), randn(8, 8)
    clip = torch.randn(1, 8, 2, 2, 2).contiguous(memory_format=torch.channels_last_3d).requires_grad_(backward)
    taps, gain, offset, gate_weight = randn(8, 8, 1, 3, 3), randn(8), randn(8), randn(16, 8)
    norm = vdiff.Norm("group", gain, offset, groups=4)
    calls = {
        "temporal_attention": (lambda: vdiff.temporal_attention(q, q, q, rel_bias=table), [q, table]),
        "temporal_layer": (
            lambda: vdiff.temporal_layer(x, qkv_weight, None, out_weight, None, num_heads=1, rel_bias=table),
            [x, qkv_weight, out_weight, table],
        ),
        "norm_act_conv": (lambda: vdiff.norm_act_conv(clip, taps, norm=norm, act="silu"), [clip, taps, gain, offset]),
        "geglu": (lambda: vdiff.geglu(x, gate_weight, None), [x, gate_weight]),
        "norm_act": (lambda: vdiff.norm_act(clip, norm, act="silu"), [clip, gain, offset]),
    }
    bare, _ = empty("plain")
    plain = {"empty operator": lambda: bare(*3 * [q.detach()], table.detach(), 1.0)}
    if not backward:
        return plain | {name: torch.no_grad()(call) for name, (call, _) in calls.items()}

    def with_gradients(call, leaves):
        grad_out = torch.randn_like(call())
        return lambda: torch.autograd.grad(call(), leaves, grad_out)

    return plain | {name: with_gradients(call, leaves) for name, (call, leaves) in calls.items()}


def rules() -> dict[str, Callable]:
    """`register_autograd` on an operator, against an autograd.Function around it: both wrap kernels that only allocate, so their
    differences are the wrapping. ops/autograd.py is the second.
    """
    bare, bare_backward = empty("plain")
    registered = registered_empty()

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k, v, bias, scale):
            out, lse = bare(q, k, v, bias, scale)
            ctx.save_for_backward(q, k, v, lse)
            return out

        @staticmethod
        def backward(ctx, grad):
            return *bare_backward(grad, *ctx.saved_tensors), None, None

    rows = [torch.randn(1, 4, 1, 1, 1, 8) for _ in range(3)]
    needs = [t.clone().requires_grad_() for t in rows]

    def gradients(out):
        return torch.autograd.grad(out, needs, rows[0])

    return {
        "empty operator": lambda: bare(*rows, None, 1.0),
        "no grad needed: register_autograd": lambda: registered(*rows, None, 1.0),
        "no grad needed: autograd.Function": lambda: Function.apply(*rows, None, 1.0),
        "fwd: register_autograd": lambda: registered(*needs, None, 1.0),
        "fwd: autograd.Function": lambda: Function.apply(*needs, None, 1.0),
        "fwd+bwd: register_autograd": lambda: gradients(registered(*needs, None, 1.0)[0]),
        "fwd+bwd: autograd.Function": lambda: gradients(Function.apply(*needs, None, 1.0)),
    }


@functools.cache
def library() -> torch.library.Library:
    """Its operators are there for as long as this is."""
    return torch.library.Library("vdiff_overhead", "DEF")


@functools.cache
def empty(name: str):
    """vdiff_overhead::name and its backward, as temporal_attention's schema in small."""
    library().define(f"{name}(Tensor q, Tensor k, Tensor v, Tensor? bias, float scale) -> (Tensor, Tensor)")
    library().define(f"{name}_backward(Tensor g, Tensor q, Tensor k, Tensor v, Tensor lse) -> (Tensor, Tensor, Tensor)")
    library().impl(name, lambda q, k, v, bias, scale: (torch.empty_like(q), q.new_empty(1)), "CPU")
    library().impl(f"{name}_backward", lambda g, q, k, v, lse: tuple(torch.empty_like(q) for _ in range(3)), "CPU")
    operators = torch.ops.vdiff_overhead
    return getattr(operators, name).default, getattr(operators, f"{name}_backward").default


@functools.cache
def registered_empty():
    """The same with an autograd rule registered on it."""
    forward, backward = empty("registered")

    def save(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:3], output[1])

    def differentiate(ctx, grad, _):
        return *backward(grad, *ctx.saved_tensors), None, None

    torch.library.register_autograd("vdiff_overhead::registered", differentiate, setup_context=save, lib=library())
    return forward
