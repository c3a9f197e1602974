"""Imports point only downward, and never in a circle: the floors of DESIGN.md, section 3, held file by file."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "vdiff_kernels"

# From the ground up. A family's call, definition and schema stand below the backends; its public functions above them.
FLOORS = [
    (
        "arrays",
        "files",
        "interrupt",
        "library",
        "streams",
        "ops.call",
        "ops.checks",
        "ops.tensors",
        "ops.schema",
        "ops.*.call",
        "ops.*.reference",
        "ops.*.schema",
    ),
    ("backends",),
    ("ops",),
    ("nn",),
    ("models", "integrations", "layers", "verify", "bench", "media"),
    ("diffusion",),
    ("data",),  # models and samplers know no data set
    ("verify.day", "verify.__main__"),  # what `vdiff verify` runs
    ("cli",),
    ("",),  # the package itself: public names
]
# What knows how to check a kernel stands above the backends; the package registers it there, to be imported when it is needed.
LAZY = {("", "verify.verdicts")}


def modules() -> dict[str, Path]:
    """Every file by its name within the package: "" of the package itself."""
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(name: str, path: Path, known) -> set[str]:
    """The modules of the package that a file names in an import, wherever in the file that stands."""
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    package = [part for part in package if part]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] in ("tests", "benchmarks") for alias in node.names), path
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level == 0:
            assert node.module.split(".")[0] not in ("tests", "benchmarks", "vdiff_kernels"), path
            continue
        base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
        for alias in node.names:
            whole = ".".join([*base, alias.name])
            found.add(whole if whole in known else ".".join(base))
            assert whole in known or not re.match("_[^_]", alias.name), f"{path} takes {alias.name}, which is another file's own"
    return {other for other in found if (name, other) not in LAZY}


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imports(name, path, known) for name, path in known.items()}


def floor(name: str) -> int:
    found = [
        (len(pattern), level)
        for level, patterns in enumerate(FLOORS)
        for pattern in patterns
        if name == pattern or (pattern and _matches(name.split("."), pattern.split(".")))
    ]
    assert found, f"{name} stands on no floor"
    return max(found)[1]


def _matches(parts: list[str], pattern: list[str]) -> bool:
    return len(parts) >= len(pattern) and all(b in ("*", a) for a, b in zip(parts, pattern))


def test_there_is_no_circle():
    try:
        graphlib.TopologicalSorter(graph()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_imports_point_downward():
    upward = [
        f"{name} imports {other}" for name, others in graph().items() for other in others if other and floor(other) > floor(name)
    ]
    assert not upward, upward


def test_backends_do_not_know_each_other():
    backends = {"composed", "native", "reference", "triton"}
    for name, others in graph().items():
        if name.removeprefix("backends.") in backends:
            assert not {f"backends.{other}" for other in backends} & others, name
