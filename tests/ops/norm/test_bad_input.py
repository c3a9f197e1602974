"""Wrong calls of norm_act, and of Norm.of."""

import pytest
import torch
from torch import nn

from vdiff_kernels import Norm, norm_act

from ...bad_input import (
    FLOATING,
    MIXED,
    NOT_FLOATING,
    assert_operator_refuses,
    assert_refused,
    assert_valid,
    backends,
    elsewhere,
    grown,
    no_tensor,
    norms,
    of_dtypes,
    of_shapes,
    ones,
    sparse,
    table,
    wrong,
)  # fmt: skip

B, C, T, H, W = SHAPE = 2, 4, 3, 2, 5


def valid(device: str = "cpu") -> dict:
    shapes = {"x": SHAPE, "residual": SHAPE, "stats": (B, T, C, 2)}
    tensors = {name: ones(*shape, device=device) for name, shape in shapes.items()}
    return tensors | {"norm": Norm("group", groups=2), "act": "silu"}


NORM_ACT = table(
    *no_tensor("x", none=True),
    *no_tensor("residual", "stats"),
    *of_dtypes("x", SHAPE, (*NOT_FLOATING, torch.float8_e4m3fn), FLOATING),
    *of_dtypes("residual", SHAPE, MIXED, "torch.float32, as x (mixed dtypes need autocast)"),
    *of_dtypes("stats", (B, T, C, 2), MIXED, "torch.float32"),
    elsewhere("residual", SHAPE, "x"), elsewhere("stats", (B, T, C, 2), "x"), sparse("x", SHAPE), sparse("residual", SHAPE),
    *of_shapes("x", "5 dimensions (B, C, T, H, W)", {"0-d": (), "3-d": (C, H, W), "4-d": (B, C, H, W), "6-d": (1, *SHAPE)}),
    wrong("x-device", ValueError, "residual is on cpu", "meta, as x", x=ones(*SHAPE, device="meta")),
    wrong("x-half", TypeError, "residual has dtype torch.float32", "torch.float16, as x", x=ones(*SHAPE, dtype=torch.float16)),
    wrong(
        "x-double", TypeError, "norm.weight has dtype torch.float32", "torch.float64",
        x=ones(*SHAPE, dtype=torch.float64), residual=None, stats=None, norm=Norm("group", ones(C), groups=2),
    ),
    wrong("x-C", ValueError, "norm.groups is 2", f"a divisor of C = {C + 1}", x=ones(B, C + 1, T, H, W)),
    wrong("x-channels-last", ValueError, "norm.groups is 2", f"a divisor of C = {T}", x=ones(B, T, H, W, C)),
    *(
        wrong(f"x-{letter}", ValueError, f"residual has shape {SHAPE}", f"(B, C, T, H, W) = {shape}", x=ones(*shape))
        for letter, shape in grown(SHAPE, "BCTHW") if letter != "C"
    ),
    *norms(B, C, required=True),
    *(
        wrong(f"act-{label}", ValueError, f"act is {given}", "one of None, 'silu'", act=value)
        for label, value, given in (
            ("unknown", "gelu", "'gelu'"), ("case", "SILU", "'SILU'"), ("empty", "", "''"), ("bool", False, "False"),
            ("number", 0, "0"), ("module", nn.SiLU(), "a SiLU"), ("tensor", ones(2, 2), "a Tensor"),
        )
    ),
    *of_shapes(
        "residual", f"(B, C, T, H, W) = {SHAPE}",
        {**dict(grown(SHAPE, "BCTHW")), "channels-last": (B, T, H, W, C), "4-d": (B, C, H, W), "vector": (B, C, 1, 1, 1),
         "0-d": ()},
    ),
    *of_shapes(
        "stats", f"(B, T, C, 2) = {(B, T, C, 2)}",
        {**dict(grown((B, T, C, 2), "BTC2")), "clip": (B, C, 2), "groups": (B, T, 2, 2), "pair-first": (2, B, T, C), "0-d": ()},
    ),
    wrong("stats-grad", ValueError, "stats requires grad", "a constant", stats=ones(B, T, C, 2).requires_grad_()),
    wrong("stats-layer", ValueError, "stats given with norm 'layer'", "a norm of kind 'group'", norm=Norm("layer")),
    wrong("stats-rms", ValueError, "stats given with norm 'rms'", "a norm of kind 'group'", norm=Norm("rms")),
    *backends(valid("meta")),
)  # fmt: skip

_MODULE = "nn.GroupNorm, nn.LayerNorm or nn.RMSNorm"
NORM_OF = table(
    *(
        wrong(f"module-{label}", TypeError, f"module is {given}", _MODULE, module=value)
        for label, value, given in (
            ("none", None, "None"), ("text", "group", "'group'"), ("batch", nn.BatchNorm3d(C), "a BatchNorm3d"),
            ("instance", nn.InstanceNorm3d(C), "a InstanceNorm3d"), ("identity", nn.Identity(), "a Identity"),
            ("norm", Norm("layer"), "a Norm"), ("class", nn.GroupNorm, "a type"), ("tensor", ones(C), "a Tensor"),
        )
    ),
    *(
        wrong(f"shape-{label}", ValueError, f"module has normalized_shape {module.normalized_shape}", "(C,)", module=module)
        for label, module in (
            ("layer", nn.LayerNorm((W, C))), ("layer-no-weight", nn.LayerNorm((W, C), elementwise_affine=False)),
            ("rms", nn.RMSNorm((H, W, C))),
        )
    ),
)  # fmt: skip


def test_valid():
    assert assert_valid(norm_act, valid() | {"backend": "reference"}).shape == SHAPE


@pytest.mark.parametrize("row", NORM_ACT, ids=str)
def test_norm_act(row):
    assert_operator_refuses(norm_act, row, valid())


@pytest.mark.parametrize("row", NORM_OF, ids=str)
def test_norm_of(row):
    assert_refused("Norm.of", row, Norm.of, {})
