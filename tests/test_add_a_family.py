"""docs/add-a-family.md, followed to the letter in a copy of the package: a model of that family is patched."""

import os
import shutil
import subprocess
import sys

from .test_add_an_operator import ROOT, follow

USE = """
import sys
import torch
import tinyvideo
import vdiff_kernels as vdiff
from vdiff_kernels.integrations.guards import digest

assert vdiff_kernels_folder in vdiff.__file__
print("digest", digest(tinyvideo.TemporalMixer))
torch.manual_seed(0)
model = torch.nn.Sequential(tinyvideo.TemporalMixer(16), tinyvideo.TemporalMixer(16)).eval()
x = torch.randn(2, 5, 3, 4, 16)
with torch.no_grad():
    expected = model(x)
    report = vdiff.patch(model)
    torch.testing.assert_close(model(x), expected)
    model[0].to_qkv.register_forward_hook(lambda module, inputs, output: 2 * output)
    vdiff.unpatch(model)
    expected = model(x)
    vdiff.patch(model)
    torch.testing.assert_close(model(x), expected)
    model.train()(x)
print(report)
"""


def run(folder) -> str:
    code = USE.replace("vdiff_kernels_folder", repr(str(folder)))
    env = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_adds_a_family(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__", "weights", "_C.so")
    shutil.copytree(ROOT / "vdiff_kernels", tmp_path / "vdiff_kernels", ignore=ignored)
    (tmp_path / "tinyvideo").mkdir()
    follow((ROOT / "docs" / "add-a-family.md").read_text(), tmp_path)
    found = run(tmp_path)
    assert "0 modules served, 2 candidates left alone" in found and "the code of tinyvideo.TemporalMixer is of a version" in found
    known = tmp_path / "vdiff_kernels" / "integrations" / "known.py"
    known.write_text(known.read_text().replace("DIGEST", found.split()[1]))
    found = run(tmp_path)
    assert "2 modules served, 0 candidates left alone" in found
    assert "2 TemporalMixer  norm, projections, attention and sum, no permutes" in found
    assert "it is training with p above 0" in found
