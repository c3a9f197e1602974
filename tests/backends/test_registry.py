"""Which backend serves a call, how that is said, and what happens without the compiled library and without Triton."""

import os
import subprocess
import sys
import warnings

import pytest
import torch

import vdiff_kernels as vdiff
from vdiff_kernels import verify
from vdiff_kernels.backends import gpu, registry
from vdiff_kernels.backends.backend import Backend
from vdiff_kernels.ops.attention.call import AttentionCall, AttentionOptions, LayerCall
from vdiff_kernels.ops.call import Described
from vdiff_kernels.ops.feedforward.call import GegluCall
from vdiff_kernels.ops.schema import Kernels
from vdiff_kernels.verify.inputs import PUBLIC

Q = torch.randn(1, 2, 1, 1, 1, 4)


@pytest.fixture(autouse=True)
def fresh_choices():
    registry.forget()
    yield
    registry.forget()


def served_by(monkeypatch) -> list[str]:
    """Records the backend of every attention."""
    calls = []
    for name in ("cpu", "reference"):
        kernels = Kernels(lambda call, save, name=name: (calls.append(name) or call.q, ()))
        monkeypatch.setitem(registry.BACKENDS[name].kernels, "temporal_attention", kernels)
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
        vdiff.temporal_attention(Q, Q, Q)
        vdiff.temporal_attention(Q, Q, Q, backend="cpu")  # explicit wins
    vdiff.temporal_attention(Q, Q, Q)
    with pytest.raises(ZeroDivisionError), vdiff.backend("reference"):
        1 / 0
    vdiff.temporal_attention(Q, Q, Q)
    assert calls == ["reference", "cpu", "reference", "cpu", "cpu", "cpu"]


def test_modules_take_a_backend():
    layer = vdiff.nn.TemporalAttention(8, 2, backend="triton")
    with pytest.raises(ValueError, match="temporal_layer: backend is 'triton', which cannot serve this call"):
        layer(torch.randn(1, 2, 1, 1, 8))


class Partial(Backend):
    """Has attention alone, and that not for every head."""

    name = "partial"

    def __init__(self):
        self.kernels = {"temporal_attention": registry.BACKENDS["cpu"].kernels["temporal_attention"]}

    def supports(self, call):
        if call.operator not in self.kernels:
            return f"it has no {call.operator}"
        return None if call.q.shape[-1] <= 4 else "D is above 4"


def test_a_layer_is_served_wherever_its_attention_is(monkeypatch):
    """Its norm and products come from elsewhere, and a call that the attention does not support goes to the next backend."""
    monkeypatch.setitem(registry.BACKENDS, "partial", Partial())
    monkeypatch.setitem(registry.AUTO, "cpu", ("partial", *registry.AUTO["cpu"]))
    layer = vdiff.nn.TemporalAttention(8, 2)
    x, norm = torch.randn(1, 3, 2, 2, 8), vdiff.Norm("layer", torch.rand(8), torch.rand(8))
    call = LayerCall(
        "temporal_layer", x, layer.to_qkv.weight, None, layer.proj_out.weight, None, 2, norm, None, None, None, AttentionOptions()
    )
    choice = registry.choose(call, None)
    assert (choice.backend, choice.kernels) == ("partial", None)
    torch.testing.assert_close(layer(x, norm=norm, residual=x), call_with(layer, x, norm, "reference"))
    wide = vdiff.nn.TemporalAttention(16, 2)
    call.w_qkv, call.w_out, call.x, call.norm = wide.to_qkv.weight, wide.proj_out.weight, torch.randn(1, 3, 2, 2, 16), None
    assert registry.choose(call, None).backend == "cpu"
    with pytest.raises(
        ValueError,
        match="backend is 'partial', which cannot serve this call: D is above 4; expected one of 'reference', 'composed', 'cpu'",
    ):
        registry.choose(call, "partial")


def call_with(layer, x, norm, backend):
    with vdiff.backend(backend):
        return layer(x, norm=norm, residual=x)


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
    with pytest.raises(
        ValueError, match="availability: name is 'gpu'; expected one of 'reference', 'composed', 'cpu', 'cuda', 'triton'"
    ):
        vdiff.availability("gpu")
    with pytest.raises(ValueError, match="backend: name is 'gpu'"):
        vdiff.backend("gpu")


def on_gpu(operator, *shape, dtype=torch.float32, **options):
    """A call on a GPU that is not there."""
    rows = Described(shape, dtype, torch.device("cuda"))
    if operator == "geglu":
        return GegluCall(operator, rows, rows, None)
    return AttentionCall(operator, rows, rows, rows, AttentionOptions(**options))


def gpu_with(monkeypatch, kernels):
    """A GPU is here, and the library holds these for it; Triton has none."""
    monkeypatch.setattr(registry.BACKENDS["triton"], "kernels", {})
    cuda = registry.BACKENDS["cuda"]
    monkeypatch.setattr(cuda, "kernels", kernels)
    monkeypatch.setattr(cuda, "why_not_here", lambda call: None)
    monkeypatch.setattr(registry, "_warned", set())


def test_auto_on_a_gpu_without_its_kernels_warns_once(monkeypatch):
    gpu_with(monkeypatch, {})
    with pytest.warns(
        UserWarning,
        match="PyTorch's own library serves geglu on this GPU \\(cuda: the compiled library has no operator for cuda\\)",
    ):
        assert registry._auto(on_gpu("geglu", 2, 4)) == "composed"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert registry._auto(on_gpu("geglu", 2, 4)) == "composed"


def test_what_no_gpu_backend_has_is_no_reason_to_warn(monkeypatch):
    gpu_with(monkeypatch, {"temporal_attention": registry.BACKENDS["cpu"].kernels["temporal_attention"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert registry._auto(on_gpu("geglu", 2, 4)) == "composed"


def test_auto_takes_no_gpu_kernels_that_nothing_checks(monkeypatch):
    gpu_with(monkeypatch, registry.BACKENDS["cpu"].kernels)
    call = on_gpu("temporal_attention", 1, 16, 2, 2, 2, 8)
    monkeypatch.setattr(registry, "first_use_check", lambda name, variant: None)
    assert registry._auto(call) == "cuda"
    monkeypatch.setattr(registry, "first_use_check", None)
    with pytest.warns(UserWarning, match="nothing is registered that checks it"):
        assert registry._auto(call) == "composed"


@pytest.mark.parametrize("dtype, options, expected", [
    (torch.bfloat16, {}, "composed"),
    (torch.float16, {}, "composed"),
    (torch.float32, {}, "cuda"),
    (torch.bfloat16, {"rel_bias": torch.zeros(2, 5, 5)}, "cuda"),
    (torch.float64, {"rel_bias": torch.zeros(2, 5, 5)}, "composed"),
], ids=str)  # fmt: skip
def test_attention_over_pixels_goes_where_it_is_fastest(monkeypatch, dtype, options, expected):
    gpu_with(monkeypatch, registry.BACKENDS["cpu"].kernels)
    monkeypatch.setattr(registry, "first_use_check", lambda name, variant: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert registry._auto(on_gpu("spatial_attention", 1, 2, 3, 3, 2, 8, dtype=dtype, **options)) == expected


def test_every_operator_has_a_definition_a_native_kernel_or_parts_and_cases():
    native = {name for name, row in registry.OPERATORS.items() if "native" in row.kernels}
    assert registry.BACKENDS["cpu"].kernels.keys() == native - {"norm_linear"}  # which is a GPU's alone
    for name, row in registry.OPERATORS.items():
        assert {"native", "triton"} <= row.kernels.keys() or row.parts, name
        assert set(row.parts) <= registry.OPERATORS.keys()
    assert registry.OPERATORS.keys() == PUBLIC.keys() == {case.operator for case in verify.CASES}


def python(code: str, **environment) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_environment_variable():
    code = "import vdiff_kernels.backends.registry as b; print(b.preferred('cpu'))"
    assert python(code, VDIFF_BACKEND="reference").stdout.strip() == "reference"
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
assert torch.equal(out, vdiff.temporal_attention(q, q, q, backend="composed"))
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
    code = "import pathlib, vdiff_kernels.library as l; l.LIBRARY_FILE = pathlib.Path('/nonexistent/_C.so'); print(l.load())"
    assert "the compiled library is missing" in python(code).stdout


def test_the_import_leaves_the_compiler_alone():
    """It takes as long as that of all of torch."""
    code = "import sys, vdiff_kernels, vdiff_kernels.nn; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_is_constant_in_graphs_is_so_by_torchs_own_mark():
    marked = torch.compiler.assume_constant_result(lambda: None)
    assert gpu.constant_in_graphs(lambda: None).__dict__ == marked.__dict__ != {}
