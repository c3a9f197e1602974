"""The page of runs on one machine: what was measured, beside rivals and floors, and what was wrong."""

import contextlib
import importlib.util
import textwrap
from pathlib import Path

from ....files import written_whole
from . import sections
from .counters import counters
from .rows import Ceilings, Days, dates

TIMES = """\
Times are medians of replays of a captured CUDA graph that goes round several sets of inputs, more than the L2 holds; rivals take
turns. The largest spread, half the distance of the quartiles, is {spread:.1%}. All is bf16. Share: the floor over our time.
N.NNx: a rival's time over ours; above 1, ours is faster. Bold: the fastest rival; ✗: it is faster than ours. "wrong": a relative
error above 2e-2, of which no ratio is made. MiB: what a call allocates at its peak, beyond its inputs. SDPA and flex get q, k and
v as they like them best; the permutes with which a model gets there are not in their times. A bias is given to rivals as a dense
mask (flex: as a score_mod): forward, gathered before; with backward, in the call. Errors here are of the forward result;
gradients are held in section 2."""
MARKS = ("#", "|", "!", "- ")  # that a block begins with which is no paragraph
HOST = """\
What Python and the launches of one call take, without a graph: the median of the shapes, of ours also the least and the most.
Where that is longer than the time on the GPU, a program without graphs waits for its host."""


def plots_of(days: Days, ceilings: Ceilings) -> dict:
    """Figures by the end of their file's name; none of what was not measured, none at all without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return {}
    from . import plots

    panels = {kind: days.comparisons(kind) for kind in ("temporal", "spatial")}
    found = {kind: plots.speedups(own, f"{kind.title()} attention, bf16, {place(days)}") for kind, own in panels.items() if own}
    if all(panels.values()) and ceilings.bytes_rate and ceilings.flops_rate:
        found["floor"] = plots.floors(panels, ceilings, f"How near the floor, bf16, {place(days)}")
    return found


def place(days: Days) -> str:
    """What it was measured on."""
    return days.fact("gpu").get("gpu") or days.fact("processor").get("processor", "a GPU that the rows do not name")


def page(days: Days, ceilings: Ceilings, command: str, pictures: dict[str, str], note: str = "") -> str:
    """pictures: the names of the plots' files. note: what a reader must know of the numbers and no row says."""

    def picture(kind: str, words: str) -> list[str]:
        return [f"![{words}]({pictures[kind]})"] if kind in pictures else []

    times = TIMES.format(spread=max((row["spread"] for row in days.of("time")), default=0))
    temporal, spatial = (sections.attention(days, ceilings, *of) for of in (("temporal", "TB/s"), ("spatial", "TFLOP/s")))
    parts = {
        "Environment and ceilings": sections.environment(days, ceilings),
        "Correctness": sections.correctness(days),
        "Temporal attention": [times, *picture("temporal", "speedups of temporal attention"), *temporal],
        "Spatial attention": [*picture("spatial", "speedups of spatial attention"), *spatial, *picture("floor", "shares")],
        "Modules and convolutions": sections.modules(days, ceilings),
        "Compiled rivals": ["Ours was measured again here, beside each.", *sections.compiled(days, ceilings)],
        "Counters": counters(days),
        "Host time of a call": [HOST, *sections.host_times(days)],
    }
    driver = sections.smi(days.fact("gpu")).get("driver_version", "not in the rows")
    torch = days.fact("versions").get("torch", "not in the rows")
    blocks = [
        f"# Measured on {place(days)}",
        f"Driver {driver}, torch {torch}, {dates(days.rows)}. Every number is from rows of `vdiff verify`, of which this page "
        f"was made by `{command}`.",
        *([note] if note else []),
    ]
    for i, (title, section) in enumerate(parts.items(), 1):
        blocks += [f"## {i}. {title}", *section]
    return "\n\n".join(block if block.startswith(MARKS) else wrapped(block) for block in blocks) + "\n"


def wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, 128, break_long_words=False, break_on_hyphens=False)


def write(days: Days, out: Path, command: str, note: str = "") -> list[Path]:
    """The page and its plots, whole, or none of them."""
    ceilings = Ceilings.of(days)
    figures = plots_of(days, ceilings)
    files = {kind: out.with_name(f"{out.stem}-{kind}.png") for kind in figures}
    text = page(days, ceilings, command, {kind: file.name for kind, file in files.items()}, note)
    out.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        drafts = {file: stack.enter_context(written_whole(file)) for file in (out, *files.values())}
        if figures:
            from . import plots  # needs matplotlib, which is there where they are

        for kind, file in files.items():
            plots.save(figures[kind], drafts[file])
        drafts[out].write_text(text)
    return [out, *files.values()]
