"""What the `TemporalAttention` module adds to the peak of resident memory, each call in a process of its own."""

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import torch

import vdiff_kernels as vdiff

from .attention import SHAPES
from .module import FRAMES

ALLOWED = 8 << 20  # bytes beside the output, forward
SHARE = 0.5  # of eager autograd's peak, training


def _growth(shape: tuple[int, ...], backend: str, training: bool, queue) -> None:
    """Bytes that the peak grows by in one call, after a small one has brought in code and what threads keep."""
    H, W, C, N = shape
    module = vdiff.nn.TemporalAttention(C, N, FRAMES, position="offset", backend=backend)
    x = torch.randn(1, FRAMES, H, W, C, requires_grad=training)
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


def resident(name: str = "VmRSS") -> int:
    """Memory of this process, in bytes: "VmRSS" now, "VmHWM" at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


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
    shape: tuple[int, int, int, int]
    training: bool

    @property
    def label(self) -> str:
        H, W, C, N = self.shape
        return f"memory, TemporalAttention {'fwd+bwd' if self.training else 'fwd'} H{H} W{W} C{C} N{N}"

    def measure(self) -> "MemoryRow":
        ours, eager = (growth(self.shape, backend, self.training) for backend in ("cpu", "reference"))
        return MemoryRow(self, ours, eager)


@dataclass(frozen=True)
class MemoryRow:
    case: Memory
    ours: int
    eager: int

    def text(self, machine) -> str:
        H, W, C, _ = self.case.shape
        output = FRAMES * H * W * C * 4
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
    return [Memory(shape, training) for training in (False, True) for shape in SHAPES]
