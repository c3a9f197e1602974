"""What a group is given: where it runs, and the one file that its rows go to as they come."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ...backends.registry import BACKENDS
from ...bench.contest import Setting, first_line

ROWS = "results.jsonl"


def append_row(folder: Path, **row) -> None:
    """One write of one line, on the disk before this returns: groups beside each other share the file."""
    file = os.open(folder / ROWS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, (json.dumps({**row, "at": round(time.time(), 2)}, default=str) + "\n").encode())
        os.fsync(file)
    finally:
        os.close(file)


def read_rows(folder: Path) -> list[dict]:
    return rows_of(folder / ROWS)


def rows_of(path: Path) -> list[dict]:
    """The rows so far. A line that a lost machine left half written is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


class Day:
    """Of one group. quick: sizes that take no time, for tests.

    done: the names that have a result from an earlier process of this group, or ended it: this one goes on with the others.
    """

    def __init__(self, group: str, folder: Path, device: str, quick: bool):
        self.group, self.folder, self.quick = group, folder, quick
        self.device = torch.device(device)
        self.backend = "cuda" if self.device.type == "cuda" else "cpu"
        self.done = {row["name"] for row in read_rows(folder) if row["group"] == group and row["kind"] not in ("begin", "ready")}

    def add(self, kind: str, name: str, **values) -> None:
        append_row(self.folder, group=self.group, kind=kind, name=name, **values)

    def attempt(self, name: str, do: Callable[[], dict | None], kind: str = "check") -> None:
        """do(), with the fields of its row. An exception becomes a row, and ends the process if it took the GPU with it."""
        if name in self.done:
            return
        self.add("begin", name)
        try:
            values = do()
            self.synchronize()
        except Exception as error:  # whatever a kernel, a rival or a compiler raises: the next name is tried
            self.add("error", name, error=first_line(error))
            self.synchronize()
        else:
            self.add(kind, name, **(values or {}))

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def kernels_of(self, operator: str) -> str | None:
        """This device's own backend for an operator that it has kernels of, else auto's: library calls."""
        return self.backend if operator in BACKENDS[self.backend].kernels else None

    def setting(self) -> Setting:
        """Of a contest in which our own kernels are measured."""
        return Setting(self.device, torch.bfloat16, {"vdiff": self.backend})

    def automatic(self) -> Setting:
        """Of one in which auto's choice is."""
        return Setting(self.device)

    def randn(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return self.setting().randn(*shape, dtype=dtype)


def within_budget(share: Callable[[], float]) -> dict:
    """The fields of a check. share: of an error budget, the largest that was used; raises AssertionError above 1."""
    try:
        return {"passed": True, "share": share()}
    except AssertionError as error:
        return {"passed": False, "detail": str(error)}
