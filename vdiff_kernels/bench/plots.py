"""The picture of `vdiff bench`, from matplotlib without its global state: ratios, the roofline, and times against frames."""

import textwrap
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

from .results import Outcome
from .rooflines import Roofline

COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")
MARKERS = "osD^vP*X"
BAR = 0.8


def figure(outcomes: list[Outcome], machine: str, roofline: Roofline) -> Figure:
    """Ratios of every row on the left; on the right the roofline, and where a shape was measured at several numbers of frames,
    its time and memory against them."""
    own = [one for one in outcomes if one.us(one.base)]
    lines = by_frames(own)
    height = max(6.0, 1.6 + 0.32 * len(own))
    drawn = Figure(figsize=(14, height), layout="constrained")
    drawn.suptitle("\n".join(textwrap.wrap(machine, 150)), fontsize=9)
    left, right = drawn.subfigures(1, 2, width_ratios=(3, 2))
    _ratios(left.subplots(), own)
    quantities = {"us": "us of a call", "peak_bytes": "bytes at its peak, beyond its inputs"} if lines else {}
    counted = [what for what in quantities if any(one.rows[one.base][what] for line in lines.values() for one in line.values())]
    first, *others = right.subplots(1 + len(counted), 1, squeeze=False)[:, 0]
    _roofline(first, own, roofline)
    for ax, what in zip(others, counted):
        _against_frames(ax, lines, what, quantities[what])
    return drawn


def _ratios(ax, own: list[Outcome]) -> None:
    rivals = list(dict.fromkeys(name for one in own for name in one.rows if name not in one.ours))
    bar = BAR / max(1, len(rivals))
    for series, rival in enumerate(rivals):
        ratios = [one.ratio(rival) for one in own]
        places = [i - BAR / 2 + (series + 0.5) * bar for i in range(len(own))]
        bars = ax.barh(places, [ratio or 0 for ratio in ratios], bar, color=COLORS[series % len(COLORS)], label=rival)
        ax.bar_label(bars, [f"{ratio:.2f}x" if ratio else "" for ratio in ratios], padding=2, fontsize=6)
    ax.axvline(1, color="black", linewidth=1, linestyle="--")
    ax.set_yticks(range(len(own)), [one.label for one in own], fontsize=7)
    ax.set_ylim(len(own) - 0.4, -0.6)
    ax.set_xlabel("time of another / ours: above 1, ours is faster", fontsize=8)
    ax.tick_params(axis="x", labelsize=8)
    ax.margins(x=0.1)
    if rivals:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(4, len(rivals)), fontsize=8, frameon=False)
    _tidy(ax)


def _roofline(ax, own: list[Outcome], roofline: Roofline) -> None:
    """What each of ours reaches, over the flops that it does for a byte."""
    points = defaultdict(list)
    for one in own:
        if one.work.bytes and one.work.flops:
            points[one.operator].append((one.work.flops / one.work.bytes, one.work.flops / one.us(one.base) / 1e3))
    every = [x for found in points.values() for x, _ in found] or [1.0]
    ridge = roofline.flops_rate / roofline.bytes_rate
    low, high = min([*every, ridge]) / 2, max([*every, ridge]) * 2
    peak = roofline.flops_rate / 1e9
    ax.plot([low, ridge, high], [low * roofline.bytes_rate / 1e9, peak, peak], color="black", linewidth=1.2)
    for (operator, found), color, marker in zip(points.items(), COLORS, MARKERS):
        ax.scatter(*zip(*found), s=26, color=color, marker=marker, label=operator, zorder=3)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("FLOP for a byte that must move", fontsize=8)
    ax.set_ylabel("GFLOP/s of ours", fontsize=8)
    ax.set_title("under the roofline of this machine", fontsize=9)
    ax.legend(fontsize=7, loc="lower right", frameon=False)
    _tidy(ax)


def by_frames(own: list[Outcome]) -> dict[str, dict[int, Outcome]]:
    """Rows that differ in their number of frames alone, by their name without it; where there are several."""
    found = defaultdict(dict)
    for one in own:
        words = one.label.split()
        frames = next((word for word in words if word[0] == "T" and word[1:].isdigit()), None)
        if frames:
            found[" ".join(word for word in words if word != frames)][int(frames[1:])] = one
    return {name: line for name, line in found.items() if len(line) > 1}


def _against_frames(ax, lines: dict[str, dict[int, Outcome]], what: str, label: str) -> None:
    for (name, line), color in zip(lines.items(), COLORS):
        frames = sorted(line)
        for rival, style in ((None, "-"), ("eager", ":")):
            values = [line[T].rows.get(rival or line[T].base, {}).get(what) for T in frames]
            if all(values):
                ax.plot(frames, values, style, marker="o", markersize=3, color=color, label=f"{rival or 'ours'}: {name}")
    ax.set_xlabel("frames", fontsize=8)
    ax.set_ylabel(label, fontsize=8)
    ax.set_yscale("log")
    ax.legend(fontsize=6, frameon=False)
    _tidy(ax)


def _tidy(ax) -> None:
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)


def save(drawn: Figure, path: Path) -> None:
    drawn.savefig(path, dpi=110, format="png", metadata={"Software": None})
