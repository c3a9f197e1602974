"""`vdiff bench`: the kernels and layers beside what they replace, at the sizes of published models."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from tqdm import tqdm

from ..backends.registry import BACKENDS, availability
from ..bench import results, suite
from ..bench.contest import Setting
from ..bench.presets import PRESETS
from ..bench.rooflines import Roofline
from ..files import written_whole
from .options import Refusal, choice, refusing

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CONSOLE = Console(soft_wrap=True)  # with its numbers in colour on a terminal, plain elsewhere
DIRECTIONS = {"fwd": (False,), "fwd+bwd": (True,), "fwd,bwd": (False, True)}


def bench(
    preset: Annotated[
        list[str] | None, choice("--preset", PRESETS, show_default="tiny", help="A model; may be given several times.")
    ] = None,
    every: Annotated[bool, typer.Option("--all-presets", help="All of them.")] = False,
    op: Annotated[
        list[str] | None, choice("--op", suite.OPERATORS, show_default="all", help="An operator or module; several times.")
    ] = None,
    dtype: Annotated[str | None, choice("--dtype", DTYPES, show_default="float32 on a CPU, bfloat16 on a GPU")] = None,
    backend: Annotated[
        list[str] | None, choice("--backend", BACKENDS, show_default="what auto takes", help="Of ours; several times.")
    ] = None,
    baseline: Annotated[
        list[str] | None,
        choice("--baseline", suite.BASELINES, show_default=" and ".join(suite.SHOWN), help="What stands beside; several times."),
    ] = None,
    device: Annotated[str | None, choice("--device", ("cpu", "cuda"), show_default="a GPU where there is one")] = None,
    direction: Annotated[
        str, choice("--direction", DIRECTIONS, help="Forward, forward with every gradient, or both.")
    ] = "fwd,bwd",
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every row there.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw ratios and the roofline there.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write tables there.")] = None,
) -> None:  # fmt: skip
    """Measures the kernels beside eager PyTorch and its own attention, in turns, and beside the counted floor.

    A ratio is another's time over ours: above 1, ours is faster. Of a wrong result none is made; exit code 1: one is ours.

    \b
      vdiff bench
      vdiff bench --preset svd-576x1024 --op temporal_attention --plot svd.png
      vdiff bench --all-presets --baseline eager --baseline compile --json all.json
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type == "cuda" and not torch.cuda.is_available():
        raise Refusal("--device is 'cuda'; expected 'cpu': there is no GPU that torch can use")
    for name in backend or ():
        if not availability(name):
            raise Refusal(f"--backend is {name!r}, which cannot run here: {availability(name).reason}")
    for option, path in (("--json", json_file), ("--plot", plot), ("--markdown", markdown)):
        if path is not None and not path.parent.is_dir():
            raise Refusal(f"{option} is {str(path)!r}; expected a file in a folder that exists")
    if plot is not None:
        require_matplotlib(plot)
    ours = {name: name for name in backend} if backend else {"vdiff": None}
    setting = Setting(place, DTYPES[dtype] if dtype else suite.default_dtype(place), ours)
    names = list(PRESETS) if every else preset or ["tiny"]
    plans = list(suite.planned(names, op or list(suite.OPERATORS), setting, list(DIRECTIONS[direction])))
    if not plans:
        raise Refusal(f"--op is {', '.join(op or ())}, which {', '.join(names)} has not; expected another --preset")
    outcomes, machine, roofline = run(plans, setting, tuple(baseline or suite.SHOWN))
    with refusing():
        if json_file is not None:
            write(json_file, json.dumps(results.as_data(outcomes, machine, roofline), indent=1) + "\n")
        if markdown is not None:
            write(markdown, results.markdown(outcomes, machine, roofline))
        if plot is not None:
            from ..bench import plots

            with written_whole(plot) as draft:
                plots.save(plots.figure(outcomes, machine, roofline), draft)
    wrong = [one.label for one in outcomes if any(one.is_wrong(name) for name in one.ours)]
    if wrong:
        typer.echo(f"wrong: {', '.join(wrong)}", err=True)
    raise typer.Exit(int(bool(wrong)))


def run(plans: list[suite.Planned], setting: Setting, baselines: tuple[str, ...]):
    machine, roofline = results.machine_of(setting)
    typer.echo(machine)
    outcomes, preset = [], None
    for plan in progress(plans):
        outcome = results.measured(plan, setting, baselines)
        outcomes.append(outcome)
        lines = [f"\n{plan.preset}: {PRESETS[plan.preset].about}"] if plan.preset != preset else []
        preset = plan.preset
        with tqdm.external_write_mode():
            for text in [*lines, results.line(outcome, roofline)]:
                CONSOLE.print(text, markup=False, emoji=False)
    _, later = results.machine_of(setting)  # which may have become faster since
    roofline = Roofline(max(roofline.bytes_rate, later.bytes_rate), max(roofline.flops_rate, later.flops_rate))
    for words in dict.fromkeys(f"{name}: {why}" for one in outcomes for name, why in one.failures.items() if name):
        typer.echo(f"not run: {words}")
    return outcomes, machine, roofline


def progress(plans: list[suite.Planned]) -> Iterable[suite.Planned]:
    """With the time that is left, on a terminal."""
    bar = tqdm(plans, unit="row", leave=False, disable=None)
    for plan in bar:
        bar.set_description(f"{plan.operator} {plan.label}"[:50])
        yield plan


def require_matplotlib(plot: Path) -> None:
    if plot.suffix.lower() != ".png":
        raise Refusal(f"--plot is {str(plot)!r}; expected a file that ends in .png")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise Refusal("--plot is given, which needs matplotlib: pip install 'vdiff_kernels[bench]'") from None


def write(path: Path, text: str) -> None:
    with written_whole(path) as draft:
        draft.write_text(text)
