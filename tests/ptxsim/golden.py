"""Golden counts: what a kernel moved and took when its figures were last accepted. A figure that gets worse fails its test.

`make golden` (pytest --rewrite-golden, in one process) accepts what it sees.
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
    """The accepted figures of one file of tests/ptxsim/golden, by case."""

    def __init__(self, name: str, rewrite: bool = False, folder: Path = FOLDER):
        self.path, self.rewrite = folder / f"{name}.json", rewrite
        self.held = json.loads(self.path.read_text()) if self.path.exists() else {}

    def compare(self, case: str, found: dict[str, int]) -> None:
        """Raises AssertionError that says which figures are worse, and by how much."""
        if self.rewrite:
            self.held = {"compiler": version(), "cases": dict(sorted({**self.held.get("cases", {}), case: found}.items()))}
            self.path.parent.mkdir(exist_ok=True)
            self.path.write_text(json.dumps(self.held, indent=2) + "\n")
            return
        accepted = self.held.get("cases", {}).get(case)
        if accepted is None:
            raise AssertionError(f"{self.path.name} has no counts of {case!r}: see that they are right, then `make golden`")
        worse = [_in_words(name, found[name], accepted[name]) for name in accepted if found[name] > accepted[name]]
        if worse:
            theirs = self.held["compiler"]
            compiler = "" if theirs == version() else f" (accepted of nvcc {theirs}, this is {version()})"
            raise AssertionError(f"{case} is worse than accepted{compiler}: {'; '.join(worse)}")


def _in_words(name: str, found: int, accepted: int) -> str:
    share = f" (+{found / accepted - 1:.1%})" if accepted else ""
    return f"{name} {found:,}, accepted {accepted:,}{share}"
