"""What was measured of contests: taken, compared with the floor and with each other, as lines, Markdown and JSON."""

import gc
import platform
from dataclasses import dataclass, field

import torch

from ..backends import gpu
from .contest import WRONG, Contest, Race, Setting, first_line
from .place import processor
from .replays import ROUNDS
from .rooflines import Machine, Roofline, Work
from .suite import Planned, chosen

LABEL = 58


@dataclass
class Outcome:
    """Of one contest. rows: by rival, as `Race.times` gives them. failures: why a rival, or "" all of it, has none."""

    preset: str
    operator: str
    label: str
    ours: tuple[str, ...]
    dtype: torch.dtype
    work: Work = field(default_factory=lambda: Work(0, 0))
    model: str = ""
    rows: dict[str, dict] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        return self.ours[0]

    def us(self, name: str) -> float | None:
        """None where it has no time, or a wrong result."""
        row = self.rows.get(name)
        return row["us"] if row and not self.is_wrong(name) else None

    def is_wrong(self, name: str) -> bool:
        return name in self.rows and not self.rows[name]["error"] <= WRONG[self.dtype]  # so of a nan too

    def ratio(self, name: str) -> float | None:
        """How many times as long as ours it takes."""
        ours, theirs = self.us(self.base), self.us(name)
        return theirs / ours if ours and theirs else None

    def share(self, roofline: Roofline) -> float | None:
        """Of our time, the floor."""
        us = self.us(self.base)
        return roofline.seconds(self.work) * 1e6 / us if us and (self.work.bytes or self.work.flops) else None


def measured(plan: Planned, setting: Setting, baselines: tuple[str, ...], rounds: int | None = None) -> Outcome:
    """Whatever a rival raises is an outcome of it; that of making the inputs, of all."""
    outcome = Outcome(plan.preset, plan.operator, plan.label, tuple(setting.backends), setting.dtype)
    try:
        contest = plan.make()
    except (RuntimeError, MemoryError, ImportError, ValueError) as error:
        outcome.failures[""] = first_line(error, 160)
        return outcome
    outcome.label, outcome.work, outcome.model = contest.name, contest.work, contest.model
    race = Race(contest, setting, ROUNDS if rounds is None else rounds)
    for rival in chosen(contest, setting, baselines):
        try:
            race.prepare(rival)
        except Exception as error:  # of any of PyTorch's kernels and compilers
            outcome.failures[rival] = first_line(error, 160)
    outcome.rows = {row["rival"]: row for row in race.times()}
    del contest, race
    gc.collect()
    return outcome


# ------------------------------------------------------------------------------------------------------------- the machine


def machine_of(setting: Setting) -> tuple[str, Roofline]:
    """(a line that says what it is, what it reaches)."""
    if setting.device.type != "cuda":
        machine = Machine.measure()
        return str(machine), machine.roofline
    roofline = measured_roofline(setting)
    words = f"{gpu.name(setting.device.index)}, {processor()}, torch {torch.__version__}, Python {platform.python_version()}: "
    words += f"copies {roofline.bytes_rate / 1e9:,.0f} GB/s, multiplies {roofline.flops_rate / 1e12:,.0f} TFLOP/s in "
    return words + str(setting.dtype).removeprefix("torch."), roofline


def measured_roofline(setting: Setting) -> Roofline:
    """Of a large copy and a large product in its dtype."""
    source = setting.randn(1 << 28)
    target = torch.empty_like(source)
    a, b = setting.randn(8192, 8192), setting.randn(8192, 8192)
    calls = {"copy": lambda i: torch.neg(source, out=target), "product": lambda i: torch.mm(a, b)}
    race = Race(Contest("rates", "rates", False, calls, 1, lambda rival, result: 0.0, Work(0, 0)), setting)
    for name in calls:
        race.prepare(name)
    us = {row["rival"]: row["us"] for row in race.times()}
    return Roofline(2 * source.nbytes / us["copy"] * 1e6, 2 * 8192**3 / us["product"] * 1e6)


# ------------------------------------------------------------------------------------------------------------- as a text


def cells(outcome: Outcome, roofline: Roofline) -> list[str]:
    """Of a row: its label, our time, its share of the floor, and the ratios."""
    if "" in outcome.failures:
        return [outcome.label, f"not run: {outcome.failures['']}"]
    found = [outcome.label]
    for name in outcome.ours:
        found.append(f"{name} {time_of(outcome, name)}")
    share = outcome.share(roofline)
    found.append("-" if share is None else f"{share:.0%} of the floor")
    for name in [*outcome.rows, *outcome.failures]:
        if name not in outcome.ours:
            found.append(f"{ratio_of(outcome, name)} {name}")
    return found


def time_of(outcome: Outcome, name: str) -> str:
    if name in outcome.failures:
        return f"- ({outcome.failures[name]})"
    row = outcome.rows[name]
    if outcome.is_wrong(name):
        return f"WRONG (relative error {row['error']:.1e})"
    return f"{duration(row['us'])} ±{row['spread']:.0%}"


def ratio_of(outcome: Outcome, name: str) -> str:
    if name in outcome.failures:
        return "- not run,"
    if outcome.is_wrong(name):
        return "wrong,"
    ratio = outcome.ratio(name)
    return "-" if ratio is None else f"{ratio:.2f}x"


def duration(us: float) -> str:
    return f"{us:8.1f} us" if us < 1e3 else f"{us / 1e3:8.2f} ms" if us < 1e6 else f"{us / 1e6:8.2f} s "


def line(outcome: Outcome, roofline: Roofline) -> str:
    label, *others = cells(outcome, roofline)
    return " | ".join([f"{label:{LABEL}}", *others])


def markdown(outcomes: list[Outcome], machine: str, roofline: Roofline) -> str:
    """A table a preset."""
    blocks = [machine + "."]
    for preset in dict.fromkeys(outcome.preset for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.preset == preset]
        rivals = list(dict.fromkeys(name for one in own for name in [*one.rows, *one.failures] if name not in (*one.ours, "")))
        ours = own[0].ours
        lines = [["", *ours, "floor / ours", *rivals, "MiB, ours"], ["---"] * (3 + len(ours) + len(rivals))]
        for one in own:
            if "" in one.failures:
                lines.append([one.label, f"not run: {one.failures['']}", *[""] * (1 + len(ours) + len(rivals))])
                continue
            share = one.share(roofline)
            peak = one.rows.get(one.base, {}).get("peak_bytes")
            ratios = [ratio_of(one, name).rstrip(",") if name in one.rows or name in one.failures else "" for name in rivals]
            lines.append(
                [one.label, *(time_of(one, name).strip() for name in ours), "-" if share is None else f"{share:.0%}", *ratios,
                 f"{peak / 2**20:.1f}" if peak else "-"]
            )  # fmt: skip
        blocks += [f"`{preset}`", "\n".join(f"| {' | '.join(row)} |" for row in lines)]
    failures = dict.fromkeys(f"{name}: {why}" for one in outcomes for name, why in one.failures.items() if name)
    if failures:
        blocks.append("\n".join(f"- {words}" for words in failures))
    return "\n\n".join(blocks) + "\n"


def as_data(outcomes: list[Outcome], machine: str, roofline: Roofline) -> dict:
    rows = []
    for one in outcomes:
        for name, row in one.rows.items():
            more = {"preset": one.preset, "name": one.label, "ratio": one.ratio(name), "wrong": one.is_wrong(name)}
            more |= {"floor_us": roofline.seconds(one.work) * 1e6, "dtype": str(one.dtype).removeprefix("torch.")}
            rows.append(row | more)
        rows += [{"preset": one.preset, "name": one.label, "rival": name, "error": why} for name, why in one.failures.items()]
    return {"machine": machine, "bytes_rate": roofline.bytes_rate, "flops_rate": roofline.flops_rate, "rows": rows}
