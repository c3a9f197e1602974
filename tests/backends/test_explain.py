"""explain says who serves each part of a module, a function or a call, and why better ones do not, for absent GPUs too."""

import pytest
import torch

import vdiff_kernels as vdiff
from vdiff_kernels.backends import registry, triton
from vdiff_kernels.ops.attention.call import AttentionCall, AttentionOptions
from vdiff_kernels.ops.call import Described

X = torch.randn(1, 8, 4, 4, 64)


HELD = "temporal_attention", "spatial_attention", "channel_stats", "norm_act"


@pytest.fixture
def kernels(monkeypatch):
    """The library's CUDA kernels, whether it was built with them or not, beside Triton's."""
    monkeypatch.setattr(triton, "why_no_triton", lambda: None)
    held = {name: registry.BACKENDS["cpu"].kernels[name] for name in HELD}
    monkeypatch.setattr(registry.BACKENDS["cuda"], "kernels", held)
    return held


def served(explanation) -> list[tuple[str, str]]:
    return [(part.operator, part.backend) for part in explanation.parts]


def test_a_module_where_it_is():
    explanation = vdiff.explain(vdiff.nn.FactorizedAttention(64, 2), X)
    assert served(explanation) == [("spatial_layer", "cpu"), ("temporal_layer", "cpu")]
    assert str(explanation).splitlines()[0] == "on cpu, forward and backward, which runs on forward's backend:"


def test_a_kernel_that_is_removed_changes_the_text(kernels):
    layer = vdiff.nn.TemporalAttention(64, 2)
    before = vdiff.explain(layer, X, device="sm_90")
    projections = [("norm_linear", "triton")] * 2
    assert sorted(served(before)) == [*projections, ("temporal_attention", "cuda"), ("temporal_layer", "cuda")]
    kernels.pop("temporal_attention")
    after = vdiff.explain(layer, X, device="sm_90")
    assert sorted(served(after)) == [*projections, ("temporal_attention", "triton"), ("temporal_layer", "triton")]
    assert "not cuda: it has no temporal_attention" in str(after) and str(after) != str(before)


def test_an_old_gpu_and_what_the_reason_is(kernels):
    text = str(vdiff.explain(vdiff.nn.TemporalAttention(64, 2), X, device="sm_75"))
    assert "not cuda: a GPU (sm_75) is too old; expected compute capability 8.0 or newer" in text
    assert "core by composed" in text


NORM = vdiff.Norm("group", torch.ones(64), groups=4)


def normed_layer(x, norm):
    weights = torch.empty(192, 64, device=x.device), None, torch.empty(64, 64, device=x.device), None
    return vdiff.temporal_layer(x, *weights, num_heads=2, norm=norm)


def test_without_triton_the_library_takes_its_place(kernels, monkeypatch):
    monkeypatch.setattr(triton, "why_no_triton", lambda: "Triton is not installed (pip install triton)")
    explanation = vdiff.explain(normed_layer, X, NORM, device="sm_90")
    assert served(explanation) == [("temporal_layer", "cuda"), ("norm_act", "cuda"), ("temporal_attention", "cuda")]
    explanation = vdiff.explain(vdiff.geglu, X, torch.empty(32, 64), torch.empty(32), device="sm_90")
    assert served(explanation) == [("geglu", "composed")]
    assert explanation.parts[0].reasons["triton"] == "Triton is not installed (pip install triton)"


def test_each_part_has_its_own_backend(kernels):
    explanation = vdiff.explain(normed_layer, X, NORM, device="cuda", gradients=False)
    before, after = ("norm_linear", "triton"), ("norm_linear", "triton")
    assert served(explanation) == [("temporal_layer", "cuda"), before, ("temporal_attention", "cuda"), after]
    assert [part.is_part for part in explanation.parts] == [False, True, True, True]
    assert not explanation.with_gradients and str(explanation).startswith("on cuda, forward:")


def test_what_backward_needs_is_in_the_answer():
    """A whole layer on the CPU sums the gradient of so large a bias nowhere, but computes it forward."""
    layer = vdiff.nn.SpatialAttention(8, 8, (144, 144))
    x = torch.empty(1, 1, 2, 2, 8)
    table = torch.empty(8, 2 * 200 - 1, 2 * 200 - 1, requires_grad=True)

    def call(x, table):
        weights = layer.to_qkv.weight.to(x.device), None, layer.proj_out.weight.to(x.device), None
        return vdiff.spatial_layer(x, *weights, num_heads=8, rel_bias=table)

    x = torch.empty(1, 1, 200, 200, 8)
    assert served(vdiff.explain(call, x, table, gradients=False)) == [("spatial_layer", "cpu")]
    text = str(vdiff.explain(call, x, table))
    assert "not cpu: the whole: its whole layer sums the gradient of at most 262144 entries of a bias" in text


def test_a_described_call(kernels):
    rows = Described((2, 16, 64, 64, 8, 40), torch.bfloat16, torch.device("cuda"))
    options = AttentionOptions(causal=True)
    explanation = vdiff.explain(AttentionCall("temporal_attention", rows, rows, rows, options), device="sm_90")
    assert served(explanation) == [("temporal_attention", "cuda")]


def test_a_mask_of_keys_changes_who_serves_a_context(kernels):
    q, k = torch.empty(2, 4, 8, 8, 2, 64).bfloat16(), torch.empty(2, 77, 2, 64).bfloat16()
    seen = torch.ones(2, 77, dtype=torch.bool)

    def call(q, k, key_mask=None):
        return vdiff.spatial_attention(q, k, k, key_mask=key_mask)

    assert served(vdiff.explain(call, q, k, device="sm_90")) == [("spatial_attention", "composed")]
    assert served(vdiff.explain(call, q, k, seen, device="sm_90")) == [("spatial_attention", "cuda")]


def test_nothing_is_computed(monkeypatch):
    for backend in registry.BACKENDS.values():
        for name in backend.kernels:
            monkeypatch.setitem(backend.kernels, name, registry.Kernels(lambda call, save: pytest.fail("it ran"), schemas=()))
    with pytest.raises(pytest.fail.Exception):
        vdiff.geglu(torch.ones(2, 4), torch.ones(6, 4), None)
    rows = Described((2, 4), torch.float32, torch.device("cpu"))
    from vdiff_kernels.ops.feedforward.call import GegluCall

    registry.forget()
    assert served(vdiff.explain(GegluCall("geglu", rows, rows, None))) == [("geglu", "cpu")]


def test_wrong_devices_and_calls_raise():
    layer = vdiff.nn.TemporalAttention(64, 2)
    for device in ("gpu", "sm_", "cuda:0", "sm_9x"):
        with pytest.raises(ValueError, match="explain: device is .*; expected None, 'cuda', or a compute capability"):
            vdiff.explain(layer, X, device=device)
    with pytest.raises(ValueError, match="TemporalAttention: x has shape"):
        vdiff.explain(layer, X[..., :8])
    assert registry._observer is None and registry._place is None
