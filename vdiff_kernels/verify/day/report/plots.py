"""The plots beside the page, from matplotlib without its global state."""

from pathlib import Path

from matplotlib.figure import Figure

from .rows import Ceilings, Comparison

BLUE, ORANGE, GREY = "#0072b2", "#e69f00", "#999999"
BAR = 0.38


def speedups(comparisons: list[Comparison], title: str) -> Figure:
    """How many times the time of ours eager PyTorch and the best kernel of SDPA take."""
    panels = [[one for one in comparisons if one.backward == backward] for backward in (False, True)]
    figure, axes = two_panels(max(map(len, panels)), f"{title}: above 1, ours is faster")
    for ax, own, direction in zip(axes, panels, ("forward", "fwd+bwd")):
        for series, (color, label) in enumerate([(GREY, "eager PyTorch"), (BLUE, "best kernel of SDPA")]):
            ratios = [one.ratio("eager") if series == 0 else one.ratio(one.best("SDPA")) for one in own]
            bars(ax, ratios, series - 0.5, color, label, [f"{ratio:.2f}x" if ratio else "none" for ratio in ratios])
        finish(ax, [one.shape for one in own], f"{direction}: time of a rival / ours", 1)
    return figure


def floors(panels: dict[str, list[Comparison]], ceilings: Ceilings, title: str) -> Figure:
    """How near ours is to the floor, by shape."""
    shapes = {name: list(dict.fromkeys(one.shape for one in own)) for name, own in panels.items()}
    figure, axes = two_panels(max(map(len, shapes.values())), title)
    for ax, (name, own) in zip(axes, panels.items()):
        for series, (color, label) in enumerate([(BLUE, "forward"), (ORANGE, "forward and backward")]):
            shares = {one.shape: ceilings.share(one) for one in own if one.backward == bool(series)}
            percents = [100 * shares[shape] if shares.get(shape) else None for shape in shapes[name]]
            bars(ax, percents, series - 0.5, color, label, [f"{value:.0f}%" if value else "none" for value in percents])
        finish(ax, shapes[name], f"{name} attention: floor / time of ours, %", 100)
        ax.set_xlim(0, 108)
    return figure


def two_panels(rows: int, title: str):
    figure = Figure(figsize=(11, 1.4 + 0.38 * rows), layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure, figure.subplots(1, 2)


def bars(ax, values: list[float | None], offset: float, color: str, label: str, texts: list[str]) -> None:
    places = [i + offset * BAR for i in range(len(values))]
    drawn = ax.barh(places, [value or 0 for value in values], BAR, color=color, label=label)
    for text in ax.bar_label(drawn, texts, padding=2, fontsize=7):
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.3})


def finish(ax, shapes: list[str], xlabel: str, even: float) -> None:
    """even: where the line stands."""
    ax.axvline(even, color="black", linewidth=1, linestyle="--", zorder=0.9)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8, frameon=False)
    ax.set_yticks(range(len(shapes)), shapes, fontsize=7)
    ax.invert_yaxis()
    ax.set_xlabel(xlabel, fontsize=9)
    ax.tick_params(axis="x", labelsize=8)
    ax.margins(x=0.12, y=0.01)
    ax.grid(axis="x", color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=100, format="png", metadata={"Software": None})
