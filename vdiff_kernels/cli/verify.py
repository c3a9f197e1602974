"""`vdiff verify`: does everything run here, is it right, and how fast beside the others."""

from pathlib import Path
from typing import Annotated

import typer

from ..verify.day import plan, runner
from .options import choice, number, refusing


def verify(
    minutes: Annotated[float, number("--minutes", 0.5, 600.0, help="For all of it, at most.")] = plan.MINUTES,
    device: Annotated[str, choice("--device", ("cuda", "cpu"), help="Where. On a CPU without times: see vdiff bench.")] = "cuda",
    only: Annotated[
        list[str] | None, choice("--only", plan.GROUPS, show_default="all", help="A group; may be given several times.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what a run in that folder left undone.")] = False,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Gets the rows as they come, then the report.")] = plan.OUT,
) -> None:  # fmt: skip
    """Holds every kernel to its definition on this machine, and measures it beside its rivals, within minutes.

    Exit code: 0 all right, 1 something is wrong, 2 it could not run.

    \b
      vdiff verify                       # on a GPU
      vdiff verify --device cpu          # the native CPU kernels
      vdiff verify --resume              # goes on with a run that was stopped
    """
    settings = plan.Settings(out, device, minutes, tuple(only or ()), resume)
    with refusing():
        code = runner.run(settings, typer.echo)
    raise typer.Exit(code)
