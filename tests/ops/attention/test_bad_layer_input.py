"""Wrong calls of temporal_layer and spatial_layer."""

import pytest
import torch

from vdiff_kernels import Norm, spatial_layer, temporal_layer

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

B, T, H, W, C = SHAPE = 2, 3, 2, 5, 8
N, D, Co = 2, 4, 6
L, inner = H * W, 3 * N * D
SHAPES = {
    "x": SHAPE, "w_qkv": (inner, C), "b_qkv": (inner,), "w_out": (Co, N * D), "b_out": (Co,), "pos_emb": (T, C),
    "gate": (B, Co), "residual": (B, T, H, W, Co),
}  # fmt: skip
LIKE_X = ("w_qkv", "b_qkv", "w_out", "b_out", "residual")


def valid(device: str = "cpu") -> dict:
    tensors = {name: ones(*shape, device=device) for name, shape in SHAPES.items()}
    return {**tensors, "num_heads": N, "norm": Norm("layer")}


def common() -> list:
    rows = no_tensor("x", "w_qkv", "w_out", none=True) + no_tensor(
        "b_qkv", "b_out", "pos_emb", "gate", "residual", "bias", "rel_bias"
    )
    rows += of_dtypes("x", SHAPE, (*NOT_FLOATING, torch.float8_e4m3fn), FLOATING)
    for name in LIKE_X:
        rows += of_dtypes(name, SHAPES[name], MIXED, "torch.float32, as x (mixed dtypes need autocast)")
        rows.append(elsewhere(name, SHAPES[name], "x"))
    rows += of_dtypes("pos_emb", (T, C), MIXED, "torch.float32") + of_dtypes("gate", (B, Co), MIXED, "torch.float32")
    rows += [sparse(name, SHAPES[name]) for name in ("x", "w_qkv", "residual")]
    shapes = {"pos_emb": (T, C), "gate": (B, Co), "bias": (N, T, T), "rel_bias": (N, 5)}
    rows += [elsewhere(name, shape, "x") for name, shape in shapes.items()]
    for name in ("bias", "rel_bias"):
        rows += of_dtypes(name, (N, T, T), (torch.int64, torch.bool, torch.complex64), FLOATING)
    # x
    ranks = {"0-d": (), "3-d": (B, L, C), "4-d": (B, T, L, C), "6-d": (1, *SHAPE)}
    rows += of_shapes("x", "5 dimensions (B, T, H, W, C)", ranks)
    for letter, shape in grown(SHAPE, "BTHW"):
        name, given, allowed = "residual", SHAPES["residual"], f"(B, T, H, W, Co) = {(*shape[:4], Co)}"
        if letter == "T":
            name, given, allowed = "pos_emb", (T, C), f"(T, C) = {(T + 1, C)}"
        if letter == "B":
            name, given, allowed = "gate", (B, Co), f"(B, Co) = {(B + 1, Co)}"
        rows.append(wrong(f"x-{letter}", ValueError, f"{name} has shape {given}", allowed, x=ones(*shape)))
    channels_first = (B, C, T, H, W)
    for label, shape in {"C": (B, T, H, W, C + 1), "channels-first": channels_first, "C-0": (B, T, H, W, 0)}.items():
        allowed = f"(3*N*D, C) with N = {N} and C = {shape[-1]}"
        rows.append(wrong(f"x-{label}", ValueError, f"w_qkv has shape {(inner, C)}", allowed, x=ones(*shape)))
    rows.append(wrong("x-device", ValueError, "w_qkv is on cpu", "meta, as x", x=ones(*SHAPE, device="meta")))
    half = ones(*SHAPE, dtype=torch.float16)
    rows.append(wrong("x-half", TypeError, "w_qkv has dtype torch.float32", "torch.float16, as x", x=half))
    # weights and what is added
    with_sizes = f"(3*N*D, C) with N = {N} and C = {C}"
    ranks = {"0-d": (), "1-d": (inner,), "3-d": (3, N * D, C), "conv": (inner, C, 1)}
    rows += of_shapes("w_qkv", "2 dimensions (3*N*D, C)", ranks)
    shapes = {"transposed": (C, inner), "C": (inner, C + 1), "rows": (inner + 1, C), "q-only": (N * D, C)}
    rows += of_shapes("w_qkv", with_sizes, shapes)
    rows += of_shapes("w_out", "2 dimensions (Co, N*D)", {"0-d": (), "1-d": (Co,), "conv": (Co, N * D, 1)})
    rows += of_shapes("w_out", f"(Co, N*D) = {(Co, N * D)}", {"inner": (Co, N * D + 1)})
    rows += of_shapes("w_out", f"(Co, N*D) = {(N * D, N * D)}", {"transposed": (N * D, Co)})
    rows += of_shapes("b_qkv", f"(3*N*D,) = {(inner,)}", {"size": (inner + 1,), "row": (1, inner), "q-only": (8,), "0-d": ()})
    rows += of_shapes("b_out", f"(Co,) = {(Co,)}", {"size": (Co + 1,), "column": (Co, 1), "0-d": ()})
    shapes = dict(grown((T, C), "TC")) | {"transposed": (C, T), "1-d": (C,), "3-d": (1, T, C), "0-d": (), "longer": (32, C)}
    rows += of_shapes("pos_emb", f"(T, C) = {(T, C)}", shapes)
    shapes = dict(grown((B, Co), ("B", "Co"))) | {"transposed": (Co, B), "1-d": (Co,), "per-frame": (B, T, Co), "0-d": ()}
    rows += of_shapes("gate", f"(B, Co) = {(B, Co)}", shapes)
    shapes = dict(grown(SHAPES["residual"], ("B", "T", "H", "W", "Co"))) | {"4-d": (B, T, L, Co), "x": SHAPE, "0-d": ()}
    rows += of_shapes("residual", f"(B, T, H, W, Co) = {SHAPES['residual']}", shapes)
    # heads
    for label, heads, error, given, allowed in (
        ("zero", 0, ValueError, "0", "at least 1"), ("negative", -2, ValueError, "-2", "at least 1"),
        ("float", 2.0, TypeError, "2.0", "an int"), ("none", None, TypeError, "None", "an int"),
        ("bool", True, TypeError, "True", "an int"), ("text", "2", TypeError, "'2'", "an int"),
        ("tensor", ones(2, 2), TypeError, "a Tensor", "an int"),
    ):  # fmt: skip
        rows.append(wrong(f"num_heads-{label}", error, f"num_heads is {given}", allowed, num_heads=heads))
    allowed = f"(3*N*D, C) with N = 3 and C = {C}"
    rows.append(wrong("num_heads-no-divisor", ValueError, f"w_qkv has shape {(inner, C)}", allowed, num_heads=3))
    for width in (0, 257):
        shape = (3 * width, C)
        change = {"num_heads": 1, "w_qkv": ones(*shape), "w_out": ones(Co, width)}
        given = f"w_qkv has shape {shape}, so D = {width}"
        rows.append(wrong(f"D-{width}", ValueError, given, "D from 1 to 256", **change))
    both = {"bias": ones(N, T, T), "rel_bias": ones(N, 5)}
    rows += [
        wrong("both-biases", ValueError, "bias and rel_bias are both given", "at most one of them", **both),
        wrong("scale-text", TypeError, "scale is '0.5'", "a number", scale="0.5"),
        wrong("scale-tensor", TypeError, "scale is a Tensor", "a number", scale=ones(2, 2)),
        wrong("scale-bool", TypeError, "scale is False", "a number", scale=False),
    ]
    return rows + norms(B, C) + backends(valid("meta"))


empty = (B, 0, H, W, C)
no_frames = {"x": ones(*empty), "pos_emb": ones(0, C), "residual": ones(B, 0, H, W, Co)}
TEMPORAL = table(
    *common(),
    *no_tensor("focus_present", "rotary"),
    wrong("T-0", ValueError, f"x has shape {empty}, so T = 0", "T at least 1", **no_frames),
    *of_shapes(
        "bias", f"(N, T, S) = {(N, T, T)}",
        {"N": (N + 1, T, T), "T": (N, T + 1, T), "S": (N, T, T + 1), "no-heads": (T, T), "parameter": (1, N, T, T),
         "pixels": (N, L, L), "heads-last": (T, T, N), "longer-clip": (N, 32, 32)},
    ),
    *of_shapes(
        "rel_bias", f"(N, T+S-1) = {(N, 5)}",
        {"transposed": (5, N), "N": (N + 1, 5), "T": (N, T), "1-d": (5,), "dense": (N, T, T), "pixels": (N, 3, 9)},
    ),
    *(
        wrong(f"causal-{label}", TypeError, f"causal is {given}", "True or False", causal=value)
        for label, value, given in (("number", 1, "1"), ("none", None, "None"), ("mask", ones(T, T), "a Tensor"))
    ),
    wrong("focus_present-bool", TypeError, "focus_present is False", "a torch.Tensor", focus_present=False),
    *of_dtypes("focus_present", (B, T), (torch.float32, torch.int64), "torch.bool"),
    *(
        wrong(f"focus_present-{label}", ValueError, f"focus_present has shape {shape}", f"(B,) or (B, T) = {(B,)} or {(B, T)}",
              focus_present=ones(*shape, dtype=torch.bool))
        for label, shape in {"B": (B + 1,), "T": (B, T + 1), "transposed": (T, B), "0-d": (), "3-d": (B, T, 1)}.items()
    ),
    elsewhere("focus_present", (B,), "x", dtype=torch.bool),
    *of_dtypes("rotary", (T, 2), (torch.int64, torch.float16, torch.bfloat16, torch.complex64), "angles in radians"),
    *of_shapes(
        "rotary", f"(T, R//2) with T = {T} and R//2 from 1 to {D // 2}",
        {"1-d": (T,), "3-d": (1, T, 2), "T": (T + 1, 2), "width-0": (T, 0), "over-D": (T, 3), "0-d": ()},
    ),
    wrong("rotary-grad", ValueError, "rotary requires grad", "a constant", rotary=ones(T, 2).requires_grad_()),
    elsewhere("rotary", (T, 2), "x"),
)  # fmt: skip

no_rows, no_columns = (B, T, 0, W, C), (B, T, H, 0, C)
SPATIAL = table(
    *common(),
    wrong("H-0", ValueError, f"x has shape {no_rows}, so H = 0", "H at least 1", x=ones(*no_rows), residual=None),
    wrong("W-0", ValueError, f"x has shape {no_columns}, so W = 0", "W at least 1", x=ones(*no_columns), residual=None),
    *of_shapes(
        "bias", f"(N, H*W, S) = {(N, L, L)}",
        {"N": (N + 1, L, L), "HW": (N, L + 1, L), "S": (N, L, L + 1), "no-heads": (L, L), "frames": (N, T, T),
         "heads-last": (L, L, N), "image": (N, H, W, H, W)},
    ),
    *of_shapes(
        "rel_bias", f"(N, 2H-1, 2W-1) = {(N, 2 * H - 1, 2 * W - 1)}",
        {"transposed": (N, 2 * W - 1, 2 * H - 1), "flat": (N, 27), "N": (N + 1, 3, 9), "2H": (N, 4, 9), "2W": (N, 3, 10),
         "frames": (N, 2 * T - 1), "dense": (N, L, L)},
    ),
)  # fmt: skip


@pytest.mark.parametrize("operator", [temporal_layer, spatial_layer])
def test_valid(operator):
    assert assert_valid(operator, valid() | {"backend": "reference"}).shape == (B, T, H, W, Co)


@pytest.mark.parametrize("row", TEMPORAL, ids=str)
def test_temporal_layer(row):
    assert_operator_refuses(temporal_layer, row, valid())


@pytest.mark.parametrize("row", SPATIAL, ids=str)
def test_spatial_layer(row):
    assert_operator_refuses(spatial_layer, row, valid())
