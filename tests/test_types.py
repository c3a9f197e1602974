"""The annotations of the public names, read by mypy: right use passes, wrong use is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RIGHT = """
import torch
import vdiff_kernels as vdiff

q = torch.randn(1, 2, 3, 3, 2, 8)
out: torch.Tensor = vdiff.temporal_attention(q, q, q, rel_bias=torch.randn(2, 3), causal=True, backend="cpu")
out = vdiff.spatial_attention(q, q, q)
x = torch.randn(1, 4, 2, 3, 3)
norm: vdiff.Norm = vdiff.Norm("group", None, None, groups=2)
out = vdiff.norm_act(x, norm, act="silu")
out = vdiff.geglu(torch.randn(3, 4), torch.randn(8, 4), None)
module: torch.nn.Module = vdiff.nn.TemporalAttention(16, 2)
state: vdiff.Availability = vdiff.availability("cpu")
report = vdiff.patch(torch.nn.Sequential(module), exclude=["1.*"], adapters={torch.nn.Linear: lambda module, x, backend: x})
paths: list[str] = [one.path for one in report.replaced]
vdiff.unpatch(module)
with vdiff.backend("reference"):
    print(vdiff.explain(module, torch.randn(1, 2, 3, 3, 16)))
"""
WRONG = {
    "vdiff.temporal_attention('q', q, q)": "arg-type",
    "vdiff.temporal_attention(q, q)": "call-arg",
    "vdiff.availability(3).reason": "arg-type",
    "vdiff.patch(module, exclude=3)": "arg-type",
    "vdiff.nn.TemporalAttention()": "call-arg",
}


@pytest.mark.slow
def test_mypy_reads_the_public_names(tmp_path):
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text("\n".join([*RIGHT.splitlines(), *WRONG]))
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [*command, str(tmp_path / "right.py"), str(tmp_path / "wrong.py")], cwd=ROOT, capture_output=True, text=True
    )
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert len(errors) == len(WRONG) and not any("right.py" in line for line in errors), done.stdout
    for line, (code, kind) in zip(errors, WRONG.items()):
        assert line.endswith(f"[{kind}]"), f"{code}: {line}"
