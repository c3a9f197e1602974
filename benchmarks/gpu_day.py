"""Everything that only a GPU can say of this package, in minutes: does it run, is it right, how fast beside the others.

    benchmarks/gpu_day.sh OUT                              # on a GPU, with vdiff_kernels/_C.so built with CUDA beside it
    python -m benchmarks.gpu_day --device cpu --out OUT    # the rehearsal, on the CPU backend and small sizes
    python -m benchmarks.gpu_report OUT/rows.jsonl         # docs/performance-gpu.md of what was measured

This process touches no GPU. Each group runs in one of its own, with a limit; its rows are on the disk as they come. What crashes,
hangs or loses the GPU is named in a row, and the group goes on behind it in a new process while its time lasts.
"""

import argparse
import importlib
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.day import ROWS, Day, append_row, read_rows

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Group:
    """A module of benchmarks/gpu. seconds: for all its processes. stall: how long it may show no new row before it is stopped."""

    name: str
    seconds: float
    stall: float = 40


# Those of a phase run beside each other; where times are taken, a group is alone. Most telling first.
PHASES = [
    [Group("start", 60)],
    [Group("variants", 60), Group("hostile", 100), Group("contract", 80)],
    [Group("rates", 30)],
    [Group("temporal", 90)],
    [Group("spatial", 80)],
    [Group("layers", 70)],
    [Group("blocks", 40)],
    [Group("counters", 120, stall=100)],
    [Group("compiled", 100, stall=90)],
    [Group("real", 60), Group("sanitizer", 150, stall=140)],
    [Group("tuning", 60)],
]
GROUPS = [group for phase in PHASES for group in phase]
PROCESSES = multiprocessing.get_context("forkserver")  # PyTorch is imported once, and no GPU touched, before a group's is made
PROCESSES.set_forkserver_preload(["torch"])
ON_DEMAND = ("tuning",)  # with --only alone
RESTARTS = 6
FAULTS = ("crash", "hang", "wrong")  # of benchmarks/gpu/planted.py


# --------------------------------------------------------------------------------------------------------- of one process


def run_in_child(group: str, folder: Path, device: str, plant: str | None, log: Path) -> None:
    os.setsid()  # it is stopped with what it starts
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(ROOT)
    if plant:
        importlib.import_module("benchmarks.gpu.planted").plant(plant)
    import torch

    torch.manual_seed(0)
    importlib.import_module(f"benchmarks.gpu.{group}").run(Day(group, folder, device, quick=device == "cpu"))


class Watched:
    """A group's process, until it ends, shows nothing for too long, or has no time left."""

    def __init__(self, group: Group, options, plant: str | None, until: float):
        self.group, self.folder, self.until = group, Path(options.out), until
        self.stall = options.stall or group.stall
        self.log = self.folder / f".log-{group.name}"
        self.process = PROCESSES.Process(target=run_in_child, args=(group.name, self.folder, options.device, plant, self.log))
        self.process.start()

    def ended(self) -> str | None:
        """How, or None where all went well."""
        size, shown, since = -1, -1, time.time()
        while self.process.exitcode is None:
            time.sleep(0.1)
            now, before = time.time(), size
            size = (self.folder / ROWS).stat().st_size if (self.folder / ROWS).exists() else 0
            if size != before and len(self.rows()) != shown:  # those of a group beside it do not count
                shown, since = len(self.rows()), now
            if now > self.until:
                return self.stopped("stopped: its time was over")
            if now - since > self.stall:
                return self.stopped(f"stopped: no row for {self.stall:g} s")
        code = self.process.exitcode
        if code == 0:
            return None
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def stopped(self, how: str) -> str:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has no group of its own yet
            self.process.kill()
        self.process.join()
        return how

    def rows(self) -> list[dict]:
        return [row for row in read_rows(self.folder) if row["group"] == self.group.name]

    def unfinished(self) -> str | None:
        """The name that was begun last, where it has no result."""
        rows = self.rows()
        return rows[-1]["name"] if rows and rows[-1]["kind"] == "begin" else None

    def tail(self) -> str:
        return self.text()[-1500:]

    def text(self) -> str:
        return self.log.read_bytes().decode(errors="replace") if self.log.exists() else ""


# ---------------------------------------------------------------------------------------------------------- of all of them


def run_group(group: Group, options, plants: dict[str, str], day_end: float) -> None:
    folder, start = Path(options.out), time.time()
    until = min(start + group.seconds, day_end)
    plant = plants.get(group.name)
    for _ in range(1 + RESTARTS):
        watched = Watched(group, options, plant, until)
        how, plant = watched.ended(), None
        name = watched.unfinished() if how else None
        if name is None:
            break
        append_row(folder, group=group.name, kind="lost", name=name, how=how)
        if time.time() > until - 5:
            break
    words = {"completed": how is None, "how": how or "completed", "seconds": round(time.time() - start, 1)}
    append_row(folder, group=group.name, kind="group", name=group.name, **words, tail=watched.tail() if how else "")
    print(f"[{time.time() - options.began:6.1f} s] {group.name}: {words['how']}, {words['seconds']} s", flush=True)
    with (folder / "log.txt").open("a") as log:
        log.write(f"\n===== {group.name}\n{watched.text()[-30_000:]}")
    watched.log.unlink(missing_ok=True)


def run_day(options, plants: dict[str, str]) -> None:
    day_end = options.began + options.seconds
    wanted = options.only or [group.name for group in GROUPS if group.name not in ON_DEMAND]
    for phase in PHASES:
        threads = []
        for group in (group for group in phase if group.name in wanted):
            if time.time() > day_end - 10:
                words = {"completed": False, "how": "not begun: no time left"}
                append_row(Path(options.out), group=group.name, kind="group", name=group.name, **words)
                continue
            threads.append(threading.Thread(target=run_group, args=(group, options, plants, day_end)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        if phase[0].name == "start" and not all(row.get("completed", True) for row in read_rows(Path(options.out))):
            raise SystemExit("gpu_day: the start failed, so nothing else was tried; see rows.jsonl and log.txt")


def summary(folder: Path) -> str:
    """A line a group, then every check that failed and everything that was lost."""
    rows, lines = read_rows(folder), []
    for end in (row for row in rows if row["kind"] == "group"):
        own = [row for row in rows if row["group"] == end["group"]]
        checks = [row for row in own if row["kind"] == "check"]
        right, times = sum(row["passed"] for row in checks), sum(row["kind"] == "time" for row in own)
        share = max((row["share"] for row in checks if "share" in row), default=None)
        words = [f"{right} of {len(checks)} right" if checks else "", f"{times} times" if times else ""]
        words += [f"largest share of a budget {share:.2f}" if share is not None else "", end["how"]]
        lines.append(f"{end['group']:10} {', '.join(word for word in words if word)}")
    for row in rows:
        if row["kind"] == "lost":
            lines.append(f"LOST   {row['group']}: {row['name']}: {row['how']}")
        elif row["kind"] == "check" and not row["passed"]:
            lines.append(f"WRONG  {row['group']}: {row['name']}: {row.get('detail') or row.get('relative_error')}"[:400])
        elif row["kind"] == "error":
            lines.append(f"ERROR  {row['group']}: {row['name']}: {row['error']}"[:260])
        elif row["kind"] == "time":
            lines.append(f"{row['name']:72} {row['rival']:40} {row['us']:10.1f} us ±{row['spread']:.0%} err {row['error']:.1e}")
    return "\n".join(lines)


def main() -> None:
    names = [group.name for group in GROUPS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the folder that gets rows.jsonl and log.txt")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=600, help="for all of it (default: %(default)g)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="GROUP", help=f"some of: {', '.join(names)}")
    fault = f"plants one of {', '.join(FAULTS)} in a kernel call of that group"
    parser.add_argument("--rehearse", nargs="+", default=[], metavar="FAULT@GROUP", help=fault)
    stall = "stops a process after S seconds without a new row, in place of each group's"
    parser.add_argument("--stall", type=float, metavar="S", help=stall)
    options = parser.parse_args()
    plants = {}
    for word in options.rehearse:
        fault, _, group = word.partition("@")
        if fault not in FAULTS or group not in names:
            parser.error(f"--rehearse is {word!r}; expected one of {', '.join(FAULTS)}, then @ and one of: {', '.join(names)}")
        plants[group] = fault
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / ROWS).exists():
        parser.error(f"--out is {options.out}, which has a {ROWS} already; expected a folder without, so that no days are mixed")
    options.began = time.time()
    try:
        run_day(options, plants)
    finally:
        print(summary(folder))


if __name__ == "__main__":
    main()
