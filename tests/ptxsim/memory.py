"""Device memory made of torch tensors: poisoned outputs that know which of their bytes have been written, and structs."""

import struct
import weakref

import torch

_written: dict[int, torch.Tensor] = {}  # storage address to a byte for each of its bytes


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor of NaN (all bits one) of which no byte counts as written until a kernel writes it: reading one is a finding."""
    tensor = torch.empty(*shape, dtype=dtype)
    storage = tensor.untyped_storage()
    storage.fill_(0xFF)
    address = storage.data_ptr()
    _written[address] = torch.zeros(max(1, storage.nbytes()), dtype=torch.uint8)
    weakref.finalize(storage, _written.pop, address, None)
    return tensor


def unwritten(tensor: torch.Tensor) -> int:
    """How many bytes of an `empty` tensor no kernel has written."""
    return int((_written[tensor.untyped_storage().data_ptr()][: tensor.untyped_storage().nbytes()] == 0).sum())


class Snapshot:
    """The bytes of a tensor's storage, and which of them had been written."""

    def __init__(self, tensor: torch.Tensor):
        self.storage = tensor.untyped_storage()
        self.bytes = self.storage.clone()
        written = _written.get(self.storage.data_ptr())
        self.written = None if written is None else written.clone()

    def restore(self) -> None:
        self.storage.copy_(self.bytes)
        if self.written is not None:
            _written[self.storage.data_ptr()].copy_(self.written)

    def same_bits(self, other: "Snapshot") -> bool:
        ours, theirs = (torch.empty(0, dtype=torch.uint8).set_(one.bytes) for one in (self, other))
        return torch.equal(ours, theirs)


def region_of(tensor: torch.Tensor, name: str) -> tuple[int, int, int, int, int, str]:
    """(base, bytes, element bytes, read only, address of the written bytes, name) of what the tensor's view spans."""
    if tensor.device.type != "cpu":
        raise ValueError(f"{name} is on {tensor.device}; expected a CPU tensor")
    size = tensor.element_size()
    span = 0 if tensor.numel() == 0 else 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride()))
    storage = tensor.untyped_storage()
    written = _written.get(storage.data_ptr())
    offset = tensor.data_ptr() - storage.data_ptr() if tensor.numel() else 0
    where = 0 if written is None else written.data_ptr() + offset
    return (
        tensor.data_ptr(),
        span * size,
        size,
        0,
        where,
        f"{name} {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}",
    )


class Struct:
    """A struct passed by value: struct.pack's format ("<QQiif", with padding as C has it), tensors for its pointers ("Q")."""

    def __init__(self, format: str, *values):
        self.tensors = [(place, value) for place, value in enumerate(values) if isinstance(value, torch.Tensor)]
        self.data = struct.pack(format, *(value.data_ptr() if isinstance(value, torch.Tensor) else value for value in values))
