"""The pages that people read: the README is short, links lead somewhere, and the Python in it runs."""

import re
from pathlib import Path

import pytest

from vdiff_kernels.backends import registry

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "DESIGN.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNNABLE = [ROOT / "README.md", ROOT / "docs" / "backends.md", ROOT / "docs" / "models.md"]
MAX_WORDS = 900

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ELSEWHERE = re.compile(r"[a-z]+:|#")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_readme_is_short():
    words = len((ROOT / "README.md").read_text().split())
    assert words <= MAX_WORDS, f"README.md has {words} words; expected at most {MAX_WORDS}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    links = LINK.findall(FENCE.sub("", page.read_text()))
    relative = {link.partition("#")[0] for link in links if not ELSEWHERE.match(link)}
    missing = sorted(link for link in relative if not (page.parent / link).exists())
    assert not missing, f"{name_of(page)} links to {missing}"


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_python_runs(page, monkeypatch, tmp_path):
    """Every block of a page in one namespace, at its own lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "BACKENDS", dict(registry.BACKENDS))
    text = page.read_text()
    blocks = [block for block in FENCE.finditer(text) if block[1] == "python"]
    assert blocks
    namespace = {"__name__": "__main__"}
    try:
        for block in blocks:
            above = text.count("\n", 0, block.start(2))
            exec(compile("\n" * above + block[2], page, "exec"), namespace)
    finally:
        registry.forget()
