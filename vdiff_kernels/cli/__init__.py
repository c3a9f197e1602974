"""The command line `vdiff`. Its packages are the extra `cli`, which `import vdiff_kernels` does not need."""

import sys

from ..interrupt import ending_quietly

PACKAGES = ("PIL", "av", "numpy", "tqdm", "typer")


def main() -> None:
    try:
        with ending_quietly():
            from .app import app

            app(prog_name="vdiff")  # which lets a command see Ctrl-C once it begins
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        print(f"vdiff: the package {package} is missing; install it with: pip install 'vdiff_kernels[cli]'", file=sys.stderr)
        sys.exit(2)
