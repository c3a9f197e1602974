"""Nsight Compute's counters beside the simulator's, and compute-sanitizer: each starts this module with names of cases."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from ....bench.presets import SPATIAL, TEMPORAL
from ...cases import CASES
from ...check import evaluate, functions, make_leaves
from ..rows import Day, first_line
from .variants import plain_name

GOLDEN = Path(__file__).parents[4] / "tests/ptxsim/golden/cuda_attention.json"  # of a checkout
# Of the hostile cases, all of whose kernels the simulator counted; each alone on the GPU.
COUNTED = [
    "temporal_attention-eight-rel", "temporal_attention-sixteen-causal", "temporal_attention-seventeen",
    "temporal_attention-thirty-three", "temporal_attention-long-d160", "spatial_attention-one-row",
    "spatial_attention-shared-context", "spatial_attention-many-rows",
]  # fmt: skip
SANITIZED = [
    "temporal_attention-odd-hw", "temporal_attention-eight-rel", "temporal_attention-seventeen",
    "temporal_attention-thirty-three", "spatial_attention-odd-hw-rel",
    "spatial_attention-shared-context", "spatial_attention-long-expanded-bias",
]  # fmt: skip
REAL = [
    TEMPORAL["animatediff-64"].case("animatediff"),
    TEMPORAL["c512"].case("c512"),
    TEMPORAL["seed"].case("seed"),
    TEMPORAL["t32"].case("t32"),
    TEMPORAL["t64"].case("t64"),
    SPATIAL["biased-32"].case("level-2", T=8),
]
CHECKERS = ("memcheck", "racecheck", "synccheck")
METRICS = {
    "gpu__time_duration.sum": "ns",
    "smsp__inst_executed.sum": "warp instructions",
    "lts__t_sectors_srcunit_tex.sum": "sectors of L2",
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum": "shared wavefronts",
    "dram__bytes.sum": "DRAM bytes",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "DRAM %",
    "smsp__issue_active.avg.pct_of_peak_sustained_active": "issue %",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "warps %",
    "sm__inst_executed_pipe_tensor.sum": "tensor instructions",
    "launch__registers_per_thread": "registers",
    "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio": "stall long scoreboard",
    "smsp__average_warps_issue_stalled_short_scoreboard_per_issue_active.ratio": "stall short scoreboard",
    "smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio": "stall barrier",
    "smsp__average_warps_issue_stalled_math_pipe_throttle_per_issue_active.ratio": "stall math pipe",
    "smsp__average_warps_issue_stalled_mio_throttle_per_issue_active.ratio": "stall mio",
    "smsp__average_warps_issue_stalled_wait_per_issue_active.ratio": "stall wait",
    "smsp__average_warps_issue_stalled_no_instruction_per_issue_active.ratio": "stall no instruction",
}
FEWER = list(METRICS)[:5]  # those that the comparison needs, should one of the others not exist on this GPU
KERNELS = r"short_\w+_kernel|long_\w+_kernel|bias_sum_kernel|rotary_table_kernel"


# ------------------------------------------------------------------------------------------------------------------ groups


def run_counters(day: Day) -> None:
    if not has(day, "ncu"):
        return
    day.attempt("real shapes", lambda: {"launches": counters(day, ["real"])}, kind="counters")
    launches: list[dict] = []
    day.attempt("hostile cases", lambda: launches.extend(counters(day, COUNTED)), kind="ready")
    held = json.loads(GOLDEN.read_text())["cases"] if GOLDEN.exists() else {}
    for case in (case for case in CASES if str(case) in COUNTED):
        head = f"forward_and_every_gradient[{case}-bfloat16] "
        simulated = {key.removeprefix(head): counts for key, counts in held.items() if key.startswith(head)}
        own, launches = launches[: len(simulated)], launches[len(simulated) :]
        day.add("counters", str(case), launches=own, simulated=simulated)


def run_sanitizer(day: Day) -> None:
    """The checkers run beside each other."""
    if not has(day, "compute-sanitizer"):
        return
    started = {checker: sanitizer(checker) for checker in CHECKERS if f"compute-sanitizer {checker}" not in day.done}
    for checker, process in started.items():
        day.attempt(f"compute-sanitizer {checker}", lambda: sanitized(process))


def has(day: Day, program: str) -> bool:
    there = day.device.type == "cuda" and shutil.which(program) is not None
    if not there:
        day.add("absent", program, why="it is not on the path" if day.device.type == "cuda" else "it needs a GPU")
    return there


def start(program: list[str], cases: list[str], **environment: str) -> subprocess.Popen:
    """program on a process that runs those cases. Stopped with this one's process group."""
    command = [*program, sys.executable, "-m", __name__, *cases]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    )  # fmt: skip


def counters(day: Day, cases: list[str]) -> list[dict]:
    """A dict a launch of this library's kernels, in their order, by the names of METRICS."""
    for metrics in (list(METRICS), FEWER):
        options = ["--csv", "--page", "raw", "--clock-control", "none", "--print-kernel-base", "demangled"]
        options += ["-k", f"regex:{KERNELS}", "--metrics", ",".join(metrics)]
        printed, _ = start(["ncu", *options], cases).communicate()
        launches = parsed(printed)
        if launches:
            return launches
    print(printed)
    raise RuntimeError(f"ncu counted nothing: {first_line(printed[-300:])}")


def parsed(printed: str) -> list[dict]:
    lines = [line for line in printed.splitlines() if line.startswith('"')]
    launches = []
    for row in csv.DictReader(io.StringIO("\n".join(lines))):
        if row.get("ID") and re.search(KERNELS, row.get("Kernel Name") or ""):  # the line below the header has units
            values = {name: number(row[metric]) for metric, name in METRICS.items() if row.get(metric)}
            size = {"grid": row.get("Grid Size"), "block": row.get("Block Size")}
            launches.append({"kernel": plain_name(row["Kernel Name"]), **size, **values})
    return launches


def number(text: str) -> float | str:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return text


def sanitizer(checker: str) -> subprocess.Popen:
    options = ["--tool", checker, "--kernel-regex", "kns=attention", "--error-exitcode", "9", "--print-limit", "5"]
    # Every tensor is an allocation of its own, so that an access beside it shows.
    return start(["compute-sanitizer", *options], SANITIZED, PYTORCH_NO_CUDA_MEMORY_CACHING="1")


def sanitized(process: subprocess.Popen) -> dict:
    printed, _ = process.communicate()
    summary = [line for line in printed.splitlines() if line.startswith("=========")] or printed.splitlines()
    detail = "\n".join([*summary[:12], *summary[12:][-3:]])[-1800:]
    return {"passed": process.returncode == 0 and "0 errors" in printed, "exit_code": process.returncode, "detail": detail}


# ------------------------------------------------------------------------------------------------------------- the calls


def main(names: list[str]) -> None:
    """Forward and backward of hostile cases by the CUDA kernels in bfloat16; "real": of shapes that fill the GPU."""
    torch.manual_seed(0)
    wanted = [case for case in CASES if str(case) in names]
    if "real" in names:
        wanted += REAL
    for case in wanted:
        leaves = {name: t.cuda() for name, t in make_leaves(case, torch.bfloat16).items()}
        evaluate(case, functions(case)[0], leaves, torch.bfloat16, backend="cuda")
    torch.cuda.synchronize()


if __name__ == "__main__":
    main(sys.argv[1:])
