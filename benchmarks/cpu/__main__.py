"""Run: python -m benchmarks.cpu [table ...] [--only TEXT], the tables being modules of this package.

Each row is measured in one process, its contenders interleaved; --only keeps the rows whose label contains TEXT.
"""

import argparse

import torch

from vdiff_kernels.bench.rooflines import Machine
from vdiff_kernels.bench.timing import keep_freed_memory

from . import attention, conv, feedforward, memory, module, overhead, unet

TABLES = {
    "attention": attention, "module": module, "memory": memory, "conv": conv, "feedforward": feedforward, "unet": unet,
    "overhead": overhead,
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", choices=[[], *TABLES], metavar="table", help=", ".join(TABLES))
    parser.add_argument("--only", default="", help="rows whose label contains this")
    options = parser.parse_args()
    torch.manual_seed(0)
    keep_freed_memory()
    machine = Machine.measure()
    print(machine, flush=True)
    for name in options.tables or TABLES:
        for case in TABLES[name].cases():
            if options.only in case.label:
                print(case.measure().text(machine), flush=True)


if __name__ == "__main__":
    main()
