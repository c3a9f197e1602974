"""Imports point only downward: models and diffusion know no data set and no command line, operators nothing above them."""

import ast
from pathlib import Path

import pytest

import vdiff_kernels

ROOT = Path(vdiff_kernels.__file__).parent
# What each part may import of the package, beside itself and the modules at its top.
ALLOWED = {
    "ops": {"testing"},  # the cases that trust.py holds a GPU kernel to
    "nn": {"ops"},
    "models": {"nn", "ops"},
    "diffusion": {"models", "nn", "ops"},
    "data": set(),
    "integrations": {"nn", "ops"},
}


def imported(path: Path) -> set[str]:
    """The parts of the package that a file imports from, by the first name under it."""
    parts = set()
    package = ("vdiff_kernels", *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            target = (*base, *(node.module or "").split(".")) if node.module else base
            names = [(*target, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        parts |= {name[1] for name in names if name[0] == "vdiff_kernels" and len(name) > 1}
    return parts


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_downward(part):
    folders = {folder.name for folder in ROOT.iterdir() if folder.is_dir()}
    for path in (ROOT / part).rglob("*.py"):
        above = imported(path) & folders - ALLOWED[part] - {part}
        assert not above, f"{path.relative_to(ROOT)} imports {', '.join(sorted(above))}"
