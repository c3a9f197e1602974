"""Why the Triton backend does not serve: each reason is one line, which an explicit backend raises and auto passes by."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys

import pytest
import torch

import vdiff_kernels as vdiff
from vdiff_kernels.backends import registry, triton
from vdiff_kernels.ops.call import Described
from vdiff_kernels.ops.feedforward.call import GegluCall

ROWS = Described((2, 4), torch.float32, torch.device("cuda"))
CALL = GegluCall("geglu", ROWS, ROWS, None)


@pytest.fixture(autouse=True)
def asked_anew():
    triton._why_no_triton.cache_clear()
    registry.forget()
    yield
    triton._why_no_triton.cache_clear()
    registry.forget()


def a_gpu(monkeypatch, capability=(9, 0)):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=None: "NVIDIA Test")


def no_triton(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def a_finder_that_raises(monkeypatch):
    def find_spec(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def an_old_triton(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.3.1")


def a_cpu_build(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)


def no_driver(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def an_old_gpu(monkeypatch):
    a_gpu(monkeypatch, (7, 5))


REASONS = {
    no_triton: "Triton is not installed (pip install triton)",
    a_finder_that_raises: "Triton is not installed (pip install triton)",
    an_old_triton: "Triton 3.3.1 is too old; expected 3.6 or newer",
    a_cpu_build: f"this torch ({torch.__version__}) is a CPU build",
    no_driver: "torch finds no NVIDIA GPU, or no driver",
    an_old_gpu: "NVIDIA Test (sm_75) is too old; expected compute capability 8.0 or newer",
}


@pytest.mark.parametrize("lacks", REASONS, ids=lambda lacks: lacks.__name__)
def test_a_reason(monkeypatch, lacks):
    a_gpu(monkeypatch)
    lacks(monkeypatch)
    state = vdiff.availability("triton")
    assert not state and str(state) == f"triton: not available: {REASONS[lacks]}"
    with pytest.raises(ValueError) as raised:
        registry._served(CALL, "triton", False)
    expected = f"geglu: backend is 'triton', which cannot serve this call: {REASONS[lacks]}; expected one of"
    assert str(raised.value).startswith(expected) and "\n" not in str(raised.value)
    monkeypatch.setattr(registry.BACKENDS["cuda"], "kernels", {})
    monkeypatch.setattr(registry, "_warned", set())
    with pytest.warns(UserWarning) as warned:
        assert registry._auto(CALL) == "composed"
    assert f"triton: {REASONS[lacks]}" in str(warned[0].message)


def test_auto_takes_it_where_the_compiled_library_has_no_kernel(monkeypatch):
    a_gpu(monkeypatch)
    monkeypatch.setattr(registry.BACKENDS["cuda"], "kernels", {})
    monkeypatch.setattr(registry, "first_use_check", lambda name, variant: None)
    assert vdiff.availability("triton")
    assert registry._auto(CALL) == registry._served(CALL, "triton", False).backend == "triton"


def test_what_it_never_serves(monkeypatch):
    a_gpu(monkeypatch)
    double = Described((2, 4), torch.float64, torch.device("cuda"))
    with pytest.raises(ValueError, match="it has no float64 kernels"):
        registry._served(GegluCall("geglu", double, double, None), "triton", False)
    x = torch.randn(2, 4)
    with pytest.raises(ValueError, match="it runs on cuda tensors and these are on cpu; expected one of 'reference'"):
        vdiff.geglu(x, x, None, backend="triton")


def test_a_triton_of_another_name_says_its_version(monkeypatch):
    """PyTorch's nightly builds bring it as pytorch-triton."""

    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert triton.why_no_triton() is None and triton.digest_of_kernels().startswith("Triton 3.")


ALONE = """
import torch
def refuse(path):
    raise OSError("blocked")
torch.ops.load_library = refuse
import vdiff_kernels as vdiff
x, w = torch.randn(6, 4, requires_grad=True), torch.randn(8, 4)
assert not vdiff.availability("cpu")
print(vdiff.availability("triton"))
out = vdiff.geglu(x, w, None, backend="triton")
torch.testing.assert_close(out, vdiff.geglu(x, w, None, backend="reference"))
out.sum().backward()
"""


def test_it_needs_no_compiled_library():
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "TRITON_INTERPRET": "1"}
    run = subprocess.run([sys.executable, "-c", ALONE], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("triton: available: Triton's interpreter, on a CPU, runs channel_stats, geglu")
