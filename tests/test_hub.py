"""The package as Hugging Face's `kernels` loads it: the folder of `make hub`, layers under `kernelize`, one copy a process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kernels._rust import Backend, Build, Digest, DigestAlgorithm, Metadata
from kernels.compat import tomllib
from kernels.variants import parse_variant

import vdiff_kernels

ROOT = Path(__file__).parents[1]


def run(*arguments, **options) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, *map(str, arguments)], env=env, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What `make hub` makes, each file a link to a store, as in the cache that `kernels` downloads to."""
    made, store, linked = (tmp_path_factory.mktemp("hub") / name for name in ("made", "store", "linked"))
    store.mkdir()
    done = run("setup.py", "-q", "hub", "-d", made, cwd=ROOT)
    assert done.returncode == 0, done.stderr

    def link(file, target):
        stored = store / str(sum(1 for _ in store.iterdir()))
        os.rename(file, stored)
        os.symlink(stored, target)

    return Path(shutil.copytree(made, linked, copy_function=link))


def test_it_is_loaded_and_its_layers_take_the_place_of_others(folder, tmp_path):
    done = run(ROOT / "tests" / "hub_probe.py", folder, ROOT / "vdiff_kernels" / "bench" / "seed_blocks.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    name, version = done.stdout.split()
    assert name.startswith("_vdiff_kernels_c") and version == vdiff_kernels.__version__


def test_the_folder_says_what_it_holds(folder):
    (variant,) = (folder / "build").iterdir()
    general = tomllib.loads((ROOT / "build.toml").read_text())["general"]
    backend = parse_variant(variant.name).arch.backend.name
    metadata = Metadata.read_from_file(variant / "metadata.json")
    assert (str(metadata.name), metadata.version, metadata.license) == (general["name"], general["version"], general["license"])
    assert metadata.backend.backend_type == Backend.from_str(backend)
    assert metadata.id.endswith(vdiff_kernels.__version__.replace(".", "_")) and metadata.id.isidentifier()
    metadata.digest.validate(Digest.hash_variant(DigestAlgorithm.SHA256, variant))
    assert {"__init__.py", "py.typed", "weights/moving_digits.safetensors"} <= set(metadata.digest.files)


def test_build_toml_agrees_with_the_package():
    assert Build.open(ROOT).general.backends == [Backend.CPU, Backend.CUDA]
    build, project = (tomllib.loads((ROOT / name).read_text()) for name in ("build.toml", "pyproject.toml"))
    assert build["general"]["license"] == project["project"]["license"]
    assert build["general"]["name"].replace("-", "_") == project["project"]["name"]
    listed = [source for part in (build["torch"], *build["kernel"].values()) for source in part["src"]]
    there = [str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*") if path.suffix in (".cpp", ".cu")]
    assert sorted(listed) == sorted(there)


IMPORTS = {
    "installed": "import vdiff_kernels",
    "hub": "import sys, pathlib, kernels; kernels.get_local_kernel(pathlib.Path(sys.argv[1]), backend='cpu')",
}


@pytest.mark.parametrize("first, second", [("installed", "hub"), ("hub", "installed")])
def test_a_second_copy_is_refused_by_name(folder, first, second):
    (variant,) = (folder / "build").iterdir()
    where = {"installed": ROOT / "vdiff_kernels", "hub": variant}
    done = run("-c", f"{IMPORTS[first]}\n{IMPORTS[second]}", variant, cwd=ROOT)
    expected = (
        f"RuntimeError: vdiff_kernels is loaded already, from {where[first]}; a process takes one copy of it, and not also "
        f"that of {where[second]}"
    )
    assert done.returncode == 1 and expected in done.stderr.splitlines(), done.stderr
