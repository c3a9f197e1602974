"""Building where there is no C++ compiler: a wheel of Python alone, unless the library is demanded."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def wheel(folder: Path, **environment: str) -> subprocess.CompletedProcess:
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "vdiff_kernels", source / "vdiff_kernels", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    command = [sys.executable, "setup.py", "-q", "bdist_wheel", "-d", str(folder)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VDIFF_")}
    return subprocess.run(command, cwd=source, env=kept | environment, capture_output=True, text=True)


def test_without_a_compiler_it_is_python_alone(tmp_path):
    done = wheel(tmp_path, CXX="no-such-compiler")
    assert done.returncode == 0, done.stderr
    assert "no C++ compiler 'no-such-compiler': installing without the compiled library" in done.stdout
    (made,) = tmp_path.glob("*.whl")
    assert made.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(made).namelist()
    assert "vdiff_kernels/__init__.py" in names and not any(name.endswith(".so") for name in names)
    assert any(name.endswith(".safetensors") for name in names)


@pytest.mark.parametrize("variable, value, words", [
    ("VDIFF_NATIVE", "1", "there is no C++ compiler 'no-such-compiler'"),
    ("VDIFF_CUDA", "1", "there is no C++ compiler 'no-such-compiler'"),
    ("VDIFF_NATIVE", "yes", "VDIFF_NATIVE is 'yes'; allowed are auto, 0 and 1"),
])  # fmt: skip
def test_what_is_demanded_is_not_left_out(tmp_path, variable, value, words):
    done = wheel(tmp_path, CXX="no-such-compiler", **{variable: value})
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("vdiff_kernels: ") and words in done.stderr
    assert not list(tmp_path.glob("*.whl"))
