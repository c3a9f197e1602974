"""Modules and kernels: from PTX to a launch with torch tensors."""

import ctypes
import json
import os
import re
import struct
import weakref
from pathlib import Path

import torch

from .core_library import core
from .kept import kept
from .lowering import lower
from .memory import Snapshot, Struct, region_of
from .parser import Function, PtxError, parse
from .report import Finding, Report

_former: dict[tuple[int, int], str] = {}  # regions of earlier launches, the last at the end: what a stale pointer points into
_MOST_FORMER = 256


def load(ptx: str | os.PathLike) -> "Module":
    """A module of PTX: its text, or the path of a file. Raises PtxError."""
    text = str(ptx)
    if "\n" not in text:
        text = Path(ptx).read_text()
    return Module(text)


class Module:
    def __init__(self, text: str):
        self.text = text
        self.parsed = kept("parsed", text, lambda: parse(text))
        self.kernels = {name: Kernel(self, function) for name, function in self.parsed.functions.items() if function.is_kernel}
        self._storage: list[ctypes.Array] = []
        self.addresses = self._allocate()  # of its .global and .const variables

    def __getitem__(self, name: str) -> "Kernel":
        """The kernel of that name, or the one whose name has it as a part."""
        if name in self.kernels:
            return self.kernels[name]
        found = [kernel for full, kernel in self.kernels.items() if name in full]
        if len(found) != 1:
            raise KeyError(f"{len(found)} kernels match {name!r}; there are {', '.join(self.kernels)}")
        return found[0]

    def _allocate(self) -> dict[str, int]:
        addresses = {}
        for variable in self.parsed.all_variables:
            self._storage.append(ctypes.create_string_buffer(variable.bytes + 64))
            addresses[variable.name] = -(-ctypes.addressof(self._storage[-1]) // 64) * 64
        for variable in self.parsed.all_variables:
            data = bytearray(variable.data.ljust(variable.bytes, b"\0"))
            for offset, name in variable.addresses:
                data[offset : offset + 8] = struct.pack("<Q", addresses[name])
            ctypes.memmove(addresses[variable.name], bytes(data), variable.bytes)
        return addresses


class Kernel:
    def __init__(self, module: Module, function: Function):
        self.module, self.function, self.name = module, function, function.name
        self._decoded = None

    def decode(self):
        """Decodes it, once. Raises PtxError that names an instruction that is not known, with its line."""
        if self._decoded is not None:
            return self._decoded
        library = core()
        specials = library.ptxsim_specials_bytes()
        name = f"{self.name} {specials}"
        lowered = kept(name, self.module.text, lambda: lower(self.module.parsed, self.function, specials))
        opcodes = (ctypes.c_char_p * len(lowered.opcodes))(*(opcode.encode() for opcode in lowered.opcodes))
        words = (ctypes.c_int64 * len(lowered.words))(*lowered.words)
        arrays = [word for variable, offset in zip(lowered.shared, lowered.shared_offsets) for word in (offset, variable.bytes)]
        header = (ctypes.c_int64 * (5 + len(arrays)))(*lowered.header, len(lowered.shared), *arrays)
        shared_names = (ctypes.c_char_p * max(1, len(lowered.shared)))(*(_plain_name(v.name).encode() for v in lowered.shared))
        variables = list(self.module.addresses.values())
        addresses = (ctypes.c_uint64 * max(1, len(variables)))(*variables)
        handle = library.ptxsim_decode(
            opcodes, words, ctypes.c_int64(len(lowered.statements)), header, shared_names, addresses,
            ctypes.c_int64(len(variables)),
        )  # fmt: skip
        if not handle:
            at, _, why = library.ptxsim_answer().decode().partition("\t")
            statement = lowered.statements[int(at)]
            text = " ".join([statement.opcode, ", ".join(statement.operands)])
            raise PtxError(f"{self.name}, PTX line {statement.line}: {why}: {text!r}")
        weakref.finalize(self, library.ptxsim_free, handle)
        self._decoded = handle, lowered
        return self._decoded

    def launch(
        self,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        args: tuple | list,                # tensors, ints, floats, Struct or bytes, as the kernel's parameters
        shared_bytes: int = 0,             # dynamic
        *,
        memory: tuple = (),                # tensors that are reached through pointers in structs
        check: bool = True,                # look for races and count; without it only bounds are checked
        seed: int | tuple[int, ...] = 0,   # of the interleaving; 0 runs blocks and warps in order. Several: results are compared
        threads: int | None = None,        # of the host
        blocks: tuple[int, int] | None = None,  # (first, number): only a slice of the grid
    ) -> Report:  # fmt: skip
        """Runs the kernel over the memory of the tensors. Raises ValueError for arguments that do not fit its parameters.

        With several seeds it runs once with each, on the same memory; a tensor whose bits then differ is a finding.
        """
        if not isinstance(seed, int):
            options = dict(check=check, threads=threads, blocks=blocks)
            return self._launch_each(grid, block, args, shared_bytes, seed, memory=memory, **options)
        handle, lowered = self.decode()
        grid, block = _three(grid), _three(block)
        if block[0] * block[1] * block[2] > self.function.max_threads:
            raise ValueError(f"{self.name}: block is {block}; expected at most {self.function.max_threads} threads")
        tensors: list[tuple[str, torch.Tensor]] = []
        params = self._pack(args, tensors)
        tensors += [(f"memory {number}", tensor) for number, tensor in enumerate(memory)]
        regions = [region_of(tensor, name) for name, tensor in tensors]
        for variable, address in self.module.addresses.items():
            constant = any(variable == one.name for one in self.module.parsed.constants)
            size = next(v.bytes for v in self.module.parsed.all_variables if v.name == variable)
            regions.append((address, size, 1, int(constant), 0, variable))
        regions = _merged(regions)
        flat = [word for region in regions for word in region[:5]]
        names = (ctypes.c_char_p * max(1, len(regions)))(*(region[5].encode() for region in regions))
        former = [(base, size, name) for (base, size), name in reversed(_former.items())]
        former_words = (ctypes.c_uint64 * max(1, 2 * len(former)))(*(word for base, size, _ in former for word in (base, size)))
        former_names = (ctypes.c_char_p * max(1, len(former)))(*(name.encode() for *_, name in former))
        threads = min(os.cpu_count() or 1, 8) if threads is None else threads
        first, count = blocks or (0, 0)
        shape = (ctypes.c_int64 * 12)(*grid, *block, shared_bytes, int(check), seed, threads, first, count)
        answer = core().ptxsim_launch(
            ctypes.c_void_p(handle), shape, params, (ctypes.c_uint64 * max(1, len(flat)))(*flat), names,
            ctypes.c_int64(len(regions)), former_words, former_names, ctypes.c_int64(len(former)),
        )  # fmt: skip
        for base, size, *_, name in regions:
            _former.pop((base, size), None)
            _former[base, size] = name
        for place in list(_former)[:-_MOST_FORMER]:
            del _former[place]
        return Report(self.name, json.loads(answer), lowered)

    def _launch_each(self, grid, block, args, shared_bytes, seeds, *, memory, **options) -> Report:
        tensors = list(dict.fromkeys([*tensors_of(args), *memory]))
        before = [Snapshot(tensor) for tensor in tensors]
        report, first = None, []
        for seed in seeds:
            for snapshot in before:
                snapshot.restore()
            this = self.launch(grid, block, args, shared_bytes, memory=memory, seed=seed, **options)
            after = [Snapshot(tensor) for tensor in tensors]
            if report is None:
                report, first = this, after
                continue
            names = [f"tensor {place}" for place, (a, b) in enumerate(zip(first, after)) if not a.same_bits(b)]
            report.join(this, [Finding.of_seeds(name, seeds[0], seed) for name in names])
        return report

    def _pack(self, args, tensors) -> ctypes.Array:
        parameters = self.function.parameters
        if len(args) != len(parameters):
            raise ValueError(f"{self.name}: {len(args)} arguments; expected {len(parameters)}")
        data = bytearray(self.function.parameter_bytes + 16)
        for number, (value, parameter) in enumerate(zip(args, parameters)):
            name = f"argument {number}"
            raw = _packed(value, parameter, name, tensors)
            if len(raw) != parameter.bytes:
                raise ValueError(f"{self.name}: {name} has {len(raw)} bytes; expected {parameter.bytes}")
            data[parameter.offset : parameter.offset + parameter.bytes] = raw
        return (ctypes.c_uint8 * len(data)).from_buffer(data)


def tensors_of(args) -> list[torch.Tensor]:
    """Those among arguments and those that their Structs point to."""
    return [tensor for value in args for tensor in (
        [value] if isinstance(value, torch.Tensor) else [t for _, t in value.tensors] if isinstance(value, Struct) else []
    )]  # fmt: skip


def _packed(value, parameter, name: str, tensors) -> bytes:
    if isinstance(value, torch.Tensor):
        tensors.append((name, value))
        return struct.pack("<Q", value.data_ptr())
    if isinstance(value, Struct):
        tensors += [(f"{name}.{place}", tensor) for place, tensor in value.tensors]
        return value.data
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, float):
        return struct.pack("<d" if parameter.bytes == 8 else "<f", value)
    if value is None:
        value = 0
    return (int(value) & ((1 << 8 * parameter.bytes) - 1)).to_bytes(parameter.bytes, "little")


def _plain_name(name: str) -> str:
    """That of a variable within a function, without what C++ adds to it."""
    mangled = re.search(r"E\d+([A-Za-z_]\w*)$", name)
    return mangled[1] if mangled else name


def _three(size) -> tuple[int, int, int]:
    size = (size,) if isinstance(size, int) else tuple(size)
    return (*size, *(1,) * (3 - len(size)))


def _merged(regions: list[tuple]) -> list[tuple]:
    """Regions without overlap: views of one tensor become one."""
    merged: list[tuple] = []
    for region in sorted(regions, key=lambda region: (region[0], -region[1])):
        if region[1] == 0:
            continue
        if merged and region[0] < merged[-1][0] + merged[-1][1]:
            base, size, element, read_only, written, name = merged[-1]
            end = max(base + size, region[0] + region[1])
            merged[-1] = (
                base,
                end - base,
                min(element, region[2]),
                read_only & region[3],
                written or region[4],
                f"{name} and {region[5]}",
            )
        else:
            merged.append(region)
    return merged


__all__ = ["Kernel", "Module", "load"]
