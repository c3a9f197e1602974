"""The page of GPU days: what was measured, beside rivals and floors, and what was wrong.

    python -m benchmarks.gpu_report FILE [FILE ...] [--out docs/performance-gpu.md] [--note TEXT]

Each file is the rows.jsonl of benchmarks/gpu_day.py, all of one GPU and torch; of what two files have, the later one's counts.
The plots lie beside the page and are named after it. They need matplotlib: pip install 'vdiff_kernels[bench]'.
"""

import argparse
import contextlib
import textwrap
from pathlib import Path

from benchmarks.gpu import report_page, report_plots
from benchmarks.gpu.report_counters import counters
from benchmarks.gpu.report_rows import Ceilings, Days, dates, read_days
from vdiff_kernels.files import written_whole

ROOT = Path(__file__).resolve().parent.parent
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


def plots_of(days: Days, ceilings: Ceilings) -> dict[str, report_plots.Figure]:
    """By the end of its file's name; none of what was not measured."""
    panels = {kind: days.comparisons(kind) for kind in ("temporal", "spatial")}
    found = {
        kind: report_plots.speedups(own, f"{kind.title()} attention, bf16, {gpu(days)}") for kind, own in panels.items() if own
    }  # fmt: skip
    if all(panels.values()) and ceilings.bytes_rate and ceilings.flops_rate:
        found["floor"] = report_plots.floors(panels, ceilings, f"How near the floor, bf16, {gpu(days)}")
    return found


def gpu(days: Days) -> str:
    return days.fact("gpu").get("gpu", "a GPU that the rows do not name")


def page(days: Days, ceilings: Ceilings, command: str, pictures: dict[str, str], note: str = "") -> str:
    """pictures: the names of the plots' files. note: what a reader must know of the numbers and no row says."""

    def picture(kind: str, words: str) -> list[str]:
        return [f"![{words}]({pictures[kind]})"] if kind in pictures else []

    times = TIMES.format(spread=max((row["spread"] for row in days.of("time")), default=0))
    temporal, spatial = (report_page.attention(days, ceilings, *of) for of in (("temporal", "TB/s"), ("spatial", "TFLOP/s")))
    sections = {
        "Environment and ceilings": report_page.environment(days, ceilings),
        "Correctness": report_page.correctness(days),
        "Temporal attention": [times, *picture("temporal", "speedups of temporal attention"), *temporal],
        "Spatial attention": [*picture("spatial", "speedups of spatial attention"), *spatial, *picture("floor", "shares")],
        "Modules and convolutions": report_page.modules(days, ceilings),
        "Compiled rivals": ["Ours was measured again here, beside each.", *report_page.compiled(days, ceilings)],
        "Counters": counters(days),
        "Host time of a call": [HOST, *report_page.host_times(days)],
    }
    driver = report_page.smi(days.fact("gpu")).get("driver_version", "not in the rows")
    torch = days.fact("versions").get("torch", "not in the rows")
    blocks = [
        f"# Measured on a GPU: {gpu(days)}",
        f"Driver {driver}, torch {torch}, {dates(days.rows)}. Every number is from rows of `benchmarks/gpu_day.sh OUT`, of which "
        f"this page was made by `{command}`.",
        *([note] if note else []),
    ]
    for i, (title, section) in enumerate(sections.items(), 1):
        blocks += [f"## {i}. {title}", *section]
    return "\n\n".join(block if block.startswith(MARKS) else wrapped(block) for block in blocks) + "\n"


def wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, 128, break_long_words=False, break_on_hyphens=False)


def write(paths: list[Path], out: Path, note: str = "") -> None:
    """The page and its plots, whole, or none of them."""
    days = read_days(paths)
    ceilings = Ceilings.of(days)
    plots = plots_of(days, ceilings)
    files = {kind: out.with_name(f"{out.stem}-{kind}.png") for kind in plots}
    command = f"python -m benchmarks.gpu_report {' '.join(map(shown, paths))}"
    text = page(days, ceilings, command, {kind: file.name for kind, file in files.items()}, note)
    out.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        drafts = {file: stack.enter_context(written_whole(file)) for file in (out, *files.values())}
        for kind, file in files.items():
            report_plots.save(plots[kind], drafts[file])
        drafts[out].write_text(text)


def shown(path: Path) -> str:
    """Within the repository, or by its name alone."""
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="rows.jsonl of a GPU day, the earliest first")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/performance-gpu.md", help="(default: docs/performance-gpu.md)")
    parser.add_argument("--note", default="", metavar="TEXT", help="a paragraph below the title: what no row says of the numbers")
    options = parser.parse_args()
    try:
        write(options.files, options.out, options.note)
    except ValueError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
