"""The counters of Nsight Compute: beside the simulator's, and of shapes that fill the GPU."""

import re
import statistics
from collections import Counter

from ..groups.tools import REAL
from .rows import Days
from .sections import number, one_line, table

COMPARED = ("warp instructions", "shared wavefronts", "registers")


def counters(days: Days) -> list[str]:
    """The section."""
    rows = {row["name"]: row for row in days.of("counters")}
    real = rows.pop("real shapes", {}).get("launches", [])
    failed = [f"{row['name']}: {one_line(row['error'], 160)}" for row in days.of("error", "counters")]
    failed += [f"{row['name']}: {row['why']}" for row in days.of("absent", "counters")]
    if not rows and not real:
        return ["Not measured." + "".join(f" {line}." for line in failed)]
    return [*beside_simulated(list(rows.values())), *of_real_shapes(real), *failed]


def beside_simulated(cases: list[dict]) -> list[str]:
    lines, ratios, missing = [], {name: [] for name in COMPARED}, []
    for case in cases:
        if not case["launches"]:
            missing.append(case["name"])
            continue
        counted = numbered(case["launches"])
        for kernel in dict.fromkeys([*counted, *case["simulated"]]):
            on_gpu, simulated = counted.get(kernel, {}), case["simulated"].get(kernel, {})
            cells = []
            for name in COMPARED:
                a, b = on_gpu.get(name), simulated.get(name)
                ratio = a / b if a is not None and b else None
                ratios[name] += [ratio] if ratio else []
                cells += [plain(a), plain(b)] + ([number(ratio)] if name != "registers" else [])
            lines.append([case["name"].replace("_attention-", " "), f"`{kernel}`", *cells])
    header = ["case", "kernel", "warp instructions, GPU", "simulated", "ratio", "shared wavefronts, GPU", "simulated", "ratio"]
    header += ["registers, GPU", "simulated"]
    middle = [
        f"{name} {number(statistics.median(found))} ({number(min(found))} to {number(max(found))})"
        for name, found in ratios.items() if found
    ]  # fmt: skip
    words = (
        "Hostile cases in bf16, forward and backward, beside what the simulator counted of the same launches: it executes PTX, "
    )
    words += "the GPU what ptxas made of it for its own architecture, so the instructions need not be as many. "
    words += f"Median ratios: {'; '.join(middle)}." if middle else "Nothing was counted."
    blocks = [words, table(header, lines)] if lines else [words]
    return blocks + ([f"Without counts: {', '.join(missing)}."] if missing else [])


def numbered(launches: list[dict]) -> dict[str, dict]:
    """By kernel, the second launch of one as the simulator names it: `kernel (2)`."""
    seen: Counter = Counter()
    found = {}
    for launch in launches:
        seen[launch["kernel"]] += 1
        times = seen[launch["kernel"]]
        found[launch["kernel"] + (f" ({times})" if times > 1 else "")] = launch
    return found


def plain(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def of_real_shapes(launches: list[dict]) -> list[str]:
    """A call begins with its forward kernel; the calls are tools.REAL, where there are as many."""
    if not launches:
        return []
    starts = sum("_fwd_" in launch["kernel"] for launch in launches)
    labels = [label(case) for case in REAL] if starts == len(REAL) else [f"call {i}" for i in range(1, starts + 1)]
    rows, call = [], 0
    for launch in launches:
        call += "_fwd_" in launch["kernel"]
        stalls = sorted(((value, name) for name, value in launch.items() if name.startswith("stall ")), reverse=True)
        worst = ", ".join(f"{name.removeprefix('stall ')} {value:.2f}" for value, name in stalls[:3])
        grid = re.match(r"\((\d+)", str(launch.get("grid", "")))
        shares = [number(launch.get(name)) for name in ("DRAM %", "issue %", "warps %")]
        cells = [grid[1] if grid else "-", number(launch.get("ns", 0) / 1e3), *shares, plain(launch.get("registers")), worst]
        rows.append([labels[call - 1] if call else "-", f"`{launch['kernel']}`", *cells])
    header = ["call, bf16", "kernel", "blocks", "us under ncu", "DRAM %", "issue %", "warps %", "registers", "largest stalls"]
    words = "Forward and backward of shapes that fill the GPU. DRAM and issue are shares of their peaks, warps of those that a "
    words += "multiprocessor holds; a stall is the number of warps that wait for that reason when one issues."
    return [words, table(header, rows)]


def label(case) -> str:
    kind = str(case).split("_")[0]
    bias = f" {case.bias} bias" if case.bias else ""
    return f"{kind} {case.name} T{case.T} H{case.H} W{case.W} N{case.N} D{case.D}{bias}"
