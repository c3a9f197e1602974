"""Golden counts: what a kernel moved and took when its figures were last accepted. A figure that gets worse fails its test,
and so do counts that no test produces any more.

`make golden` (pytest --rewrite-golden, in one process) accepts what it sees, and drops what it does not.
"""

import json
from pathlib import Path

from .registers import Resources, version
from .report import Report

FOLDER = Path(__file__).parent / "golden"


def figures(report: Report, takes: Resources, shared_bytes: int) -> dict[str, int]:
    """Of one launch; less is better, of each."""
    counts, total = report.counts, report.counts.total
    return {
        "global sectors": total.sectors,
        "unique sectors": counts.unique_read_sectors + counts.unique_written_sectors,
        "shared wavefronts": total.wavefronts,
        "tensor-core flops": counts.mma_flops,
        "warp instructions": sum(counts.instructions.values()),
        "atomic requests": total.atomics,
        "block barriers": counts.barriers,
        "registers": takes.registers,
        "spilled bytes": takes.spilled_bytes,
        "stack bytes": takes.stack_bytes,
        "shared bytes": takes.shared_bytes + shared_bytes,
    }


class Golden:
    """The accepted figures of one file of tests/ptxsim/golden, by case: a test's name, then which of its launches."""

    def __init__(self, name: str, folder: Path = FOLDER):
        self.path = folder / f"{name}.json"
        self.held = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.cases: dict[str, dict[str, int]] = self.held.get("cases", {})

    def compare(self, case: str, found: dict[str, int]) -> None:
        """Raises AssertionError that says which figures are worse, and by how much."""
        accepted = self.cases.get(case)
        if accepted is None:
            raise AssertionError(f"{self.path.name} has no counts of {case!r}: see that they are right, then `make golden`")
        worse = [_in_words(name, found[name], accepted[name]) for name in accepted if found[name] > accepted[name]]
        if worse:
            theirs = self.held["compiler"]
            compiler = "" if theirs == version() else f" (accepted of nvcc {theirs}, this is {version()})"
            raise AssertionError(f"{case} is worse than accepted{compiler}: {'; '.join(worse)}")

    def assert_none_stale(self, test: str, launched: set[str]) -> None:
        """Raises AssertionError that lists the counts of launches of that test which it did not make. launched: its cases."""
        stale = [case for case in self.cases if owner_of(case) == test and case not in launched]
        if stale:
            words = "; ".join(stale)
            raise AssertionError(f"{self.path.name} has counts of what {test!r} does not launch, `make golden`: {words}")

    def without_test(self, tests: set[str]) -> list[str]:
        """The cases of no test of these names."""
        return [case for case in self.cases if owner_of(case) not in tests]

    def write(self, cases: dict[str, dict[str, int]]) -> None:
        """The file anew, with these cases and no others."""
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(json.dumps({"compiler": version(), "cases": dict(sorted(cases.items()))}, indent=2) + "\n")


def name_of(nodeid: str) -> tuple[str, str]:
    """(golden file, test) of a pytest node: tests/ops/norm/test_cuda.py::test_statistics[a b] to ("cuda", "statistics[a b]")."""
    path, _, test = nodeid.partition("::")
    return Path(path).stem.removeprefix("test_"), test.removeprefix("test_")


def owner_of(case: str) -> str:
    """The test of a case: parameters may have spaces within their brackets, and what follows them may have brackets too."""
    name, bracket, rest = case.partition("[")
    if " " in name or not bracket:
        return case.partition(" ")[0]
    parameters, end, _ = rest.partition("] ")
    return f"{name}[{parameters}]" if end else case


def _in_words(name: str, found: int, accepted: int) -> str:
    share = f" (+{found / accepted - 1:.1%})" if accepted else ""
    return f"{name} {found:,}, accepted {accepted:,}{share}"
