"""What a run leaves beside its rows: report.md with plots, report.json, and the exit code."""

import json
from collections.abc import Callable

from ....files import written_whole
from ..plan import GROUPS, NOT_BEGUN, OVER, RIGHT, WRONG, Settings
from ..rows import ROWS
from . import document
from .rows import Ceilings, Days, read_days
from .sections import one_line, wrong_lines


def write_report(settings: Settings, tell: Callable[[str], None]) -> int:
    """Returns the exit code of the rows in the folder."""
    days = read_days([settings.folder / ROWS])
    out = settings.folder / "report.md"
    document.write(days, out, "vdiff verify")
    bad = [line.replace("**", "") for line in wrong_lines(days) if not is_late(line)]
    code = WRONG if bad or not any(row["kind"] == "check" for row in days.rows) else RIGHT
    with written_whole(settings.folder / "report.json") as draft:
        draft.write_text(json.dumps(as_data(days, bad, code), indent=1, default=str) + "\n")
    for line in summary(days):
        tell(line)
    for line in bad:
        tell(line)
    said = "\n".join(bad)
    for row in days.of("error"):
        if f"{row['group']}: {row['name']}" not in said:
            tell(f"without a time: {row['group']}: {row['name']}: {one_line(row['error'], 160)}")
    tell(f"{'all right' if code == RIGHT else 'NOT all right'}: {out}")
    return code


def is_late(line: str) -> bool:
    """Whether it says only that a group of times ran out of time."""
    name = line.partition(" ")[2].partition(":")[0]
    return line.endswith((NOT_BEGUN, OVER)) and name in GROUPS and not GROUPS[name].checks


def summary(days: Days) -> list[str]:
    """A line a group."""
    lines = []
    for end in days.of("group"):
        checks, times = days.of("check", end["name"]), days.of("time", end["name"])
        share = max((row["share"] for row in checks if "share" in row), default=None)
        words = [f"{sum(row['passed'] for row in checks)} of {len(checks)} right" if checks else ""]
        words += [f"{len(times)} times" if times else "", f"largest share of a budget {share:.2f}" if share is not None else ""]
        lines.append(f"{end['name']:10} {', '.join(word for word in [*words, end['how']] if word)}")
    return lines


def as_data(days: Days, bad: list[str], code: int) -> dict:
    ceilings = Ceilings.of(days)
    facts = {row["name"]: {key: value for key, value in row.items() if key not in ROW_FIELDS} for row in days.of("fact")}
    comparisons = []
    for group in GROUPS:
        for one in days.comparisons(group):
            rivals = {
                name: {"us": one.us(name), "ratio": one.ratio(name), "spread": row.get("spread"), "error": row.get("error")}
                for name, row in one.rows.items()
            }  # fmt: skip
            floor = {"floor_us": ceilings.floor_us(one.counted), "share": ceilings.share(one)}
            comparisons.append({"name": one.name, "group": group, "base": one.base, **floor, "rivals": rivals})
    groups = {row["name"]: row["how"] for row in days.of("group")}
    return {
        "exit_code": code, "wrong": bad, "facts": facts, "groups": groups, "comparisons": comparisons,
        "ceilings": {"bytes_per_us": ceilings.bytes_rate, "flops_per_us": ceilings.flops_rate},
    }  # fmt: skip


ROW_FIELDS = ("kind", "group", "name", "at", "file")
