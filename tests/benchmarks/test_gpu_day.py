"""The GPU day, rehearsed on the CPU backend: what crashes, hangs or is wrong in one kernel call takes nothing else with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def rehearse(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "benchmarks.gpu_day", "--device", "cpu", "--out", str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """(its rows, what it printed): one day with each fault planted in a group of its own."""
    folder = tmp_path_factory.mktemp("day")
    faults = "crash@hostile", "hang@variants", "wrong@real"
    done = rehearse(folder, "--only", "start", "variants", "hostile", "real", "rates", "--stall", "6", "--rehearse", *faults)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()], done.stdout


def of(rows, kind, group=None):
    return [row for row in rows if row["kind"] == kind and group in (None, row["group"])]


def test_each_fault_is_named_where_it_is(day):
    rows, printed = day
    (crashed,), (hung,) = of(rows, "lost", "hostile"), of(rows, "lost", "variants")
    assert crashed["how"] == "ended by SIGSEGV" and hung["how"] == "stopped: no row for 6 s"
    (wrong,) = [row for row in of(rows, "check") if not row["passed"]]
    assert wrong["group"] == "real" and "out: maximum error" in wrong["detail"]
    for row, word in ((crashed, "LOST "), (hung, "LOST "), (wrong, "WRONG")):
        assert any(line.startswith(word) and row["name"] in line for line in printed.splitlines())


def test_everything_else_is_there(day):
    rows, _ = day
    assert len(of(rows, "lost")) == 2 and not of(rows, "error")
    for group in ("hostile", "variants"):
        begun = {row["name"] for row in of(rows, "begin", group)}
        right = {row["name"] for row in of(rows, "check", group) if row["passed"]}
        assert len(begun) > 10 and begun - right == {row["name"] for row in of(rows, "lost", group)}
    assert {row["name"] for row in of(rows, "time", "rates")} == {"copy", "matrix product"}
    assert all(row["completed"] for row in of(rows, "group")) and len(of(rows, "group")) == 5


def test_a_second_day_does_not_go_into_the_first_ones_folder(tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    done = rehearse(tmp_path, "--only", "start")
    assert done.returncode == 2 and "has a rows.jsonl already" in done.stderr
    assert (tmp_path / "rows.jsonl").read_text() == ""


def test_without_a_gpu_the_day_ends_at_its_start(tmp_path):
    command = [sys.executable, "-m", "benchmarks.gpu_day", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode != 0 and "the start failed" in done.stderr
    groups = [json.loads(line)["group"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert set(groups) == {"start"}
