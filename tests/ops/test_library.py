"""The registered operators themselves: opcheck, and what they refuse."""

import pytest
import torch
from torch.library import opcheck

from tests.ops.arguments import assert_as_the_fake_says, attention_inputs, calls_of, name_of
from vdiff_kernels import library
from vdiff_kernels.backends import registry
from vdiff_kernels.ops.schema import KINDS

OPS = torch.ops.vdiff_kernels
ON_A_GPU_ALONE = {"norm_linear_native", "norm_linear_native_backward"}
CALLS = [call for call in calls_of("native") if name_of(call) not in ON_A_GPU_ALONE]


@pytest.mark.parametrize("call", CALLS, ids=name_of)
def test_opcheck(call):
    op, arguments = call
    opcheck(op, arguments)


@pytest.mark.parametrize("call", CALLS, ids=name_of)
def test_outputs_are_contiguous_and_as_the_fake_says(call):
    assert_as_the_fake_says(*call)


def test_every_operator_is_covered():
    defined = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("vdiff_kernels::")}
    native, triton = ({name_of(call) for call in calls_of(kind)} for kind in KINDS)
    assert native | triton == defined
    assert {name.replace("native", "triton") for name in native if "_layer_" not in name} <= triton


@pytest.mark.parametrize("call", CALLS, ids=name_of)
def test_every_operator_has_a_cpu_kernel(call):
    assert library.has_kernel(name_of(call), "CPU")


def test_those_of_a_gpu_alone_are_not_said_to_run_on_a_cpu():
    for name in ON_A_GPU_ALONE:
        assert not library.has_kernel(name, "CPU")
    assert "norm_linear" not in registry.BACKENDS["cpu"].kernels


def test_the_raw_operator_refuses_a_strided_innermost_dimension():
    q = torch.randn(1, 2, 2, 2, 1, 8).transpose(-1, 1)
    with pytest.raises(RuntimeError, match="q has stride .* expected 1"):
        OPS.temporal_attention_native(q, q, q, None, None, 1.0, False, None, None, False)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"k": torch.randn(2, 5, 2, 3, 2, 7)}, "k has shape"),
        ({"v": torch.randn(2, 5, 2, 3, 2, 8).double()}, "v has dtype float64; expected float32, as q"),
        ({"bias": torch.randn(2, 5, 4)}, r"bias has shape \(2, 5, 4\)"),
        ({"rel_bias": torch.randn(2, 9), "bias": torch.randn(2, 5, 5)}, "bias and rel_bias"),
        ({"rotary": torch.randn(5, 5)}, "rotary"),
        ({"focus": torch.rand(2, 4) > 0}, "focus_present has shape"),
        ({"q": torch.randn(2, 5, 2, 3, 2, 257)}, "D"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_raw_operator_checks_what_it_reads(changes, message):
    q, k, v = attention_inputs()
    arguments = {"q": q, "k": k, "v": v, "bias": None, "rel_bias": None, "scale": 1.0, "causal": False}
    arguments.update({"focus": None, "rotary": None, "return_lse": False})
    with pytest.raises(RuntimeError, match=message):
        OPS.temporal_attention_native(*{**arguments, **changes}.values())


@pytest.mark.parametrize(
    "key_mask, context, message",
    [
        (torch.rand(2, 5) > 0, True, r"key_mask has shape \(2, 5\); expected \(B, S\) = \(2, 4\)"),
        (torch.rand(2, 4), True, "key_mask has dtype float32; expected bool"),
        (torch.rand(2, 6) > 0, False, "key_mask is given without context k, v"),
    ],
    ids=["shape", "dtype", "pixels"],
)
def test_the_raw_operator_checks_the_mask_of_a_context(key_mask, context, message):
    q, k, _ = attention_inputs()
    k = torch.randn(2, 4, 2, 8) if context else k
    with pytest.raises(RuntimeError, match=message):
        OPS.spatial_attention_native(q, k, k, None, None, 1.0, key_mask, False)


def test_log_sum_exp():
    q, k, v = attention_inputs(torch.float64)
    bias = torch.randn(2, 5, 5, dtype=torch.float64)
    bias[0, 3] = -torch.inf
    out, lse = OPS.temporal_attention_native(q, k, v, bias, None, 0.3, False, None, None, True)
    scores = torch.einsum("bthwnd,bshwnd->bhwnts", q, k) * 0.3 + bias
    torch.testing.assert_close(lse, scores.logsumexp(-1).permute(0, 4, 1, 2, 3))
    assert (lse[:, 3, :, :, 0] == -torch.inf).all() and (out[:, 3, :, :, 0] == 0).all()
