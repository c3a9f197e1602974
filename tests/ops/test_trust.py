"""Auto on a GPU: a kernel is held to its definition once, the verdict is kept and said. No GPU here: its facts are given, and the CPU
kernels stand in for its own."""

import json
import logging
import re
import warnings
from types import SimpleNamespace

import pytest
import torch

import vdiff_kernels as vdiff
from vdiff_kernels.ops import backend as backends
from vdiff_kernels.ops import gpu, library, trust
from vdiff_kernels.ops.attention import autograd, native

ON_GPU = SimpleNamespace(device=torch.device("cuda", 0), dtype=torch.float32)


class Kernels:
    """ops/attention/native.py's, with results that are off by a factor."""

    def __init__(self, factor=1.0):
        self.factor, self.calls = factor, 0
        self.backward, self.backward_needs = native.backward, native.backward_needs
        self.forward = {kind: self._off(function) for kind, function in native.forward.items()}

    def _off(self, function):
        def call(*arguments):
            self.calls += 1
            out, lse = function(*arguments)
            return out * self.factor, lse

        return call


@pytest.fixture
def on_gpu(monkeypatch, tmp_path):
    """on_gpu(kernels) is a new process on a machine with a GPU, whose CUDA kernels are these."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(gpu, "name", lambda index: "NVIDIA H100 (sm_90)")
    monkeypatch.setattr(trust, "_device", lambda index: torch.device("cpu"))
    monkeypatch.setattr(backends, "_why_not", lambda name, *call: None if name == "cuda" else "it has no kernels")
    monkeypatch.setattr(backends, "_warned", set())

    def process(kernels):
        monkeypatch.setattr(trust, "_verdicts", {})
        monkeypatch.setattr(trust, "_answers", {})
        monkeypatch.setitem(autograd._KERNELS, "cuda", kernels)
        return kernels

    return process


def test_a_right_kernel_is_checked_once_and_kept(on_gpu, caplog):
    caplog.set_level(logging.INFO, "vdiff_kernels")
    kernels = on_gpu(Kernels())
    assert backends._auto("temporal_attention", ON_GPU) == "cuda"
    (said,) = caplog.messages
    assert "checked temporal_attention (float32) of backend 'cuda'" in said and "NVIDIA H100 (sm_90): right" in said
    assert str(trust.cache_file()) in said
    calls = kernels.calls
    assert calls > 0 and backends._auto("temporal_attention", ON_GPU) == "cuda" and kernels.calls == calls

    again = on_gpu(Kernels(factor=2.0))  # the next process does not look: the verdict is kept
    assert backends._auto("temporal_attention", ON_GPU) == "cuda" and again.calls == 0
    assert trust.known("cuda") == ["temporal_attention float32 right"]


def test_a_wrong_kernel_is_left_alone_and_said_so(on_gpu):
    on_gpu(Kernels(factor=1.01))
    with pytest.warns(UserWarning) as warned:
        assert backends._auto("spatial_attention", ON_GPU) == "reference"
    differs, eager = (str(one.message) for one in warned)
    assert "it differs, so auto leaves it to eager PyTorch: spatial_attention-odd-hw-rel" in differs
    assert "eager PyTorch serves spatial_attention on this GPU (cuda: it differs from its definition on this GPU" in eager

    kernels = on_gpu(Kernels())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said before, in this process
        assert backends._auto("spatial_attention", ON_GPU) == "reference" and kernels.calls == 0
    assert trust.known("cuda") == ["spatial_attention float32 WRONG"]


def test_a_kernel_that_raises_is_wrong(on_gpu):
    kernels = on_gpu(Kernels())
    kernels.forward = {}
    kernels.forward["temporal"] = lambda *arguments: torch.zeros(2).reshape(3)
    with pytest.warns(UserWarning, match="differs"):
        assert backends._auto("temporal_attention", ON_GPU) == "reference"


@pytest.mark.parametrize("change", ["dtype", "gpu", "library", "torch"])
def test_another_dtype_gpu_library_or_torch_is_checked_again(on_gpu, monkeypatch, change):
    on_gpu(Kernels())
    assert backends._auto("temporal_attention", ON_GPU) == "cuda"
    kernels, tensor = on_gpu(Kernels()), ON_GPU
    if change == "dtype":
        tensor = SimpleNamespace(device=ON_GPU.device, dtype=torch.bfloat16)
    elif change == "gpu":
        monkeypatch.setattr(gpu, "name", lambda index: "NVIDIA B200 (sm_100)")
    elif change == "library":
        monkeypatch.setattr(trust, "_library_digest", lambda: "another")
    else:
        monkeypatch.setattr(torch, "__version__", "9.9.9")
    assert backends._auto("temporal_attention", tensor) == "cuda" and kernels.calls > 0
    assert len(json.loads(trust.cache_file().read_text())) == 2


def test_a_layer_is_as_good_as_its_parts(on_gpu, monkeypatch):
    monkeypatch.setitem(trust.CASES, "norm_act", ("rms",))
    monkeypatch.setattr(trust, "_checked", lambda backend, operator, *more: "off" if operator == "norm_act" else trust.RIGHT)
    on_gpu(Kernels())
    with pytest.warns(UserWarning) as warned:
        assert backends._auto("temporal_layer", ON_GPU) == "reference"
    assert "checked norm_act" in str(warned[0].message) and "serves temporal_layer on this GPU" in str(warned[1].message)


def test_nothing_is_checked_while_a_graph_is_captured_or_a_call_is_traced(on_gpu, monkeypatch):
    kernels = on_gpu(Kernels())
    with torch._subclasses.FakeTensorMode(), pytest.warns(UserWarning, match="this call is only traced"):
        assert backends._auto("temporal_attention", ON_GPU) == "reference"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert "a CUDA graph is being captured" in trust.why_not("cuda", "temporal_attention", torch.float32, 0)
    assert kernels.calls == 0 and not trust.cache_file().exists()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert trust.why_not("cuda", "temporal_attention", torch.float32, 0) is None


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_cache_that_cannot_be_read_or_written(on_gpu, monkeypatch, tmp_path, text):
    trust.cache_file().parent.mkdir()
    trust.cache_file().write_text(text)
    on_gpu(Kernels())
    assert trust.why_not("cuda", "temporal_attention", torch.float32, 0) is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(trust.cache_file()))  # a file in a folder's place
    on_gpu(Kernels())
    assert trust.why_not("cuda", "temporal_attention", torch.float32, 0) is None


def test_compiled_code_asks_while_it_is_traced(on_gpu):
    kernels = on_gpu(Kernels())

    def call(x):
        return x + (1 if trust.why_not("cuda", "temporal_attention", x.dtype, 0) is None else 2)

    assert torch.equal(torch.compile(call, fullgraph=True, backend="eager")(torch.zeros(2)), torch.ones(2))
    assert kernels.calls > 0


@pytest.mark.parametrize(
    "torch_cuda, driver, found, expected",
    [
        (None, 13000, False, "this torch .* is a CPU build"),
        ("13.0", 0, False, "there is no NVIDIA driver$"),
        ("12.6", 12080, True, r"driver is too old: it serves CUDA 12.8, .* serves CUDA 13.0 \(580 or newer\)"),
        ("13.0", 13010, False, r"there is an NVIDIA driver \(CUDA 13.1\), but torch finds no GPU"),
    ],
)
def test_availability_tells_what_is_missing(monkeypatch, torch_cuda, driver, found, expected):
    monkeypatch.setitem(backends._SERVED, "cuda", frozenset({"temporal_attention"}))
    monkeypatch.setattr(gpu, "_answers", {})
    monkeypatch.setattr(library, "cuda_versions", lambda: (13000, driver))
    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    state = vdiff.availability("cuda")
    assert not state and re.search(expected, state.reason), state


def test_a_gpu_that_is_too_old(monkeypatch):
    monkeypatch.setattr(gpu, "_answers", {})
    monkeypatch.setattr(gpu, "_why_no_driver", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Tesla T4")
    assert gpu.why_not(0) == "Tesla T4 (sm_75) is too old; expected compute capability 8.0 or newer"
