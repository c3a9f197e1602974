"""Wrong calls of geglu."""

import pytest
import torch

from vdiff_kernels import geglu

from ...bad_input import (
    FLOATING,
    NOT_FLOATING,
    assert_operator_refuses,
    assert_valid,
    backends,
    elsewhere,
    no_tensor,
    of_dtypes,
    of_shapes,
    ones,
    sparse,
    table,
    wrong,
)  # fmt: skip

B, L, C, E = 2, 3, 4, 5
X, WEIGHT, BIAS = (B, L, C), (2 * E, C), (2 * E,)
MIXED = (torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float64, torch.float16, torch.bfloat16)
_WEIGHT = f"(2E, C) with C = {C}"


def valid(device: str = "cpu") -> dict:
    return {name: ones(*shape, device=device) for name, shape in {"x": X, "weight": WEIGHT, "bias": BIAS}.items()}


def half(*names: str) -> dict:
    return {name: tensor.half() for name, tensor in valid().items() if name in names}


GEGLU = table(
    *no_tensor("x", "weight", none=True),
    *no_tensor("bias"),
    wrong("bias-true", TypeError, "bias is True", "a torch.Tensor", bias=True),
    wrong("weight-module", TypeError, "weight is a Linear", "a torch.Tensor", weight=torch.nn.Linear(C, 2 * E)),
    *of_dtypes("x", X, (*NOT_FLOATING, torch.int8, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2), FLOATING),
    *of_dtypes("weight", WEIGHT, MIXED, "torch.float32, as x (mixed dtypes need autocast)"),
    *of_dtypes("bias", BIAS, MIXED, "torch.float32"),
    wrong("x-half", TypeError, "weight has dtype torch.float32", "torch.float16, as x", **half("x")),
    wrong("bias-half-beside-bfloat16", TypeError, "bias has dtype torch.float16", "torch.bfloat16 or torch.float32",
          x=ones(*X, dtype=torch.bfloat16), weight=ones(*WEIGHT, dtype=torch.bfloat16), **half("bias")),
    wrong("bias-double-beside-half", TypeError, "bias has dtype torch.float64", "torch.float16 or torch.float32",
          bias=ones(*BIAS, dtype=torch.float64), **half("x", "weight")),
    wrong("x-device", ValueError, "weight is on cpu", "meta, as x", x=ones(*X, device="meta")),
    elsewhere("weight", WEIGHT, "x"), elsewhere("bias", BIAS, "x"), sparse("x", X), sparse("weight", WEIGHT),
    # shapes
    wrong("x-0-d", ValueError, "x has shape ()", "at least 1 dimension (..., C)", x=ones()),
    wrong("C-0", ValueError, f"x has shape {(B, 0)}, so C = 0", "C at least 1", x=ones(B, 0), weight=ones(2 * E, 0)),
    *(
        wrong(f"x-{label}", ValueError, f"weight has shape {WEIGHT}", f"(2E, C) with C = {shape[-1]}", x=ones(*shape))
        for label, shape in {"C": (B, L, C + 1), "1-d": (L,), "C-1": (B, 1), "transposed": (B, C, L), "empty": (0, 1)}.items()
    ),
    *of_shapes(
        "weight", _WEIGHT,
        {"transposed": (C, 2 * E), "C": (2 * E, C + 1), "odd": (2 * E + 1, C), "one": (1, C), "empty": (0, C), "0-d": (),
         "1-d": (C,), "flat": (2 * E * C,), "halves": (2, E, C), "conv": (2 * E, C, 1), "4-d": (2 * E, C, 1, 1),
         "C-0": (2 * E, 0)},
    ),
    *of_shapes(
        "bias", f"(2E,) = {BIAS}",
        {"half-size": (E,), "size": (2 * E + 1,), "of-C": (C,), "one": (1,), "empty": (0,), "row": (1, 2 * E),
         "column": (2 * E, 1), "halves": (2, E), "0-d": ()},
    ),
    *backends(valid("meta")),
)  # fmt: skip


def test_valid():
    assert assert_valid(geglu, valid() | {"backend": "reference"}).shape == (B, L, E)


@pytest.mark.parametrize("row", GEGLU, ids=str)
def test_geglu(row):
    assert_operator_refuses(geglu, row, valid())
