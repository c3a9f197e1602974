"""What a differentiable operator call costs beyond its kernel: `register_autograd` against an autograd.Function around it.

Both wrap one Python kernel that only allocates, so the differences between the rows are the wrapping.
Run: python -m benchmarks.call_overhead
"""

import platform
import statistics
import time

import torch

ROUNDS, CALLS = 15, 200


def define(name: str):
    """vdiff_overhead::name and its backward, as temporal_attention's schema in small."""
    library.define(f"{name}(Tensor q, Tensor k, Tensor v, Tensor? bias, float scale) -> (Tensor, Tensor)")
    library.define(f"{name}_backward(Tensor g, Tensor q, Tensor k, Tensor v, Tensor lse) -> (Tensor, Tensor, Tensor)")
    library.impl(name, lambda q, k, v, bias, scale: (torch.empty_like(q), q.new_empty(1)), "CPU")
    library.impl(f"{name}_backward", lambda g, q, k, v, lse: tuple(torch.empty_like(q) for _ in range(3)), "CPU")
    operators = torch.ops.vdiff_overhead
    return getattr(operators, name).default, getattr(operators, f"{name}_backward").default


library = torch.library.Library("vdiff_overhead", "DEF")
plain, plain_backward = define("plain")
registered, registered_backward = define("registered")


def save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3], output[1])


def differentiate(ctx, grad, _):
    return *registered_backward(grad, *ctx.saved_tensors), None, None


torch.library.register_autograd("vdiff_overhead::registered", differentiate, setup_context=save, lib=library)


class Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, bias, scale):
        out, lse = plain(q, k, v, bias, scale)
        ctx.save_for_backward(q, k, v, lse)
        return out

    @staticmethod
    def backward(ctx, grad):
        return *plain_backward(grad, *ctx.saved_tensors), None, None


def microseconds(calls: dict) -> dict[str, float]:
    """Medians over interleaved rounds."""
    rounds = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                call()
            rounds[name].append((time.perf_counter() - start) / CALLS * 1e6)
    return {name: statistics.median(times) for name, times in rounds.items()}


def main():
    q, k, v = (torch.randn(1, 4, 2, 2, 1, 8) for _ in range(3))
    needs = [t.clone().requires_grad_() for t in (q, k, v)]
    arguments = (None, 1.0)
    calls = {
        "bare operator": lambda: plain(q, k, v, *arguments),
        "no grad needed: register_autograd": lambda: registered(q, k, v, *arguments),
        "no grad needed: autograd.Function": lambda: Function.apply(q, k, v, *arguments),
        "forward: register_autograd": lambda: registered(*needs, *arguments),
        "forward: autograd.Function": lambda: Function.apply(*needs, *arguments),
        "forward and backward: register_autograd": lambda: registered(*needs, *arguments)[0].backward(q),
        "forward and backward: autograd.Function": lambda: Function.apply(*needs, *arguments).backward(q),
    }
    microseconds(calls)  # warm
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads; us a call, median of {ROUNDS}")
    for name, time_us in microseconds(calls).items():
        print(f"{name:42} {time_us:7.1f}")


if __name__ == "__main__":
    main()
