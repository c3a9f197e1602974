"""Everything that only the machine itself can say of this package, in minutes: does it run, is it right, how fast beside others.

This process touches no GPU. Each group runs in one of its own, with a limit; its rows are on the disk as they come. What crashes,
hangs or loses the GPU is named in a row, and the group goes on behind it in a new process while its time lasts.
"""

import functools
import importlib
import multiprocessing
import multiprocessing.connection
import os
import platform
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from .groups.start import digest
from .plan import (
    COULD_NOT_RUN,
    GROUPS,
    NOT_BEGUN,
    ON_DEMAND,
    OVER,
    PHASES,
    Group,
    Settings,
)
from .report.whole import write_report
from .rows import ROWS, Day, append_row, read_rows

LOG = "log.txt"
RESTARTS = 6
REPORT_SECONDS = 10  # that are kept for it
SMALLEST_START = 10  # s. Less is left: a group is not begun.
START_METHOD = "forkserver"  # PyTorch is imported once, and no GPU touched, before a group's process is made


# --------------------------------------------------------------------------------------------------------- of one process


def run_in_child(group: str, settings: Settings, log: Path) -> None:
    os.setsid()  # it is stopped with what it starts
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.manual_seed(0)
    beside = next(len(phase) for phase in PHASES if GROUPS[group] in phase)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // beside))  # more would wait for each other
    if settings.prepare:
        settings.prepare(group)
    day = Day(group, settings.folder, settings.device, settings.quick)
    importlib.import_module(f"{__package__}.groups.{group}").run(day)


def _end_with_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os.killpg(0, signal.SIGKILL)


class Watched:
    """A group's process, until it ends, shows nothing for too long, or has no time left."""

    def __init__(self, group: Group, settings: Settings, until: float, halted: threading.Event):
        self.group, self.folder, self.until, self.halted = group, settings.folder, until, halted
        self.stall = settings.stall or group.stall
        self.log = self.folder / f".log-{group.name}"
        self.process = multiprocessing.get_context(START_METHOD).Process(
            target=run_in_child, args=(group.name, settings, self.log)
        )
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
            if self.halted.is_set():
                return self.stopped("stopped: interrupted")
            if now > self.until:
                return self.stopped(OVER)
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

    def text(self) -> str:
        return self.log.read_bytes().decode(errors="replace") if self.log.exists() else ""


# ---------------------------------------------------------------------------------------------------------- of all of them


class Run:
    """All groups, until they are through or the time is over."""

    def __init__(self, settings: Settings, tell: Callable[[str], None]):
        self.settings, self.tell = settings, tell
        self.began = time.time()
        self.halted = threading.Event()  # Ctrl-C
        self.end = self.began + 60 * settings.minutes - REPORT_SECONDS
        self.done = {row["name"] for row in read_rows(settings.folder) if row["kind"] == "group" and row["completed"]}

    def wanted(self, group: Group) -> bool:
        if self.settings.only:
            return group.name in self.settings.only
        measured_here = self.settings.device == "cuda" or self.settings.quick or not group.gpu_only
        return measured_here and group.name not in ON_DEMAND

    def all_groups(self) -> bool:
        """False: the start failed, so that nothing else was tried."""
        for phase in PHASES:
            threads = []
            for group in (group for group in phase if self.wanted(group) and group.name not in self.done):
                if time.time() > self.end - SMALLEST_START:
                    words = {"completed": False, "how": NOT_BEGUN}
                    append_row(self.settings.folder, group=group.name, kind="group", name=group.name, **words)
                    continue
                threads.append(threading.Thread(target=self.one_group, args=(group,)))
                threads[-1].start()
            try:
                for thread in threads:
                    thread.join()
            except KeyboardInterrupt:
                self.halted.set()
                for thread in threads:
                    thread.join()
                raise
            if phase[0].name == "start":
                ends = [row for row in read_rows(self.settings.folder) if row["kind"] == "group" and row["name"] == "start"]
                if ends and not ends[-1]["completed"]:
                    self.tell(f"the start failed, so nothing else was tried: {last_line(ends[-1]['tail'])}")
                    return False
        return True

    def one_group(self, group: Group) -> None:
        folder, start = self.settings.folder, time.time()
        until = min(start + group.seconds, self.end)
        for _ in range(1 + RESTARTS):
            watched = Watched(group, self.settings, until, self.halted)
            how = watched.ended()
            name = watched.unfinished() if how else None
            if name is None or how == OVER or self.halted.is_set():
                break
            append_row(folder, group=group.name, kind="lost", name=name, how=how)
            if time.time() > until - 5:
                break
        words = {"completed": how is None, "how": how or "completed", "seconds": round(time.time() - start, 1)}
        tail = watched.text()[-1500:] if how else ""
        append_row(folder, group=group.name, kind="group", name=group.name, **words, tail=tail)
        self.tell(f"[{time.time() - self.began:6.1f} s] {group.name}: {words['how']}, {words['seconds']} s")
        with (folder / LOG).open("a") as log:
            log.write(f"\n===== {group.name}\n{watched.text()[-30_000:]}")
        watched.log.unlink(missing_ok=True)


def last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no word of its process")


def refuse_mixture(settings: Settings) -> None:
    """Raises ValueError for a folder whose rows are not to be gone on with."""
    if not (settings.folder / ROWS).exists():
        return
    if not settings.resume:
        raise ValueError(f"--out is {str(settings.folder)!r}, which has a {ROWS} already; expected --resume, or a folder without")
    held = [row for row in read_rows(settings.folder) if row["kind"] == "fact" and row["name"] == "library"]
    if held and held[-1]["sha256"] != digest():
        raise ValueError(f"--resume is given, but {ROWS} is of another build of the library; expected a folder without it")


def run(settings: Settings, tell: Callable[[str], None] = functools.partial(print, flush=True)) -> int:
    """Runs it, writes the report and returns the exit code: RIGHT, WRONG or COULD_NOT_RUN. Raises ValueError, OSError."""
    if START_METHOD not in multiprocessing.get_all_start_methods():
        raise OSError(f"verify: {platform.system()} does not start processes by {START_METHOD!r}; expected Linux or macOS")
    settings.folder.mkdir(parents=True, exist_ok=True)
    refuse_mixture(settings)
    multiprocessing.get_context(START_METHOD).set_forkserver_preload(["torch"])
    started = Run(settings, tell).all_groups()
    return write_report(settings, tell) if started else COULD_NOT_RUN
