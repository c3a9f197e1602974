"""What is counted rather than timed: the bytes that PyTorch moves for a call, and the memory of this process."""

from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


class BytesMoved(TorchDispatchMode):
    """Counts what each operator reads and writes once; views move nothing, and what is expanded is read where it lies."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        outputs = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        if not function.is_view and function is not aten._unsafe_view.default:
            self.bytes += sum(_bytes(t) for t in [*inputs, *outputs])
        return result


def _bytes(tensor: Tensor) -> int:
    distinct = 1
    for size, stride in zip(tensor.shape, tensor.stride()):
        distinct *= 1 if stride == 0 else size
    return distinct * tensor.element_size()


def bytes_of(call, *arguments: Tensor, backward: bool) -> int:
    """The bytes that PyTorch moves in call(*arguments), or in its backward alone, counted operator by operator on meta tensors:
    nothing is computed.
    """
    meta = [t.to("meta").requires_grad_(backward and t.is_floating_point()) for t in arguments]
    counter = BytesMoved()
    if not backward:
        with torch.no_grad(), counter:
            call(*meta)
        return counter.bytes
    out = call(*meta)
    grad_out = torch.empty_like(out)
    with counter:
        torch.autograd.grad(out, meta, grad_out)
    return counter.bytes


def resident(name: str = "VmRSS") -> int:
    """Memory of this process, in bytes: "VmRSS" now, "VmHWM" at the peak. Reads Linux's /proc."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def free_memory(device: torch.device) -> int | None:
    """Bytes that may still be allocated there. None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def require_memory(needed: float, device: torch.device) -> None:
    """Raises MemoryError for a call that would take more than there is: a CPU's system would end the process, without a word."""
    free = free_memory(device)
    if free is not None and needed > 0.9 * free:
        raise MemoryError(f"it takes {needed / 2**30:.0f} GiB; {free / 2**30:.0f} are free")
