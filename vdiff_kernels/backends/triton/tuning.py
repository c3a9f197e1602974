"""Which of a kernel's configurations a call takes: the first of a short list, or what was the fastest on this GPU.

The first of a list fits every GPU. Nothing is timed unless VDIFF_TUNE=1 asks for it: then the first call of each kind times its
list, some seconds, and the answer is kept in the user's cache for this GPU, Triton and these kernels. Later runs take it, with or
without VDIFF_TUNE. Another tile adds in another order: under torch.use_deterministic_algorithms every call takes the first.
"""

import functools
import json
import os
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from ...files import cached, written_whole
from .. import gpu
from . import CACHE, digest_of_kernels

ROUNDS = 9

Result = TypeVar("Result")


@dataclass(frozen=True)
class Config:
    """Extents of a tile, by their names in the kernel, and how it is compiled."""

    tile: tuple[tuple[str, int], ...]
    num_warps: int = 4
    num_stages: int = 2

    @property
    def constants(self) -> dict[str, int]:
        return dict(self.tile)

    @property
    def options(self) -> dict[str, int]:
        return {**self.constants, "num_warps": self.num_warps, "num_stages": self.num_stages}

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.options.items())


def config(num_warps: int, num_stages: int, **tile: int) -> Config:
    return Config(tuple(tile.items()), num_warps, num_stages)


@functools.lru_cache(maxsize=256)  # asked in every call
def narrowed(configs: tuple[Config, ...], **needed: int) -> tuple[Config, ...]:
    """The same with no extent larger than is needed, each once."""
    small = (
        Config(tuple((name, min(value, needed.get(name, value))) for name, value in one.tile), one.num_warps, one.num_stages)
        for one in configs
    )
    return tuple(dict.fromkeys(small))


def tuned(kernel: str, key: tuple, configs: tuple[Config, ...], run: Callable[[Config], Result], like: torch.Tensor) -> Result:
    """run(config) for the one to take; it may run several times.

    key: what a choice depends on, beside the GPU. like: a tensor where it runs.
    """
    return run(chosen(kernel, key, configs, run, like.device.index if like.device.type == "cuda" else None))


def chosen(kernel: str, key: tuple, configs: tuple[Config, ...], run: Callable, index: int | None) -> Config:
    """Of configs, on the GPU of that index, or none."""
    if len(configs) == 1 or index is None or torch.are_deterministic_algorithms_enabled():
        return configs[0]
    question = f"{kernel} {' '.join(map(str, key))}"
    here = _kept(index)
    for one in configs if question in here else ():  # never one that is not in the list
        if str(one) == here[question]:
            return one
    if os.environ.get("VDIFF_TUNE") != "1" or torch.cuda.is_current_stream_capturing():
        return configs[0]
    fastest = min(configs, key=functools.partial(_seconds, run))
    here[question] = str(fastest)
    _keep(index)
    return fastest


def _seconds(run, one: Config) -> float:
    """The median of some runs; for ever where it cannot run, as where a GPU has not the shared memory."""
    try:
        run(one)
    except Exception:  # whatever a compiler or driver says of a configuration: the first is there
        return float("inf")
    times = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run(one)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


# ---------------------------------------------------------------------------------------------------------------- the cache

_found: dict[str, dict[str, str]] | None = None  # by place, then question


def _place(index: int) -> str:
    return f"{gpu.name(index)} | {digest_of_kernels()}"


def _kept(index: int) -> dict[str, str]:
    global _found
    if _found is None:
        _found = _read()
    return _found.setdefault(_place(index), {})


def _read() -> dict[str, dict[str, str]]:
    path = cached(CACHE)
    try:
        found = json.loads(path.read_text())
        if all(isinstance(own, dict) and all(isinstance(one, str) for one in own.values()) for own in found.values()):
            return found
        raise ValueError("it is no table of configurations")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        warnings.warn(f"vdiff_kernels: {path} is ignored, and defaults are taken: {error}", stacklevel=2)
        return {}


def _keep(index: int) -> None:
    path = cached(CACHE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as draft:
            draft.write_text(json.dumps(_found, indent=1) + "\n")
    except OSError as error:
        _warn_unwritable(path, str(error))


@functools.cache
def _warn_unwritable(path: Path, error: str) -> None:
    warnings.warn(f"vdiff_kernels: what was tuned is kept for this process alone ({path}: {error})", stacklevel=2)
