"""How fast the simulator of GPU kernels is: a T=16, D=64 bf16 attention, and how long until a fresh kernel runs.

`python -m benchmarks.simulator`
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from tests import ptxsim
from tests.ptxsim.core_library import core

KERNEL = Path(__file__).parents[1] / "tests" / "ptxsim" / "kernels" / "attention.cu"
T, D = 16, 64


def seconds(function) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=1000, help="of 128 threads (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of each, in turn (default %(default)s)")
    options = parser.parse_args()
    core()  # built before, as a test session has it
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder, "attention.cu")
        fresh.write_text(KERNEL.read_text())
        begin = time.perf_counter()
        kernel = ptxsim.from_cuda(fresh)["attention"]
        compiled = time.perf_counter() - begin
        kernel.decode()
        ready = time.perf_counter() - begin

    N = 4 * options.blocks
    q, k, v = (torch.randn(N, T, D).bfloat16() for _ in range(3))
    out = ptxsim.empty(N, T, D, dtype=torch.bfloat16)
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(options.rounds):
        for check in times:
            launch = [q, k, v, out, N, D**-0.5]
            times[check].append(seconds(lambda: kernel.launch(options.blocks, 128, launch, check=check)))
    print("| | median | least | bar |")
    print("|---|---|---|---|")
    for check, bar in ((False, 0.4), (True, 1.5)):
        name = f"{options.blocks:,} blocks, {'checked' if check else 'unchecked'}"
        print(f"| {name} | {statistics.median(times[check]):.2f} s | {min(times[check]):.2f} s | {bar} s of 1,000 |")
    print(f"| a fresh kernel is ready to run | {ready:.2f} s, of which nvcc {compiled:.2f} s | | 2 s |")


if __name__ == "__main__":
    main()
