"""The commands of `vdiff`, and how they refuse: one line on stderr and exit code 2."""

import sys
from typing import Annotated

import typer
from typer.core import TyperGroup

from .. import __version__
from ..interrupt import STATUS, raise_again
from .bench import bench
from .doctor import doctor
from .sample import sample
from .train import train
from .verify import verify


class OneLineErrors(TyperGroup):
    """Prints a refusal as one line, in the place of a usage text and a box around the error."""

    def main(self, *args, standalone_mode: bool = True, **kwargs):
        try:
            sys.exit(super().main(*args, standalone_mode=False, **kwargs))
        except Exception as error:
            if not hasattr(error, "format_message"):  # as a Refusal and all errors of typer have, wherever it keeps them
                raise
            context = getattr(error, "ctx", None)
            who = context.command_path if context else "vdiff"
            print(f"{who}: {' '.join(error.format_message().split())}", file=sys.stderr)
            sys.exit(error.exit_code)

    def invoke(self, context):
        try:
            raise_again()
            return super().invoke(context)
        except KeyboardInterrupt:
            print(f"{context.command_path} {context.invoked_subcommand}: interrupted", file=sys.stderr)
            raise typer.Exit(STATUS) from None


app = typer.Typer(cls=OneLineErrors, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(sample)
app.command()(bench)
app.command()(doctor)
app.command()(train)
app.command()(verify)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vdiff_kernels {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def vdiff(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Short videos of handwritten digits from a line of text, the training of the model that makes them, and the proof of the
    kernels on this machine.

    To begin:

    \b
      vdiff sample "a seven moving left" -o seven.gif
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
