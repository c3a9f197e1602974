"""Which backend serves a call, how that is said, and what happens without the compiled library and without Triton."""

import os
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

import vdiff_kernels as vdiff
from vdiff_kernels.ops import backend as backends

Q = torch.randn(1, 2, 1, 1, 1, 4)


def served_by(monkeypatch) -> list[str]:
    """Records the backend of every fused call."""
    from vdiff_kernels.ops.attention import api

    calls = []
    monkeypatch.setattr(api, "attention", lambda kind, name, q, *rest: (calls.append(name), q)[1])
    monkeypatch.setattr(api.reference, "temporal_attention", lambda q, *rest, **more: (calls.append("reference"), q)[1])
    return calls


def test_auto_takes_the_native_library_on_cpu(monkeypatch):
    calls = served_by(monkeypatch)
    vdiff.temporal_attention(Q, Q, Q)
    assert calls == ["cpu"]


def test_context_manager_sets_and_restores_the_default(monkeypatch):
    calls = served_by(monkeypatch)
    with vdiff.backend("reference"):
        vdiff.temporal_attention(Q, Q, Q)
        with vdiff.backend(None):
            vdiff.temporal_attention(Q, Q, Q)
        vdiff.temporal_attention(Q, Q, Q, backend="cpu")  # explicit wins
    vdiff.temporal_attention(Q, Q, Q)
    with pytest.raises(ZeroDivisionError), vdiff.backend("reference"):
        1 / 0
    vdiff.temporal_attention(Q, Q, Q)
    assert calls == ["reference", "cpu", "cpu", "cpu", "cpu"]


def test_modules_take_a_backend(monkeypatch):
    from vdiff_kernels.ops.attention import api

    seen = []
    monkeypatch.setattr(api, "resolve", lambda name, op, x: (seen.append(name), "reference")[1])
    vdiff.nn.TemporalAttention(8, 2, backend="triton")(torch.randn(1, 2, 1, 1, 8))
    assert seen == ["triton"]


@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_an_explicit_backend_never_falls_back(name):
    with pytest.raises(ValueError, match=f"temporal_attention: backend is '{name}', which cannot serve this call: .*; expected"):
        vdiff.temporal_attention(Q, Q, Q, backend=name)
    with vdiff.backend(name), pytest.raises(ValueError, match=name):
        vdiff.temporal_attention(Q, Q, Q)


def test_availability_gives_the_reason():
    assert vdiff.availability("reference") and vdiff.availability("cpu")
    for name in ("cuda", "triton"):
        state = vdiff.availability(name)
        assert not state and state.reason and name in str(state)
    with pytest.raises(ValueError, match="availability: name is 'gpu'; expected one of 'reference', 'cpu', 'cuda', 'triton'"):
        vdiff.availability("gpu")
    with pytest.raises(ValueError, match="backend: name is 'gpu'"):
        vdiff.backend("gpu")


def test_auto_on_a_gpu_without_kernels_warns_once(monkeypatch):
    """No GPU here: the choice is made from the tensor's device and dtype alone."""
    on_gpu = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)
    monkeypatch.setattr(backends, "_warned", set())
    with pytest.warns(UserWarning, match="eager PyTorch serves geglu on this GPU \\(cuda: .*; triton: this version has no Triton kernels\\)"):
        assert backends._auto("geglu", on_gpu) == "reference"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert backends._auto("geglu", on_gpu) == "reference"


def test_every_operator_has_a_native_kernel_or_is_composed():
    public = {"temporal_attention", "spatial_attention", "temporal_layer", "spatial_layer", "norm_act", "norm_act_conv"}
    assert backends._SERVED["cpu"] == public | {"pseudo3d_conv", "geglu"}


def python(code: str, **environment) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_environment_variable():
    code = "import vdiff_kernels.ops.backend as b, torch; print(b.resolve(None, 'geglu', torch.ones(1)))"
    assert python(code, VDIFF_BACKEND="reference").stdout.strip() == "reference"
    assert python(code, VDIFF_BACKEND="").stdout.strip() == "cpu"
    wrong = python(code, VDIFF_BACKEND="gpu")
    assert wrong.returncode != 0
    assert "ValueError: the environment variable VDIFF_BACKEND is 'gpu'; expected one of" in wrong.stderr


WITHOUT = """
import sys, importlib.abc, pathlib
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "triton":
            raise ModuleNotFoundError("No module named 'triton' (blocked)", name="triton")
sys.meta_path.insert(0, Block())
import torch
real = torch.ops.load_library
def refuse(path):
    raise OSError("blocked")
torch.ops.load_library = refuse
import vdiff_kernels as vdiff
assert "triton" not in sys.modules
q = torch.randn(1, 3, 2, 2, 2, 8, requires_grad=True)
out = vdiff.temporal_attention(q, q, q)  # auto
out.sum().backward()
assert torch.equal(out, vdiff.temporal_attention(q, q, q, backend="reference"))
block = vdiff.nn.Pseudo3DBlock(4, 8)
block(torch.randn(1, 3, 4, 5, 5)).sum().backward()
for name in ("cpu", "cuda", "triton"):
    state = vdiff.availability(name)
    assert not state, state
assert "blocked" in vdiff.availability("cpu").reason
try:
    vdiff.temporal_attention(q, q, q, backend="cpu")
except ValueError as error:
    print(error)
"""


def test_works_without_triton_and_without_the_library():
    run = python(WITHOUT)
    assert run.returncode == 0, run.stderr
    assert "backend is 'cpu', which cannot serve this call: the compiled library did not load: blocked" in run.stdout


def test_a_missing_library_says_so():
    code = "import pathlib, vdiff_kernels.ops.library as l; l.LIBRARY_FILE = pathlib.Path('/nonexistent/_C.so'); print(l.load())"
    assert "the compiled library is missing" in python(code).stdout
