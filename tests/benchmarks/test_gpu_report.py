"""The script of the page: its one line where it refuses, and that it still reads the days that are kept."""

import sys
from pathlib import Path

import pytest

from benchmarks import gpu_report

RESULTS = Path(gpu_report.__file__).parent / "results"


def test_it_refuses_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu_report", str(tmp_path / "nothing.jsonl"), "--out", str(tmp_path / "page.md")])
    with pytest.raises(SystemExit) as ended:
        gpu_report.main()
    assert ended.value.code == 1 and capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "page.md").exists()


def test_it_makes_the_page_of_the_days_that_are_kept(tmp_path, monkeypatch):
    days = [str(RESULTS / f"h200-2026-11-28-{which}.jsonl") for which in ("first", "second")]
    monkeypatch.setattr(sys, "argv", ["gpu_report", *days, "--out", str(tmp_path / "page.md")])
    gpu_report.main()
    page = (tmp_path / "page.md").read_text()
    assert "# Measured on NVIDIA H200" in page and "141 of 141" in page and page.count("| fwd |") > 20
