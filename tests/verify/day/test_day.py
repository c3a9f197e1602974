"""`vdiff verify`, rehearsed on the CPU backend: what crashes, hangs or is wrong in one kernel call takes nothing else with it."""

import collections
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vdiff_kernels
from tests.verify.day import planted
from vdiff_kernels.verify.day import plan, runner
from vdiff_kernels.verify.day.rows import ROWS, read_rows

PACKAGE = Path(vdiff_kernels.__file__).parent


def of(rows, kind, group=None):
    return [row for row in rows if row["kind"] == kind and group in (None, row["group"])]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """In each of several processes beside others: threads that wait for each other would take many times as long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """(the exit code, its rows, what it printed, its folder): one run with each fault planted in a group of its own."""
    folder, markers, printed = tmp_path_factory.mktemp("day"), tmp_path_factory.mktemp("markers"), []
    faults = {"hostile": "crash", "variants": "hang", "real": "wrong", "temporal": "memory"}
    prepare = functools.partial(planted.prepare, faults, markers)
    settings = plan.Settings(
        folder, "cpu", 4, ("start", "rates", "counters", *faults), stall=12, quick=True, prepare=prepare
    )  # fmt: skip
    code = runner.run(settings, printed.append)
    return code, read_rows(folder), "\n".join(printed), folder


def test_each_fault_is_named_where_it_is(day):
    code, rows, printed, folder = day
    assert code == plan.WRONG
    (crashed,), (hung,) = of(rows, "lost", "hostile"), of(rows, "lost", "variants")
    assert crashed["how"] == "ended by SIGSEGV" and hung["how"] == "stopped: no row for 12 s"
    (wrong,) = [row for row in of(rows, "check") if not row["passed"]]
    assert wrong["group"] == "real" and "out: maximum error" in wrong["detail"]
    (beyond,) = [row for row in of(rows, "error") if "| SDPA" not in row["name"]]
    assert beyond["group"] == "temporal" and "out of memory" in beyond["error"]
    report = (folder / "report.md").read_text()
    for row, word in ((crashed, "LOST"), (hung, "LOST"), (wrong, "WRONG"), (beyond, "ERROR")):
        assert any(line.startswith(f"{word} {row['group']}: {row['name']}") for line in printed.splitlines())
        assert f"- **{word}** {row['group']}: {row['name']}" in report
    assert json.loads((folder / "report.json").read_text())["exit_code"] == plan.WRONG


def test_everything_else_is_there(day):
    _, rows, printed, folder = day
    assert len(of(rows, "lost")) == 2
    for group in ("hostile", "variants"):
        begun = {row["name"] for row in of(rows, "begin", group)}
        right = {row["name"] for row in of(rows, "check", group) if row["passed"]}
        assert len(begun) > 10 and begun - right == {row["name"] for row in of(rows, "lost", group)}
    assert {row["name"] for row in of(rows, "time", "rates")} == {"copy", "matrix product"}
    assert all(row["completed"] for row in of(rows, "group")) and len(of(rows, "group")) == 7
    (absent,) = of(rows, "absent")
    assert absent["name"] == "ncu" and "ncu" in (folder / "report.md").read_text() and "ERROR counters" not in printed
    files = {path.name for path in folder.iterdir()}
    assert files <= {ROWS, "log.txt", "report.md", "report.json", "report-temporal.png"}


def test_of_a_rival_that_cannot_run_its_error_is_in_the_report(day):
    """SDPA's flash kernel takes no mask that wants a gradient."""
    _, rows, printed, folder = day
    refused = [row for row in of(rows, "error") if row["name"].endswith("| SDPA flash")]
    assert refused and "No available kernel" in (folder / "report.md").read_text()
    assert f"without a time: temporal: {refused[0]['name']}" in printed


RUN = """
import functools, signal, sys
from pathlib import Path
from tests.verify.day import planted
from vdiff_kernels.verify.day import plan, runner

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
folder, marker = map(Path, sys.argv[1:])
prepare = functools.partial(planted.prepare, {"variants": "hang"}, marker.parent)
sys.exit(runner.run(plan.Settings(folder, "cpu", 2, ("start", "variants"), resume=True, prepare=prepare)))
"""


def test_killed_in_the_middle_and_resumed(tmp_path):
    """Whatever it was killed with: nothing is lost, nothing is done twice, and no process goes on writing."""
    folder, marker = tmp_path / "out", tmp_path / "variants"  # which is there once the kernel hangs

    def started() -> subprocess.Popen:
        command = [sys.executable, "-c", RUN, str(folder), str(marker)]
        return subprocess.Popen(command, cwd=PACKAGE.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    for number in (signal.SIGKILL, signal.SIGINT):
        marker.unlink(missing_ok=True)
        process = started()
        while not marker.exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate(timeout=30)
        time.sleep(0.5)
        before = read_rows(folder)
        time.sleep(0.5)
        assert read_rows(folder) == before and not (folder / "report.md").exists()
        assert len(of(before, "check")) < 24
    process = started()
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == plan.RIGHT and "24 of 24 right" in printed
    assert printed.splitlines()[-1].startswith("all right")
    results = collections.Counter(row["name"] for row in of(read_rows(folder), "check"))
    assert set(results.values()) == {1} and not of(read_rows(folder), "lost")


def test_a_folder_of_rows_is_not_mixed_with_others(tmp_path):
    (tmp_path / ROWS).write_text('{"group": "start", "kind": "fact", "name": "library", "sha256": "another", "at": 1}\n')
    for resume, message in ((False, "--out is .* has a results.jsonl already"), (True, "another build of the library")):
        with pytest.raises(ValueError, match=message):
            runner.run(plan.Settings(tmp_path, "cpu", resume=resume))
    assert os.listdir(tmp_path) == [ROWS]


def verify(*arguments, package: Path = PACKAGE, **environment) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "vdiff_kernels.verify", *map(str, arguments)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), **environment}
    return subprocess.run(command, cwd=package.parent, env=environment, capture_output=True, text=True, timeout=120)


def test_without_a_gpu_it_could_not_run(tmp_path):
    done = verify("--out", tmp_path)
    assert done.returncode == plan.COULD_NOT_RUN and "the start failed, so nothing else was tried" in done.stdout
    assert {row["group"] for row in read_rows(tmp_path)} == {"start"}


def test_without_the_library_it_could_not_run(tmp_path):
    package = tmp_path / "vdiff_kernels"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__", "weights"))
    done = verify("--device", "cpu", "--out", tmp_path / "out", package=package)
    assert done.returncode == plan.COULD_NOT_RUN and "the compiled library is missing" in done.stdout


def test_it_does_not_pass_its_minutes(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "REPORT_SECONDS", 4)
    monkeypatch.setattr(runner, "SMALLEST_START", 1)
    began = time.monotonic()
    prepare = functools.partial(planted.prepare, {"variants": "hang"}, tmp_path)
    settings = plan.Settings(tmp_path, "cpu", 0.2, ("start", "variants", "real"), prepare=prepare)
    code = runner.run(settings, lambda line: None)
    assert time.monotonic() - began < 12 and code == plan.WRONG  # what was not held is not said to be right
    ends = {row["name"]: row["how"] for row in of(read_rows(tmp_path), "group")}
    assert ends["variants"] == plan.OVER and ends["real"] == plan.NOT_BEGUN
