"""What the `TemporalAttention` module adds to the peak of resident memory, each call in a process of its own."""

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import torch

import vdiff_kernels as vdiff
from vdiff_kernels.bench.counting import resident
from vdiff_kernels.bench.presets import CPU_LAYERS, LayerShape

ALLOWED = 8 << 20  # bytes beside the output, forward
SHARE = 0.5  # of eager autograd's peak, training


def _growth(shape: LayerShape, backend: str, training: bool, queue) -> None:
    """Bytes that the peak grows by in one call, after a small one has brought in code and what threads keep."""
    B, T, H, W, C, N = vars(shape).values()
    module = vdiff.nn.TemporalAttention(C, N, T, position="offset", backend=backend)
    x = torch.randn(B, T, H, W, C, requires_grad=training)
    grad_out = torch.randn_like(x)

    def call(x, grad_out):
        if training:
            return torch.autograd.grad(module(x), [x, *module.parameters()], grad_out)
        with torch.no_grad():
            return module(x)

    call(x[:, :, :2].detach().requires_grad_(training), grad_out[:, :, :2])
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    kept = call(x, grad_out)
    queue.put(resident("VmHWM") - before)
    del kept


def growth(*arguments) -> int:
    context = multiprocessing.get_context("spawn")  # a forked process would begin at its parent's peak
    queue = context.SimpleQueue()
    process = context.Process(target=_growth, args=(*arguments, queue))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"the measured process ended with exit code {process.exitcode}")
    return queue.get()


@dataclass(frozen=True)
class Memory:
    shape: LayerShape
    training: bool

    @property
    def label(self) -> str:
        sizes = " ".join(f"{letter}{getattr(self.shape, letter)}" for letter in "HWCN")
        return f"memory, TemporalAttention {'fwd+bwd' if self.training else 'fwd'} {sizes}"

    def measure(self) -> "MemoryRow":
        ours, eager = (growth(self.shape, backend, self.training) for backend in ("cpu", "reference"))
        return MemoryRow(self, ours, eager)


@dataclass(frozen=True)
class MemoryRow:
    case: Memory
    ours: int
    eager: int

    def text(self, machine) -> str:
        shape = self.case.shape
        output = shape.B * shape.T * shape.H * shape.W * shape.C * 4
        if self.case.training:
            met, target = self.ours <= SHARE * self.eager, f"{SHARE:g} of eager's"
        else:
            met, target = self.ours <= output + ALLOWED, f"the output and {ALLOWED >> 20} MiB"
        cells = [
            f"{self.case.label:46}", f"{self.ours / 2**20:.1f} MiB ({'met' if met else 'missed'} {target})",
            f"the output {output / 2**20:.1f} MiB", f"eager {self.eager / 2**20:.1f} MiB",
        ]  # fmt: skip
        return " | ".join(cells)


def cases() -> list[Memory]:
    return [Memory(shape, training) for training in (False, True) for shape in CPU_LAYERS]
