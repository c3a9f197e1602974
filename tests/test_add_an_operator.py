"""docs/add-an-operator.md, followed to the letter in a copy of the package: the operator is there and within the budget."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

USE = """
import torch
import vdiff_kernels
from vdiff_kernels import verify
from vdiff_kernels.backends import registry
from vdiff_kernels.ops.scaling.api import channel_scale
from vdiff_kernels.verify.inputs import PUBLIC

assert vdiff_kernels.__file__.startswith({folder!r})
cases = [case for case in verify.CASES if case.operator == "channel_scale"]
for case in cases:
    for dtype in verify.DTYPES:
        for backend in (None, "reference"):
            verify.check(case, dtype, backend)
assert len(cases) == 3
assert registry.OPERATORS.keys() == PUBLIC.keys() == {{case.operator for case in verify.CASES}}
x = torch.randn(1, 3, 2, 2, 2)
try:
    channel_scale(x, torch.ones(4))
except ValueError as error:
    print(error)
try:
    channel_scale(x, torch.ones(3), backend="cpu")
except ValueError as error:
    print(error)
print(vdiff_kernels.explain(channel_scale, x, torch.ones(3), device="sm_90"))
"""


def follow(page: str, root: Path) -> None:
    for words, code in re.findall(r"^```python (.+?)\n(.*?)^```$", page, flags=re.M | re.S):
        where, path, rest = re.fullmatch(r"(file|in)=(\S+)\s*(.*)", words).groups()
        target = root / path
        if where == "file":
            target.parent.mkdir(exist_ok=True)
            target.write_text(code)
            continue
        text = target.read_text()
        if rest == "at-end":
            target.write_text(text + "\n\n" + code)
        else:
            mark = re.fullmatch(r'before="(.+)"', rest)[1].replace(r"\"", '"')
            assert text.count(mark) == 1
            target.write_text(text.replace(mark, f"{code}\n{mark}"))


def test_the_page_adds_an_operator(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__", "weights")
    shutil.copytree(ROOT / "vdiff_kernels", tmp_path / "vdiff_kernels", ignore=ignored)
    follow((ROOT / "docs" / "add-an-operator.md").read_text(), tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = [sys.executable, "-c", USE.format(folder=str(tmp_path))]
    done = subprocess.run(run, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wrong, unserved, *explained = done.stdout.splitlines()
    assert wrong == "channel_scale: scale has shape (4,); expected (C,) = (3,)"
    assert unserved.startswith("channel_scale: backend is 'cpu', which cannot serve this call: it has no channel_scale")
    assert explained[1] == "channel_scale (1, 3, 2, 2, 2) float32: reference"
    assert "    not composed: it has no channel_scale" in explained
