"""The loss of a run of `vdiff train`, as a picture.

Needs matplotlib: python -m benchmarks.loss_curve runs/digits/loss.csv -o loss.png
"""

import argparse
import csv
from pathlib import Path

import matplotlib
import numpy

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

WINDOW = 50  # steps of the running mean


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loss_curve", description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path, metavar="FILE", help="loss.csv of the run's folder")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help=".png or .svg")
    options = parser.parse_args()
    if not options.log.is_file():
        parser.error(f"{str(options.log)!r} is not there; expected the loss.csv of a run")
    with options.log.open(newline="") as file:
        rows = numpy.array([(float(row["step"]), float(row["loss"])) for row in csv.DictReader(file)])
    if len(rows) < WINDOW:
        parser.error(f"{str(options.log)!r} has {len(rows)} steps; expected at least {WINDOW}")
    steps, losses = rows.T
    mean = numpy.convolve(losses, numpy.full(WINDOW, 1 / WINDOW), "valid")
    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    axes.plot(steps, losses, color="0.85", linewidth=0.5)
    axes.plot(steps[WINDOW - 1 :], mean, color="C0", label=f"mean of {WINDOW} steps")
    axes.set(xlabel="step", ylabel="loss", ylim=(0.8 * mean.min(), 1.3 * mean.max()))
    axes.legend(frameon=False)
    figure.savefig(options.out, dpi=120)


if __name__ == "__main__":
    main()
