"""The rows of runs on one machine as one: which of them count, what stands beside what, and under which ceiling."""

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

from ....bench import contest
from ..rows import ROWS, rows_of

OURS = ("vdiff", "composed")
# Over whose time the ratios of an operator are, where no row is "vdiff": of the days before the modules had a backend on a GPU.
BASES = {"TemporalAttention": "composed", "convolution": "conv2d on views"}
WRONG = contest.WRONG[torch.bfloat16]  # a relative error above it: of such a result no ratio is made
LEFT_OUT = ("tuning",)  # groups of builds that are compared with each other, not with rivals


@dataclass
class Days:
    """rows: of all files. replaced: (earlier, later) times of what two files have."""

    files: dict[str, list[dict]]
    rows: list[dict]
    replaced: list[tuple[dict, dict]]

    def of(self, kind: str, *groups: str) -> list[dict]:
        return [row for row in self.rows if row["kind"] == kind and (not groups or row["group"] in groups)]

    def fact(self, name: str) -> dict:
        return next((row for row in self.of("fact") if row["name"] == name), {})

    def comparisons(self, group: str) -> "list[Comparison]":
        """Those of a group where at least one rival has a time."""
        found: dict[str, Comparison] = {}
        for row in self.rows:
            _, name, rival = identity(row)
            if row["group"] == group and rival:
                found.setdefault(name, Comparison(name, {})).rows[rival] = row
        return [one for one in found.values() if any(row["kind"] == "time" for row in one.rows.values())]


def read_days(paths: list[Path]) -> Days:
    """The files in their order: of what two of them have, the later one's row counts. ValueError: they are no days of one GPU."""
    files = {}
    for path, name in zip(paths, names_of(paths)):
        rows = [row for row in rows_of(path) if isinstance(row, dict) and row.get("group", "tuning") not in LEFT_OUT]
        if not rows:
            what = "has no rows" if path.exists() else "is not there"
            raise ValueError(f"{name} {what}; expected the {ROWS} of `vdiff verify`")
        files[name] = [row | {"file": name} for row in rows]
    refuse_different(files)
    merged: dict[tuple, dict] = {}
    replaced = []
    for rows in files.values():
        own = {identity(row): row for row in rows if row["kind"] != "begin"}
        replaced += [(merged[key], row) for key, row in own.items() if merged.get(key, {}).get("kind") == row["kind"] == "time"]
        merged |= own
    return Days(files, list(merged.values()), replaced)


def names_of(paths: list[Path]) -> list[str]:
    """Each file's name, with as many of its folders as tell it from the others."""
    whole = [path.resolve() for path in paths]
    if len(set(whole)) < len(whole):
        raise ValueError("a file is given twice; expected each once, the earliest first")
    for parts in range(1, max(len(path.parts) for path in whole) + 1):
        names = ["/".join(path.parts[-parts:]) for path in whole]
        if len(set(names)) == len(names):
            break
    return names


def identity(row: dict) -> tuple[str, str, str | None]:
    """(group, name, rival), whether it has a result or was lost: rows of what has no result have the rival in their name."""
    name, _, rival = row["name"].partition(" | ")
    return row["group"], name, row.get("rival") or rival or None


def refuse_different(files: dict[str, list[dict]]) -> None:
    for what, name, field in (("torch", "versions", "torch"), ("GPU", "gpu", "gpu")):
        said = {}
        for file, rows in files.items():
            facts = {row["name"]: row for row in rows if row["kind"] == "fact"}
            if facts:
                said[file] = facts.get(name, {}).get(field, "none")
        if len(set(said.values())) > 1:
            each = ", ".join(f"{file}: {value}" for file, value in said.items())
            raise ValueError(f"the files differ in their {what} ({each}); expected days of one GPU and one torch")


def dates(rows: list[dict]) -> str:
    first, last = (datetime.fromtimestamp(end(row["at"] for row in rows), timezone.utc) for end in (min, max))
    return f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"


@dataclass
class Comparison:
    """What was measured in turns on the same inputs. rows: by rival, whatever became of it."""

    name: str
    rows: dict[str, dict]

    @property
    def operator(self) -> str:
        return self.name.split(" ")[0]

    @property
    def shape(self) -> str:
        return self.name.removesuffix(" fwd+bwd").removesuffix(" fwd").removeprefix(self.operator).strip()

    @property
    def backward(self) -> bool:
        return self.name.endswith(" fwd+bwd")

    @property
    def base(self) -> str:
        return "vdiff" if "vdiff" in self.rows else BASES.get(self.operator, "vdiff")

    @property
    def counted(self) -> dict:
        """A row with the bytes and flops."""
        return next(row for row in self.rows.values() if row["kind"] == "time")

    def us(self, rival: str) -> float | None:
        """None where it did not run or is wrong."""
        row = self.rows.get(rival, {})
        return row["us"] if row.get("kind") == "time" and is_right(row) else None

    def ratio(self, rival: str) -> float | None:
        ours, theirs = self.us(self.base), self.us(rival)
        return theirs / ours if ours and theirs else None

    def best(self, named: str = "") -> str | None:
        """The fastest right rival of those whose name begins so."""
        ran = [rival for rival in self.rows if rival != self.base and rival.startswith(named) and self.us(rival)]
        return min(ran, key=self.us, default=None)

    def is_lost(self) -> bool:
        """To a rival."""
        best = self.best()
        return bool(best) and (self.ratio(best) or 1) < 1


def is_right(time: dict) -> bool:
    return time["error"] <= WRONG  # not so of a nan


def no_time(row: dict | None) -> str:
    """Why there is none."""
    if row is None:
        return "it was not tried"
    if row["kind"] == "error":
        return row["error"]
    return f"lost: {row['how']}" if row["kind"] == "lost" else "its process ended before its times were taken"


@dataclass(frozen=True)
class Ceilings:
    """By the fastest copy and product of the group `rates`, of bytes and flops a us."""

    bytes_rate: float | None
    flops_rate: float | None
    copies: dict[str, float]

    @classmethod
    def of(cls, days: Days) -> "Ceilings":
        times = days.of("time", "rates")
        copies = {row["rival"]: row["bytes"] / row["us"] for row in times if row["name"] == "copy"}
        products = [row["flops"] / row["us"] for row in times if row["name"] == "matrix product"]
        return cls(max(copies.values(), default=None), max(products, default=None), copies)

    def floor_us(self, row: dict) -> float | None:
        """The least time for its bytes and flops. None where a ceiling was not measured."""
        if not self.bytes_rate or not self.flops_rate:
            return None
        return max(row["bytes"] / self.bytes_rate, row["flops"] / self.flops_rate)

    def share(self, comparison: Comparison) -> float | None:
        """How much of the time is the floor."""
        us, floor = comparison.us(comparison.base), self.floor_us(comparison.counted)
        return floor / us if us and floor else None
