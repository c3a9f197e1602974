"""python -m tests.ptxsim kernel.cu: what its kernels are made of and take, and what a launch finds and counts."""

import argparse
import sys
from pathlib import Path

import torch

from . import PtxError, core_library, from_cuda, load
from .registers import resources


def arguments(text: str) -> list:
    """Of a launch: "float32[4096]" is a tensor of random numbers (of integers: zeros), "3" and "0.5" are themselves."""
    values = []
    for part in filter(None, text.split(",")):
        name, bracket, count = part.strip().partition("[")
        if bracket:
            dtype = getattr(torch, name, None)
            if not isinstance(dtype, torch.dtype):
                raise ValueError(f"--args: {name!r} is no torch dtype")
            size = int(count.rstrip("]"))
            values.append(torch.randn(size).to(dtype) if dtype.is_floating_point else torch.zeros(size, dtype=dtype))
        else:
            values.append(float(name) if "." in name else int(name))
    return values


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ptxsim", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help=".cu or .ptx")
    parser.add_argument("--arch", type=int, default=80, help="compute capability, as in 80")
    parser.add_argument("-I", dest="include", action="append", default=[], help="folder of headers")
    parser.add_argument("--launch", metavar="KERNEL", help="run this kernel (a part of its name will do)")
    parser.add_argument("--grid", type=int, nargs="+", default=[1])
    parser.add_argument("--block", type=int, nargs="+", default=[128])
    parser.add_argument("--shared", type=int, default=0, help="bytes of dynamic shared memory")
    parser.add_argument("--args", default="", help='of the kernel: "float32[4096],bfloat16[64],3,0.5"')
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--instructions", action="store_true", help="list the instructions that are known")
    options = parser.parse_args(argv)
    if options.instructions:
        print(core_library.instruction_list())
        return 0
    if options.file is None:
        parser.error("a .cu or .ptx file, or --instructions")
    if not options.file.exists():
        parser.error(f"{options.file}: no such file")
    try:
        source = options.file.suffix == ".cu"
        module = from_cuda(options.file, arch=options.arch, include=tuple(options.include)) if source else load(options.file)
        takes = resources(module.text, options.arch)
        for name, kernel in module.kernels.items():
            kernel.decode()
            of = takes[name]
            print(f"{name}: {of.registers} registers, {of.spilled_bytes} bytes spilled, {of.shared_bytes} bytes of shared memory")
        if options.launch is None:
            return 0
        kernel = module[options.launch]
        report = kernel.launch(options.grid, options.block, arguments(options.args), options.shared, seed=tuple(options.seeds))
    except (PtxError, KeyError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(report)
    for place, line in sorted(report.lines.items()):
        print(f"  {place}: " + ", ".join(f"{name} {number:,}" for name, number in vars(line).items() if number))
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
