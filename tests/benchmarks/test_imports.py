"""Every script imports; the package imports neither tests nor benchmarks, and no tests but those of benchmarks import them."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "benchmarks").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The packages that a file imports by their absolute names, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_script_imports(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))


def test_the_package_imports_neither_tests_nor_benchmarks():
    assert not [path for path in (ROOT / "vdiff_kernels").rglob("*.py") if imported(path) & {"tests", "benchmarks"}]


def test_scripts_import_of_the_tests_the_simulator_alone():
    static = {"gpu_static.py", "static_subjects.py", "triton_static.py"}
    assert {path.name for path in SCRIPTS if "tests" in imported(path)} == {*static, "simulator.py"}


def test_only_tests_of_benchmarks_import_them():
    elsewhere = [path for path in (ROOT / "tests").rglob("*.py") if Path(__file__).parent not in path.parents]
    assert not [path for path in elsewhere if "benchmarks" in imported(path)]
