"""The page of GPU days: which row counts, what makes no ratio, and that nothing bad is left off it."""

import json
from pathlib import Path

import pytest

from vdiff_kernels.verify.day.report import document, plots
from vdiff_kernels.verify.day.report.counters import beside_simulated
from vdiff_kernels.verify.day.report.rows import read_days

SHAPE = "SVD B2 T14 H72 W128 N5 D64"
NO_KERNEL = "RuntimeError: No available kernel. Aborting execution."


def facts(gpu: str | None = "NVIDIA H200", torch: str = "2.11.0") -> list[dict]:
    versions = {"kind": "fact", "group": "start", "name": "versions", "torch": torch}
    named = {"kind": "fact", "group": "start", "name": "gpu", "gpu": gpu, "multiprocessors": 132, "L2_bytes": 1, "bytes": 1}
    return [versions, named] if gpu else [versions]


def time(rival: str, us: float, error: float = 2e-3, group: str = "temporal", **fields) -> dict:
    name = f"temporal {SHAPE} fwd"
    taken = {"us": us, "host_us": 30, "spread": 0.01, "peak_bytes": 2**20, "graph": True, "bytes": 4e8, "flops": 1e9}
    return {"kind": "time", "group": group, "name": name, "rival": rival, "error": error, **taken, **fields}


def failed(rival: str, kind: str = "error", **fields) -> dict:
    return {"kind": kind, "group": "temporal", "name": f"temporal {SHAPE} fwd | {rival}", **fields}


def rates(copy: float = 4e6) -> list[dict]:
    """copy: bytes a us."""
    return [
        time("slow", 4e8 / copy * 2, group="rates") | {"name": "copy"},
        time("fast", 4e8 / copy, group="rates") | {"name": "copy"},
        time("torch", 1, group="rates") | {"name": "matrix product", "flops": 1e9},
    ]


def file_of(folder: Path, name: str, rows: list[dict]) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps({"at": 1.8e9, **row}) + "\n" for row in rows))
    return path


def page_of(folder: Path, *days: list[dict]) -> str:
    out = folder / "docs" / "page.md"
    paths = [file_of(folder, f"day-{i}.jsonl", rows) for i, rows in enumerate(days)]
    document.write(read_days(paths), out, "a command")
    return out.read_text()


def cells(page: str, shape: str = SHAPE) -> dict[str, str]:
    """The row of that shape, by the words of its table's header."""
    lines = page.splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith(f"| {shape} | fwd |")]
    header = next(lines[i - 1] for i in range(at, 0, -1) if lines[i].startswith("| --- |"))
    return dict(zip(*([cell.strip() for cell in line.strip("|").split("|")] for line in (header, lines[at]))))


def test_the_later_file_wins(tmp_path):
    first = [*facts(), *rates(), time("vdiff", 400), time("eager", 1200), time("SDPA math", 800), failed("SDPA flash", error="x")]
    later = [time("vdiff", 200), time("eager", 1200), failed("SDPA math", "lost", how="SIGSEGV"), time("SDPA flash", 500)]
    row = cells(page := page_of(tmp_path, first, later))
    assert row["vdiff, us"] == "200" and row["eager"] == "6.00x" and row["SDPA flash"] == "**2.50x**"
    assert row["SDPA math"] == "- (1)" and "- (1) lost: SIGSEGV" in page
    assert "| vdiff | 400 | 200 | -50% |" in page  # and that it did is said
    assert cells(page_of(tmp_path, later, first))["eager"] == "3.00x"


def test_a_ratio_over_two_files_is_marked(tmp_path):
    page = page_of(tmp_path, [*rates(), time("vdiff", 400), time("eager", 1200)], [time("vdiff", 200)])
    assert cells(page)["eager"] == "**6.00x** (1)" and "- (1) of another file than our time" in page


def test_the_floor_is_by_the_fastest_copy_or_by_the_product(tmp_path):
    day = [time("vdiff", 400), time("eager", 1200)]
    by_bytes = cells(page_of(tmp_path, rates(), day))
    assert (by_bytes["floor, us"], by_bytes["share"], by_bytes["TB/s"]) == ("100", "25%", "1.00")
    by_flops = cells(page_of(tmp_path, rates(), [row | {"flops": 3e11} for row in day]))
    assert (by_flops["floor, us"], by_flops["share"]) == ("300", "75%")


@pytest.mark.parametrize("other", [facts(gpu="NVIDIA H100"), facts(torch="2.10.0"), facts(gpu=None)])
def test_days_of_different_gpus_are_refused(tmp_path, other):
    files = [file_of(tmp_path, f"{i}.jsonl", [*own, time("vdiff", 100)]) for i, own in enumerate((facts(), other))]
    with pytest.raises(ValueError, match="the files differ in their .*0.jsonl: .*1.jsonl: "):
        read_days(files)


@pytest.mark.parametrize("text", ["", "[1]\nno row\n", None])
def test_a_file_without_rows_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "empty.jsonl").write_text(text)
    with pytest.raises(ValueError, match="empty.jsonl .*expected the results.jsonl of `vdiff verify`"):
        read_days([tmp_path / "empty.jsonl"])


def test_of_a_wrong_result_no_ratio_is_made(tmp_path):
    page = page_of(tmp_path, [*rates(), time("vdiff", 400), time("eager", 1200), time("SDPA flash", 40, error=0.03)])
    row = cells(page)
    assert row["SDPA flash"] == "wrong (1)" and "- (1) relative error 3.0e-02" in page
    assert row["eager"] == "**3.00x**" and row["vdiff, us"] == "400"  # what is wrong leads nothing: no ✗
    assert cells(page_of(tmp_path, [*rates(), time("vdiff", 400), time("eager", 390)]))["vdiff, us"] == "400 ✗"


@pytest.mark.parametrize("error", [0.03, float("nan"), float("inf")])
def test_of_our_wrong_result_nothing_is_made(tmp_path, error):
    page = page_of(tmp_path, [*rates(), time("vdiff", 400, error=error), time("eager", 1200)])
    row = cells(page)
    assert row["vdiff, us"] == "wrong (1)" and row["eager"] == "wrong" and row["share"] == row["TB/s"] == "-"
    assert f"**WRONG** temporal: temporal {SHAPE} fwd: relative error" in page


def test_what_was_wrong_lost_or_raised_is_on_the_page(tmp_path):
    def of(kind, name, group="hostile", **fields):
        return {"kind": kind, "group": group, "name": name, **fields}

    page = page_of(tmp_path, [
        of("check", "good", passed=True, share=0.25), of("check", "bad", passed=False, detail="out: maximum error\nin row 3"),
        of("lost", "hung", how="stopped: no row for 40 s"), of("error", "raised", error="RuntimeError: a <thing>"),
        of("check", "builds", group="tuning", passed=False, detail="not of this page"),
        of("group", "hostile", completed=False, how="ended by SIGSEGV"), failed("vdiff", error="RuntimeError: ours"),
        failed("eager", error=NO_KERNEL), of("check", "side stream", group="contract", passed=False, relative_error=0.5),
    ])  # fmt: skip
    assert "| `hostile` | 1 of 4 | 1 | 1 | 0.25 | ended by SIGSEGV |" in page
    for line in (
        "**WRONG** hostile: bad: out: maximum error in row 3", "**LOST** hostile: hung: stopped: no row for 40 s",
        "**ERROR** hostile: raised: RuntimeError: a &lt;thing>", "**ENDED** hostile: ended by SIGSEGV",
        f"**ERROR** temporal: temporal {SHAPE} fwd | vdiff: RuntimeError: ours", "**WRONG** contract: side stream",
    ):  # fmt: skip
        assert f"\n- {line}" in page
    assert "did not end well: 6." in page and "| side stream | **not held** |" in page
    assert "not of this page" not in page and "| eager" not in page


def test_an_absent_rival_shows_its_reason(tmp_path):
    page = page_of(tmp_path, [*rates(), time("vdiff", 400), failed("SDPA flash", error=NO_KERNEL), time("eager", 800)])
    assert cells(page)["SDPA flash"] == "- (1)" and f"- (1) {NO_KERNEL}" in page and cells(page)["eager"] == "**2.00x**"


def test_counters_stand_beside_the_simulator_s_of_the_same_launch():
    kernel = "short_attention_fwd_kernel<BFloat16, 8>"
    launches = [{"kernel": kernel, "warp instructions": count} for count in (300.0, 800.0)]
    simulated = {f"{kernel} (2)": {"warp instructions": 400}, kernel: {"warp instructions": 200}}
    words, page = beside_simulated([{"name": "temporal_attention-two", "launches": launches, "simulated": simulated}])
    assert f"| `{kernel}` | 300 | 200 | 1.50 |" in page and f"| `{kernel} (2)` | 800 | 400 | 2.00 |" in page
    assert "warp instructions 1.75 (1.50 to 2.00)" in words


def test_the_page_and_its_plots_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    day = [*facts(), *rates(), time("vdiff", 400), time("eager", 1200)]
    page_of(tmp_path, [*day, time("vdiff", 300)])
    docs = tmp_path / "docs"
    before = {path.name: path.read_bytes() for path in docs.iterdir()}
    assert set(before) == {"page.md", "page-temporal.png"} and b"(page-temporal.png)" in before["page.md"]

    def interrupted(figure, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(plots, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        page_of(tmp_path, day)
    assert {path.name: path.read_bytes() for path in docs.iterdir()} == before
