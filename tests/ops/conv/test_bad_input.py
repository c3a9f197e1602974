"""Wrong calls of norm_act_conv and pseudo3d_conv."""

import pytest
import torch

from vdiff_kernels import Norm, norm_act_conv, pseudo3d_conv

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

B, Ci, T, H, W = SHAPE = 2, 4, 3, 2, 5
Co, Cm = 6, 7
OUT = (B, Co, T, H, W)
SPATIAL_WEIGHT, TEMPORAL_WEIGHT = (Co, Ci, 1, 3, 3), (Co, Cm, 3, 1, 1)
_X = "5 dimensions (B, Ci, T, H, W)"


def valid(device: str = "cpu") -> dict:
    shapes = {
        "x": SHAPE, "weight": SPATIAL_WEIGHT, "bias": (Co,), "temb": (B, T, Co), "residual": OUT, "mix": (B,),
        "stats": (B, T, Ci, 2),
    }  # fmt: skip
    tensors = {name: ones(*shape, device=device) for name, shape in shapes.items()}
    return tensors | {"norm": Norm("group", groups=2), "act": "silu"}


def valid_pseudo3d(device: str = "cpu") -> dict:
    shapes = {
        "x": SHAPE, "w_spatial": (Cm, Ci, 1, 3, 3), "b_spatial": (Cm,), "w_temporal": TEMPORAL_WEIGHT, "b_temporal": (Co,),
    }  # fmt: skip
    return {name: ones(*shape, device=device) for name, shape in shapes.items()}


def of_x() -> list:
    """What both operators say of x."""
    rows = [*no_tensor("x", none=True), sparse("x", SHAPE)]
    rows += of_dtypes("x", SHAPE, (*NOT_FLOATING, torch.float8_e4m3fn), FLOATING)
    rows += of_shapes("x", _X, {"0-d": (), "3-d": (Ci, H, W), "4-d": (B, Ci, H, W), "6-d": (1, *SHAPE)})
    for letter, place in {"Ci": 1, "T": 2, "H": 3, "W": 4}.items():
        shape = (*SHAPE[:place], 0, *SHAPE[place + 1 :])
        given = f"x has shape {shape}, so {letter} = 0"
        rows.append(wrong(f"{letter}-0", ValueError, given, f"{letter} at least 1", x=ones(*shape)))
    return rows


def kernels(kernel: tuple, Co: int, Ci: int) -> dict:
    """Weights of the wrong shape, where (Co, Ci, *kernel) is right."""
    kt, kh, kw = kernel
    return {
        "333": (Co, Ci, 3, 3, 3), "111": (Co, Ci, 1, 1, 1), "133-rotated": (Co, Ci, 3, 3, 1), "155": (Co, Ci, 1, 5, 5),
        "4-d": (Co, Ci, 3, 3), "3-d": (Co, Ci, 3), "2-d": (Co, Ci), "0-d": (), "6-d": (1, Co, Ci, *kernel),
        "Ci": (Co, Ci + 1, *kernel), "transposed": (Ci, Co, *kernel), "depthwise": (Co, 1, *kernel), "Co-0": (0, Ci, *kernel),
        "channels-last": (Co, kt, kh, kw, Ci),
    }  # fmt: skip


_WEIGHT = f"(Co, Ci, 1, 3, 3) or (Co, Ci, 3, 1, 1) with Ci = {Ci}"
CONV = table(
    *of_x(),
    *no_tensor("weight", none=True),
    *no_tensor("bias", "temb", "residual", "mix", "stats"),
    *of_dtypes("weight", SPATIAL_WEIGHT, MIXED, "torch.float32, as x (mixed dtypes need autocast)"),
    *of_dtypes("residual", OUT, MIXED, "torch.float32, as x (mixed dtypes need autocast)"),
    *of_dtypes("bias", (Co,), MIXED, "torch.float32"),
    *of_dtypes("temb", (B, Co), MIXED, "torch.float32"),
    *of_dtypes("mix", (B,), (torch.int64, torch.bool, torch.complex64), FLOATING),
    *of_dtypes("stats", (B, T, Ci, 2), MIXED, "torch.float32"),
    *(
        elsewhere(name, tuple(tensor.shape), "x")
        for name, tensor in valid().items() if isinstance(tensor, torch.Tensor) and name != "x"
    ),
    sparse("weight", SPATIAL_WEIGHT), sparse("residual", OUT),
    # x
    wrong("x-device", ValueError, "weight is on cpu", "meta, as x", x=ones(*SHAPE, device="meta")),
    wrong("x-half", TypeError, "weight has dtype torch.float32", "torch.float16, as x", x=ones(*SHAPE, dtype=torch.float16)),
    wrong("x-double", TypeError, "bias has dtype torch.float32", "torch.float64",
          x=ones(*SHAPE, dtype=torch.float64), weight=ones(*SPATIAL_WEIGHT, dtype=torch.float64),
          bias=ones(Co)),
    wrong("x-Ci", ValueError, f"weight has shape {SPATIAL_WEIGHT}", f"with Ci = {Ci + 1}", x=ones(B, Ci + 1, T, H, W)),
    wrong("x-channels-last", ValueError, f"weight has shape {SPATIAL_WEIGHT}", f"with Ci = {T}", x=ones(B, T, H, W, Ci)),
    *(
        wrong(f"x-{letter}", ValueError, f"{name} has shape {given}", f"= {allowed}", x=ones(*shape))
        for letter, shape, name, given, allowed in (
            ("B", (B + 1, Ci, T, H, W), "temb", (B, T, Co), f"{(B + 1, Co)} or {(B + 1, T, Co)}"),
            ("T", (B, Ci, T + 1, H, W), "temb", (B, T, Co), f"{(B, Co)} or {(B, T + 1, Co)}"),
            ("H", (B, Ci, T, H + 1, W), "residual", OUT, (B, Co, T, H + 1, W)),
            ("W", (B, Ci, T, H, W + 1), "residual", OUT, (B, Co, T, H, W + 1)),
        )
    ),
    # weight, bias
    *of_shapes("weight", _WEIGHT, kernels((1, 3, 3), Co, Ci)),
    *of_shapes(
        "bias", f"(Co,) = {(Co,)}",
        {"size": (Co + 1,), "of-Ci": (Ci,), "row": (1, Co), "0-d": (), "5-d": (1, Co, 1, 1, 1)},
    ),
    wrong("bias-norm", TypeError, "bias is a Norm", "a torch.Tensor", bias=Norm("group", groups=2)),
    # norm, act, stats
    *norms(B, Ci),
    *(
        wrong(f"act-{label}", ValueError, f"act is {given}", "one of None, 'silu'", act=value)
        for label, value, given in (
            ("unknown", "relu", "'relu'"), ("case", "SiLU", "'SiLU'"), ("bool", True, "True"), ("number", 1, "1"),
            ("module", torch.nn.SiLU(), "a SiLU"), ("function", torch.nn.functional.silu, "a function"),
            ("tensor", ones(2, 2), "a Tensor"), ("list", ["silu"], "a list"),
        )
    ),
    *of_shapes(
        "stats", f"(B, T, C, 2) = {(B, T, Ci, 2)}",
        {**dict(grown((B, T, Ci, 2), ("B", "T", "C", "2"))), "of-out": (B, T, Co, 2), "clip": (B, Ci, 2),
         "pair-first": (2, B, T, Ci), "groups": (B, T, 2, 2), "transposed": (B, Ci, T, 2), "0-d": ()},
    ),
    wrong("stats-tuple", TypeError, "stats is a tuple", "a torch.Tensor", stats=(ones(Ci), ones(Ci))),
    wrong("stats-grad", ValueError, "stats requires grad", "a constant", stats=ones(B, T, Ci, 2).requires_grad_()),
    wrong("stats-no-norm", ValueError, "stats given with norm None", "a norm of kind 'group'", norm=None),
    wrong("stats-layer", ValueError, "stats given with norm 'layer'", "a norm of kind 'group'", norm=Norm("layer")),
    wrong("stats-rms", ValueError, "stats given with norm 'rms'", "a norm of kind 'group'", norm=Norm("rms")),
    *(
        wrong(f"return_stats-{label}", TypeError, f"return_stats is {given}", "True or False", return_stats=value)
        for label, value, given in (
            ("number", 1, "1"), ("none", None, "None"), ("text", "yes", "'yes'"), ("tensor", ones(2, 2), "a Tensor"),
        )
    ),
    # temb, residual, mix
    *of_shapes(
        "temb", f"(B, Co) or (B, T, Co) = {(B, Co)} or {(B, T, Co)}",
        {"of-Ci": (B, Ci), "B": (B + 1, Co), "transposed": (Co, B), "1-d": (Co,), "T": (B, T + 1, Co), "frames-Ci": (B, T, Ci),
         "channels-first": (B, Co, T), "4-d": (B, 1, 1, Co), "5-d": (B, Co, 1, 1, 1), "0-d": ()},
    ),
    *of_shapes(
        "residual", f"(B, Co, T, H, W) = {OUT}",
        {**dict(grown(OUT, ("B", "Co", "T", "H", "W"))), "of-x": SHAPE, "channels-last": (B, T, H, W, Co), "4-d": (B, Co, H, W),
         "0-d": (), "vector": (B, Co, 1, 1, 1)},
    ),
    *of_shapes(
        "mix", f"() or (B,) or (B, T) = () or {(B,)} or {(B, T)}",
        {"one": (1,), "B": (B + 1,), "frames": (T,), "transposed": (T, B), "T": (B, T + 1), "3-d": (B, T, 1),
         "5-d": (B, 1, T, 1, 1)},
    ),
    wrong("mix-alone", ValueError, "mix is given without residual", "both", residual=None),
    *backends(valid("meta")),
)  # fmt: skip

_SPATIAL, _TEMPORAL = f"(Co, Ci, 1, 3, 3) with Ci = {Ci}", f"(Co, Ci, 3, 1, 1) with Ci = {Cm}"
PSEUDO3D = table(
    *of_x(),
    *no_tensor("w_spatial", "w_temporal", none=True),
    *no_tensor("b_spatial", "b_temporal"),
    *of_dtypes("w_spatial", (Cm, Ci, 1, 3, 3), MIXED, "torch.float32, as x (mixed dtypes need autocast)"),
    *of_dtypes("w_temporal", TEMPORAL_WEIGHT, MIXED, "torch.float32, as x (mixed dtypes need autocast)"),
    *of_dtypes("b_spatial", (Cm,), MIXED, "torch.float32"),
    *of_dtypes("b_temporal", (Co,), MIXED, "torch.float32"),
    *(elsewhere(name, tuple(tensor.shape), "x") for name, tensor in valid_pseudo3d().items() if name != "x"),
    sparse("w_spatial", (Cm, Ci, 1, 3, 3)),
    wrong("x-device", ValueError, "w_spatial is on cpu", "meta, as x", x=ones(*SHAPE, device="meta")),
    wrong("x-half", TypeError, "w_spatial has dtype torch.float32", "torch.float16, as x", x=ones(*SHAPE, dtype=torch.float16)),
    wrong("x-Ci", ValueError, f"w_spatial has shape {(Cm, Ci, 1, 3, 3)}", f"with Ci = {Ci + 1}", x=ones(B, Ci + 1, T, H, W)),
    wrong("x-channels-last", ValueError, f"w_spatial has shape {(Cm, Ci, 1, 3, 3)}", f"with Ci = {T}", x=ones(B, T, H, W, Ci)),
    *of_shapes("w_spatial", _SPATIAL, {**kernels((1, 3, 3), Cm, Ci), "temporal": (Cm, Ci, 3, 1, 1)}),
    *of_shapes(
        "w_temporal", _TEMPORAL,
        {**kernels((3, 1, 1), Co, Cm), "spatial": (Co, Cm, 1, 3, 3), "of-Ci": (Co, Ci, 3, 1, 1)},
    ),
    wrong("w_spatial-Cm", ValueError, f"w_temporal has shape {TEMPORAL_WEIGHT}", f"with Ci = {Cm + 1}",
          w_spatial=ones(Cm + 1, Ci, 1, 3, 3)),
    *of_shapes("b_spatial", f"(Cm,) = {(Cm,)}", {"size": (Cm + 1,), "of-Co": (Co,), "row": (1, Cm), "0-d": ()}),
    *of_shapes("b_temporal", f"(Co,) = {(Co,)}", {"size": (Co + 1,), "of-Cm": (Cm,), "row": (1, Co), "0-d": ()}),
    *backends(valid_pseudo3d("meta")),
)  # fmt: skip


def test_valid():
    assert assert_valid(norm_act_conv, valid() | {"backend": "reference"}).shape == OUT
    assert assert_valid(pseudo3d_conv, valid_pseudo3d() | {"backend": "reference"}).shape == OUT


@pytest.mark.parametrize("row", CONV, ids=str)
def test_norm_act_conv(row):
    assert_operator_refuses(norm_act_conv, row, valid())


@pytest.mark.parametrize("row", PSEUDO3D, ids=str)
def test_pseudo3d_conv(row):
    assert_operator_refuses(pseudo3d_conv, row, valid_pseudo3d())
