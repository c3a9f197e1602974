"""Auto on a GPU: a kernel is held to its definition once, the verdict is kept and said. No GPU here: its facts are given, and the
CPU kernels stand in for its own."""

import json
import logging
import re
import warnings

import pytest
import torch

import vdiff_kernels as vdiff
from vdiff_kernels import library
from vdiff_kernels.backends import gpu, registry
from vdiff_kernels.backends.backend import Variant
from vdiff_kernels.ops.attention import schema
from vdiff_kernels.ops.attention.call import AttentionCall, AttentionOptions, LayerCall
from vdiff_kernels.ops.call import Described
from vdiff_kernels.verify import verdicts

OPS = torch.ops.vdiff_kernels


def on_a_gpu(operator="temporal_attention", dtype=torch.float32, T=4, **options):
    rows = Described((2, T, 3, 3, 2, 8), dtype, torch.device("cuda", 0))
    return AttentionCall(operator, rows, rows, rows, AttentionOptions(**options))


class Operators:
    """The native attention, with results that are off by a factor."""

    def __init__(self, factor=1.0):
        self.factor, self.calls = factor, 0

    def kernels(self):
        return {
            name: schema.attention_kernels(
                self.off(getattr(OPS, f"{name}_native")), getattr(OPS, f"{name}_native_backward"), lambda call: (False, False)
            )
            for name in ("temporal_attention", "spatial_attention")
        }

    def off(self, function):
        def call(*arguments):
            self.calls += 1
            out, lse = function(*arguments)
            return out * self.factor, lse

        return call


@pytest.fixture
def on_gpu(monkeypatch, tmp_path):
    """on_gpu(operators) is a new process on a machine with a GPU, whose CUDA kernels are these."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(gpu, "name", lambda index: "NVIDIA H100 (sm_90)")
    monkeypatch.setattr(verdicts, "_device", lambda index: torch.device("cpu"))
    monkeypatch.setattr(registry, "_warned", set())
    cuda = registry.BACKENDS["cuda"]
    monkeypatch.setattr(cuda, "why_not_here", lambda call: None)
    supports = cuda.supports
    # The check's own calls are on the CPU.
    monkeypatch.setattr(cuda, "supports", lambda call: None if call.main.device.type == "cpu" else supports(call))

    def process(operators):
        registry.forget()
        monkeypatch.setattr(verdicts, "_verdicts", {})
        monkeypatch.setattr(verdicts, "_answers", {})
        monkeypatch.setattr(cuda, "kernels", operators.kernels())
        return operators

    yield process
    registry.forget()


@pytest.fixture
def messages(monkeypatch):
    """What the package logs."""
    logger, messages = logging.getLogger("vdiff_kernels"), []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def test_a_right_kernel_is_checked_once_and_kept(on_gpu, messages):
    operators = on_gpu(Operators())
    assert registry._auto(on_a_gpu()) == "cuda"
    (said,) = messages
    assert "checked temporal_attention, float32, D 8, up to 8 rows of backend 'cuda'" in said
    assert "NVIDIA H100 (sm_90): right" in said and str(verdicts.cache_file()) in said
    calls = operators.calls
    assert calls > 0 and registry._auto(on_a_gpu(T=8)) == "cuda" and operators.calls == calls

    again = on_gpu(Operators(factor=2.0))  # the next process does not look: the verdict is kept
    assert registry._auto(on_a_gpu()) == "cuda" and again.calls == 0


def test_the_check_flips_no_global_switch(on_gpu, monkeypatch):
    on_gpu(Operators())
    for switch in ("use_deterministic_algorithms", "set_default_dtype", "manual_seed"):
        monkeypatch.setattr(torch, switch, lambda *_, **__: pytest.fail("a global switch"))
    assert registry._auto(on_a_gpu()) == "cuda"


def test_it_can_be_turned_off(on_gpu, monkeypatch):
    operators = on_gpu(Operators(factor=2.0))
    monkeypatch.setenv("VDIFF_FIRST_USE_CHECK", "0")
    assert registry._auto(on_a_gpu()) == "cuda" and operators.calls == 0


def test_a_wrong_kernel_is_left_alone_and_said_so(on_gpu):
    on_gpu(Operators(factor=1.01))
    with pytest.warns(UserWarning) as warned:
        assert registry._auto(on_a_gpu("spatial_attention")) == "composed"
    differs, eager = (str(one.message) for one in warned)
    assert "it differs, so auto leaves it alone: spatial_attention-first-use" in differs
    assert "backend='cuda' takes it all the same, and VDIFF_FIRST_USE_CHECK=0 makes auto do so" in differs
    assert "PyTorch's own library serves spatial_attention on this GPU (cuda: it differs from its definition on this GPU" in eager

    operators = on_gpu(Operators())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said before, in this process
        assert registry._auto(on_a_gpu("spatial_attention")) == "composed" and operators.calls == 0


def test_a_kernel_that_raises_is_wrong(on_gpu):
    operators = Operators()
    operators.off = lambda function: lambda *arguments: torch.zeros(2).reshape(3)
    on_gpu(operators)
    with pytest.warns(UserWarning, match="differs"):
        assert registry._auto(on_a_gpu()) == "composed"


@pytest.mark.parametrize("change", ["dtype", "rows", "bias", "gpu", "library", "torch"])
def test_another_variant_gpu_library_or_torch_is_checked_again(on_gpu, monkeypatch, change):
    on_gpu(Operators())
    assert registry._auto(on_a_gpu()) == "cuda"
    operators, call = on_gpu(Operators()), on_a_gpu()
    if change == "dtype":
        call = on_a_gpu(dtype=torch.bfloat16)
    elif change == "rows":
        call = on_a_gpu(T=33)
    elif change == "bias":
        call = on_a_gpu(rel_bias=torch.zeros(2, 7))
    elif change == "gpu":
        monkeypatch.setattr(gpu, "name", lambda index: "NVIDIA B200 (sm_100)")
    elif change == "library":
        monkeypatch.setattr(library, "digest", lambda: "another")
    else:
        monkeypatch.setattr(torch, "__version__", "9.9.9")
    assert registry._auto(call) == "cuda" and operators.calls > 0
    assert len(json.loads(verdicts.cache_file().read_text())) == 2


def test_a_layer_is_as_good_as_its_attention(on_gpu):
    x = Described((2, 4, 3, 3, 16), torch.float32, torch.device("cuda", 0))
    w_qkv, w_out = (Described(shape, x.dtype, x.device) for shape in ((48, 16), (16, 16)))
    call = LayerCall("temporal_layer", x, w_qkv, None, w_out, None, 2, None, None, None, None, AttentionOptions())
    operators = on_gpu(Operators())
    assert registry._auto(call) == "cuda" and operators.calls > 0
    on_gpu(Operators(factor=1.01))
    verdicts.cache_file().unlink()
    with pytest.warns(UserWarning, match="serves temporal_layer on this GPU"):
        assert registry._auto(call) == "composed"


@pytest.mark.parametrize("rows", [8, 16, 32, 0])
@pytest.mark.parametrize("masks", [(), ("causal",), ("focus",), ("rotary",)], ids=str)
def test_the_case_of_a_variant_is_of_that_variant(rows, masks, monkeypatch):
    """What is checked is what will run: cuda's variant of the case's call is the variant asked about."""
    cuda = registry.BACKENDS["cuda"]
    for operator, kinds in (("temporal_attention", masks), ("spatial_attention", ("shared",) if masks else ())):
        for bias in (None, "dense", "rel"):
            if "shared" in kinds and bias == "rel":
                continue
            asked = Variant(operator, "float32", None, rows, 40, bias, kinds)
            seen = []
            case = verdicts.case_of(asked)
            leaves = vdiff.verify.make_leaves(case, torch.float32)

            def call(q, k, v, *, scale, **options):
                seen.append(cuda.variant(AttentionCall(operator, q, k, v, AttentionOptions(**options))))

            case.call(call, leaves)
            assert seen == [asked]


def test_nothing_is_checked_while_a_graph_is_captured_or_a_call_is_traced(on_gpu, monkeypatch):
    operators = on_gpu(Operators())
    with torch._subclasses.FakeTensorMode(), pytest.warns(UserWarning, match="this call is only traced"):
        assert registry._auto(on_a_gpu()) == "composed"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    variant = registry.BACKENDS["cuda"].variant(on_a_gpu())
    assert "a CUDA graph is being captured" in verdicts.why_not("cuda", variant)
    assert operators.calls == 0 and not verdicts.cache_file().exists()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert verdicts.why_not("cuda", variant) is None


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_cache_that_cannot_be_read_or_written(on_gpu, monkeypatch, tmp_path, text):
    variant = registry.BACKENDS["cuda"].variant(on_a_gpu())
    verdicts.cache_file().parent.mkdir()
    verdicts.cache_file().write_text(text)
    on_gpu(Operators())
    assert verdicts.why_not("cuda", variant) is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(verdicts.cache_file()))  # a file in a folder's place
    on_gpu(Operators())
    assert verdicts.why_not("cuda", variant) is None


def test_compiled_code_asks_while_it_is_traced(on_gpu):
    operators, variant = on_gpu(Operators()), registry.BACKENDS["cuda"].variant(on_a_gpu())

    def call(x):
        return x + (1 if registry._checked_first("cuda", variant) is None else 2)

    assert torch.equal(torch.compile(call, fullgraph=True, backend="eager")(torch.zeros(2)), torch.ones(2))
    assert operators.calls > 0


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
    monkeypatch.setattr(registry.BACKENDS["cuda"], "kernels", registry.BACKENDS["cpu"].kernels)
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
