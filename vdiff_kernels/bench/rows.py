"""One measured case as one aligned line."""

from dataclasses import dataclass

from .rooflines import Machine, Work
from .timing import Time


@dataclass(frozen=True)
class Row:
    """One measured case. ours: the contender's name; the others are what it is measured against.

    work: what is counted of it. faster: name -> how many times faster than that one the target asks to be;
    of_floor: at most how many floors it may take.
    """

    label: str
    times: dict[str, Time]
    ours: str
    work: Work
    faster: dict[str, float]
    of_floor: float | None = None

    def text(self, machine: Machine) -> str:
        own = self.times[self.ours]
        floor = machine.roofline.seconds(self.work)
        cells = [f"{self.label:46}", f"{own.seconds * 1e3:8.2f} ms ±{own.spread * 100:2.0f}%"]
        for name, other in self.times.items():
            if name != self.ours:
                cells.append(f"{other.seconds / own.seconds:5.2f}x {name}{self._verdict(name, other.seconds / own.seconds)}")
        limit = self.of_floor
        verdict = "" if limit is None else f" ({'met' if own.seconds <= limit * floor else 'missed'} {limit:g})"
        cells.append(f"{own.seconds / floor:5.2f} floors{verdict}")
        cells.append(f"floor {floor * 1e3:.2f} ms ({self.work.bytes / 1e6:.1f} MB, {self.work.flops / 1e9:.2f} GFLOP)")
        return " | ".join(cells)

    def _verdict(self, name: str, ratio: float) -> str:
        if name not in self.faster:
            return ""
        return f" ({'met' if ratio >= self.faster[name] else 'missed'} {self.faster[name]:g})"
