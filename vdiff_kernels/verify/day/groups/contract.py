"""What the operators promise beside their numbers: graphs, streams, the same bits, any number of sequences, torch.compile."""

import torch

from ....bench.contest import relative_error
from ....ops.attention.api import spatial_attention, temporal_attention
from ...check import evaluate, functions, make_leaves
from ...inputs import SpatialCase, TemporalCase
from ..rows import Day

CLOSE = 0.02  # relative error of bfloat16 beside float32


def run(day: Day) -> None:
    if day.device.type == "cuda":
        day.attempt("graph captured cold", lambda: captured(day, T=8, warm=False))  # before anything has loaded a kernel
        day.attempt("graph captured warm", lambda: captured(day, T=16, warm=True))
        day.attempt("side stream", lambda: on_a_side_stream(day))
    for case in (
        TemporalCase("short", B=2, T=16, H=16, W=16, N=4, D=40, bias="rel"),
        TemporalCase("short-dense", B=2, T=25, H=9, W=16, N=5, D=64, bias="dense"),
        SpatialCase("long", B=1, T=3, H=16, W=16, N=4, D=64, bias="rel"),
        SpatialCase("shared-context", B=2, T=16, H=8, W=8, N=4, D=64, context="shared", S=77, bias="dense"),
    ):
        day.attempt(f"ten runs bit-equal: {case}", lambda: bit_equal(day, case))
    on_gpu = day.device.type == "cuda"
    for sequences in (65_535, 65_536, 92_160, 131_072, 5_000_000) if on_gpu else (65_535, 65_536, 131_072):
        day.attempt(f"{sequences} sequences", lambda: many_sequences(day, sequences))
    if on_gpu:
        day.attempt("offsets past 2^31: temporal", lambda: far_temporal(day))
        day.attempt("offsets past 2^31: spatial", lambda: far_spatial(day))
    day.attempt("torch.compile(fullgraph=True)", lambda: compiled(day))


def rows_of(day: Day, T: int, pixels: int, N: int, D: int, count: int = 3) -> list[torch.Tensor]:
    return [day.randn(1, T, 1, pixels, N, D) for _ in range(count)]


def attend(day: Day, *rows, **arguments):
    return temporal_attention(*rows, backend=day.backend, **arguments)


def by_definition(*rows, **arguments):
    return temporal_attention(*(t.float() for t in rows), backend="reference", **arguments)


def compared(actual: torch.Tensor, expected: torch.Tensor, **values) -> dict:
    error = relative_error(actual, expected)
    return {"passed": error < CLOSE, "relative_error": error, **values}


def captured(day: Day, T: int, warm: bool) -> dict:
    """Replays a graph on new inputs. Cold: the kernel variant is loaded while the graph is captured."""
    rows = rows_of(day, T, 300, 3, 64)
    if warm:
        attend(day, *rows)
    day.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = attend(day, *rows)
    for t in rows:
        t.copy_(day.randn(*t.shape))
    graph.replay()
    return compared(out, by_definition(*rows))


def on_a_side_stream(day: Day) -> dict:
    """The inputs are made on that stream behind work that takes its time: a kernel on another one would read what was there."""
    rows = rows_of(day, 16, 3000, 4, 64)
    news = [day.randn(*t.shape) for t in rows]
    load = day.randn(4096, 4096)
    day.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(20):
            load = load @ load * 1e-2
        for t, new in zip(rows, news):
            t.copy_(new)
        leaves = [t.requires_grad_() for t in rows]
        out = attend(day, *leaves)
        gradients = torch.autograd.grad(out.float().square().sum(), leaves)
    stream.synchronize()
    wide = [t.float().requires_grad_() for t in news]
    expected = by_definition(*wide)
    wanted = torch.autograd.grad(expected.square().sum(), wide)
    return compared(out, expected, gradient_errors=[relative_error(a, b) for a, b in zip(gradients, wanted)])


def bit_equal(day: Day, case) -> dict:
    leaves = {name: t.to(day.device) for name, t in make_leaves(case, torch.bfloat16).items()}
    first, *others = (
        evaluate(case, functions(case)[0], leaves, torch.bfloat16, backend=day.backend) for _ in range(3 if day.quick else 10)
    )
    differ = sorted({name for other in others for name, t in first.items() if not torch.equal(t, other[name])})
    return {"passed": not differ, "detail": f"differ: {', '.join(differ)}" if differ else f"{len(first)} results"}


def many_sequences(day: Day, sequences: int) -> dict:
    """The last ones beside the definition; with a bias gradient, which is summed over all of them."""
    rows = rows_of(day, 3, sequences, 1, 8)
    table = torch.randn(1, 5, device=day.device)
    leaves = [t.requires_grad_() for t in (*rows, table)]
    out = attend(day, *rows, rel_bias=table)
    grad_out = day.randn(*out.shape)
    *gradients, of_table = torch.autograd.grad(out, leaves, grad_out)
    last = [t.detach()[:, :, :, -64:].float().requires_grad_() for t in rows]
    expected = by_definition(*last, rel_bias=table.detach())
    wanted = torch.autograd.grad(expected, last, grad_out[:, :, :, -64:].float())
    errors = [relative_error(g[:, :, :, -64:], w) for g, w in zip(gradients, wanted)]
    (of_all,) = torch.autograd.grad(by_definition(*(t.detach() for t in rows), rel_bias=table), table, grad_out.float())
    errors.append(relative_error(of_table, of_all))
    error = relative_error(out[:, :, :, -64:], expected)
    return {"passed": max(error, *errors) < CLOSE, "relative_error": error, "gradient_errors": errors}


def far_temporal(day: Day) -> dict:
    qkv = torch.empty(1, 16, 88_000, 1, 3, 8, 64, device=day.device, dtype=torch.bfloat16).normal_()
    assert qkv.numel() > 2**31
    out = attend(day, *qkv.unbind(4))
    return compared(out[:, :, -8:], by_definition(*qkv[:, :, -8:].unbind(4)), elements=qkv.numel())


def far_spatial(day: Day) -> dict:
    qkv = torch.empty(1, 70_400, 5, 8, 3, 2, 128, device=day.device, dtype=torch.bfloat16).normal_()
    assert qkv.numel() > 2**31
    out = spatial_attention(*qkv.unbind(4), backend=day.backend)
    expected = spatial_attention(*(t.float() for t in qkv[:, -8:].unbind(4)), backend="reference")
    return compared(out[:, -8:], expected, elements=qkv.numel())


def compiled(day: Day) -> dict:
    rows = rows_of(day, 16, 60, 2, 64)
    call = torch.compile(lambda *t: attend(day, *t) + 1, fullgraph=True)
    return compared(call(*rows), by_definition(*rows) + 1)
