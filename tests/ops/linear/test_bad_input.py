"""Wrong calls of norm_linear."""

import pytest
import torch

from vdiff_kernels import Norm, norm_linear

from ...bad_input import (
    FLOATING,
    MIXED,
    NOT_FLOATING,
    assert_operator_refuses,
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

B, T, H, W, C = X = 2, 3, 2, 5, 4
Co = 6
SHAPES = {"x": X, "weight": (Co, C), "bias": (Co,), "pos_emb": (T, C), "gate": (B, Co), "residual": (B, T, H, W, Co)}


def valid(device: str = "cpu") -> dict:
    return {name: ones(*shape, device=device) for name, shape in SHAPES.items()} | {"norm": Norm("group", groups=2)}


NORM_LINEAR = table(
    *no_tensor("x", "weight", none=True),
    *no_tensor("bias", "pos_emb", "gate", "residual"),
    *of_dtypes("x", X, (*NOT_FLOATING, torch.float8_e4m3fn), FLOATING),
    *of_dtypes("weight", (Co, C), MIXED, "torch.float32, as x (mixed dtypes need autocast)"),
    *of_dtypes("residual", SHAPES["residual"], MIXED, "torch.float32, as x (mixed dtypes need autocast)"),
    *(row for name in ("bias", "pos_emb", "gate") for row in of_dtypes(name, SHAPES[name], MIXED, "torch.float32")),
    *(elsewhere(name, shape, "x") for name, shape in SHAPES.items() if name != "x"),
    sparse("x", X), sparse("weight", (Co, C)), sparse("residual", SHAPES["residual"]),
    wrong("x-half", TypeError, "weight has dtype torch.float32", "torch.float16, as x", x=ones(*X, dtype=torch.float16)),
    wrong("x-device", ValueError, "weight is on cpu", "meta, as x", x=ones(*X, device="meta")),
    *of_shapes("x", "5 dimensions (B, T, H, W, C)", {"0-d": (), "rows": (B * T * H * W, C), "4-d": X[1:], "6-d": (1, *X)}),
    *(
        wrong(f"{letter}-0", ValueError, f"x has shape {shape}, so {letter} = 0", f"{letter} at least 1", x=ones(*shape))
        for letter, shape in zip("THWC", ((B, 0, H, W, C), (B, T, 0, W, C), (B, T, H, 0, C), (B, T, H, W, 0)))
    ),
    wrong("x-channels-first", ValueError, f"weight has shape {(Co, C)}", f"(Co, C) with C = {W}", x=ones(B, C, T, H, W)),
    *of_shapes(
        "weight", f"(Co, C) with C = {C}",
        {"transposed": (C, Co), "C": (Co, C + 1), "empty": (0, C), "0-d": (), "1-d": (C,), "conv": (Co, C, 1, 1, 1)},
    ),
    *of_shapes("bias", f"(Co,) = {(Co,)}", {"size": (Co + 1,), "of-C": (C,), "row": (1, Co), "0-d": ()}),
    *of_shapes("pos_emb", f"(T, C) = {(T, C)}", {"T": (T + 1, C), "C": (T, C + 1), "of-clips": (1, T, C), "0-d": ()}),
    *of_shapes("gate", f"(B, Co) = {(B, Co)}", {"B": (B + 1, Co), "of-C": (B, C), "of-all": (Co,), "of-frames": (B, T, Co)}),
    *(
        wrong(f"residual-{letter}", ValueError, f"residual has shape {shape}", f"(B, T, H, W, Co) = {SHAPES['residual']}",
              residual=ones(*shape))
        for letter, shape in grown(SHAPES["residual"], ("B", "T", "H", "W", "Co"))
    ),
    *norms(B, C),
    *backends(valid("meta")),
)  # fmt: skip


def test_valid():
    assert assert_valid(norm_linear, valid() | {"backend": "reference"}).shape == SHAPES["residual"]


@pytest.mark.parametrize("row", NORM_LINEAR, ids=str)
def test_norm_linear(row):
    assert_operator_refuses(norm_linear, row, valid())
