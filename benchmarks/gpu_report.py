"""The page of GPU days: what was measured, beside rivals and floors, and what was wrong.

    python -m benchmarks.gpu_report FILE [FILE ...] [--out docs/performance-gpu.md] [--note TEXT]

Each file is the results.jsonl of `vdiff verify`, all of one GPU and torch; of what two files have, the later one's counts. The
plots lie beside the page and are named after it. They need matplotlib: pip install 'vdiff_kernels[bench]'.
"""

import argparse
from pathlib import Path

from vdiff_kernels.verify.day.report import document
from vdiff_kernels.verify.day.report.rows import read_days

ROOT = Path(__file__).resolve().parent.parent


def shown(path: Path) -> str:
    """Within the repository, or by its name alone."""
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="results.jsonl of a GPU day, the earliest first")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/performance-gpu.md", help="(default: docs/performance-gpu.md)")
    parser.add_argument("--note", default="", metavar="TEXT", help="a paragraph below the title: what no row says of the numbers")
    options = parser.parse_args()
    command = f"python -m benchmarks.gpu_report {' '.join(map(shown, options.files))}"
    try:
        document.write(read_days(options.files), options.out, command, options.note)
    except ValueError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
