"""`vdiff verify` where the packages of the command line are missing: python -m vdiff_kernels.verify"""

import argparse
import sys
from pathlib import Path

from ..interrupt import STATUS
from .day.plan import COULD_NOT_RUN, GROUPS, MINUTES, OUT, Settings
from .day.runner import run

DESCRIPTION = "Holds every kernel to its definition on this machine, and measures it beside its rivals, within minutes."


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m vdiff_kernels.verify", description=DESCRIPTION)
    parser.add_argument("--minutes", type=float, default=MINUTES, metavar="X", help="for all of it (default: %(default)g)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(default: %(default)s)")
    parser.add_argument("--only", choices=GROUPS, nargs="+", metavar="GROUP", help=f"some of: {', '.join(GROUPS)}")
    parser.add_argument("--resume", action="store_true", help="go on with what a stopped run left undone")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help="(default: %(default)s)")
    given = parser.parse_args()
    settings = Settings(given.out, given.device, given.minutes, tuple(given.only or ()), given.resume)
    try:
        return run(settings)
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; --resume goes on", file=sys.stderr)
        return STATUS
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return COULD_NOT_RUN


if __name__ == "__main__":
    sys.exit(main())
