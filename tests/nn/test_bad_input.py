"""Wrong inputs of the modules. What a module hands on as it is, the operator refuses: such a row names it."""

import functools

import pytest
import torch

import vdiff_kernels
from vdiff_kernels import Norm, nn

from ..bad_input import (
    FLOATING,
    NOT_FLOATING,
    assert_refused,
    assert_valid,
    elsewhere,
    no_tensor,
    of_dtypes,
    of_shapes,
    ones,
    sparse,
    wrong,
)  # fmt: skip

B, T, H, W, C, Co, E = 2, 3, 2, 5, 8, 16, 5
ATTENDED, IMAGES, FRAMES = (B, T, H, W, C), (B, C, T, H, W), (B, T, C, H, W)
OUT = (B, Co, T, H, W)
CLIP = torch.ones(B, dtype=torch.bool)


def of_x(letters: str, shape: tuple) -> list:
    """What every module says of x; shape: a valid one."""
    rank, with_C = letters.count(",") + 1, f"{letters} with C = {C}"
    ranks = {"0-d": (), "3-d": shape[-3:], "4-d": shape[1:], "6-d": (1, *shape)}
    place = letters.strip("()").split(", ").index("C")
    other = {
        f"C-{label}": (*shape[:place], size, *shape[place + 1 :])
        for label, size in {"more": C + 1, "less": C - 1, "0": 0}.items()
    }
    return [
        *of_shapes("x", f"{rank} dimensions {letters}", ranks), *of_shapes("x", with_C, other), *of_any_x(shape),
    ]  # fmt: skip


def of_any_x(shape: tuple) -> list:
    return [
        *no_tensor("x", none=True), *of_dtypes("x", shape, (*NOT_FLOATING, torch.float8_e4m3fn), FLOATING), sparse("x", shape),
        *of_dtypes("x", shape, (torch.float64, torch.float16, torch.bfloat16), "torch.float32, as its weights"),
        elsewhere("x", shape, "its weights"),
    ]  # fmt: skip


def empty(letters: str, shape: tuple, sizes: str, who: str, see=lambda x: x) -> list:
    """x without frames, rows or columns, as `who` refuses it; see: x as it sees it."""
    names = letters.strip("()").split(", ")
    rows = []
    for letter in sizes:
        x = ones(*(0 if name == letter else size for name, size in zip(names, shape)))
        given = f"x has shape {tuple(see(x).shape)}, so {letter} = 0"
        rows.append(wrong(f"x-{letter}-0", ValueError, given, f"{letter} at least 1", x=x).by(who))
    return rows


def norms_and_residual(who: str) -> list:
    """The layers' norm and residual; who: the operator that refuses them."""
    rows = [
        *no_tensor("residual"),
        *of_dtypes("residual", ATTENDED, (torch.int64, torch.float16), "torch.float32, as x"),
        *of_shapes("residual", f"(B, T, H, W, Co) = {ATTENDED}", {"T": (B, T + 1, H, W, C), "channels-first": FRAMES}),
        elsewhere("residual", ATTENDED, "x"),
        wrong("norm-module", TypeError, "norm is a LayerNorm", "a vdiff_kernels.Norm", norm=torch.nn.LayerNorm(C)),
        wrong("norm-kind", ValueError, "norm.kind is 'batch'", "one of 'group', 'layer', 'rms'", norm=Norm("batch")),
        wrong("norm-groups", ValueError, "norm.groups is 3", f"a divisor of C = {C}", norm=Norm("group", groups=3)),
        wrong("norm-weight", ValueError, "norm.weight has shape (9,)", "(C,) = (8,)", norm=Norm("layer", weight=ones(C + 1))),
        wrong("norm-scale", ValueError, "norm.scale has shape (8,)", "(B, C) = (2, 8)", norm=Norm("layer", scale=ones(C))),
    ]
    return [row.by(who) for row in rows]


def focus(who: str) -> list:
    allowed = f"(B,) or (B, T) = {(B,)} or {(B, T)}"
    rows = no_tensor("focus_present") + of_dtypes("focus_present", (B,), (torch.float32, torch.int64), "torch.bool")
    for label, shape in {"B": (B + 1,), "T": (B, T + 1), "0-d": ()}.items():
        change = {"focus_present": ones(*shape, dtype=torch.bool)}
        rows.append(wrong(f"focus_present-{label}", ValueError, f"focus_present has shape {shape}", allowed, **change))
    rows.append(elsewhere("focus_present", (B,), "x", dtype=torch.bool))
    return [row.by(who) for row in rows]


def frames(shape: tuple, max_frames: int) -> list:
    """x with no frame and with one too many; shape has T second."""
    rows = []
    for T in (0, max_frames + 1):
        given = (shape[0], T, *shape[2:])
        allowed = f"T from 1 to max_frames = {max_frames}"
        rows.append(wrong(f"x-T-{T}", ValueError, f"x has shape {given}, so T = {T}", allowed, x=ones(*given)))
    return rows


def frame_sizes() -> list:
    """x with frames larger than max_size = (4, 6)."""
    return [
        wrong(
            f"x-{label}", ValueError, f"x has frames of {size}", "at most max_size = (4, 6)", x=ones(B, T, *size, C)
        ).by("SpatialAttention")
        for label, size in {"H": (5, 6), "W": (4, 7), "swapped": (6, 4)}.items()
    ]  # fmt: skip


_ROTARY = f"(T, R//2) with T = {T} and R//2 from 1 to 2"
TEMPORAL_ONLY = [
    *(
        wrong(f"causal-{value}", TypeError, f"causal is {value}", "True or False", causal=value).by("temporal_layer")
        for value in (1, None)
    ),
    *(
        row.by("temporal_layer")
        for row in [
            *no_tensor("rotary"), *of_dtypes("rotary", (T, 2), (torch.int64, torch.float16), "angles in radians"),
            *of_shapes("rotary", _ROTARY, {"1-d": (T,), "T": (T + 1, 2), "over-D": (T, 3)}), elsewhere("rotary", (T, 2), "x"),
            wrong("rotary-grad", ValueError, "rotary requires grad", "a constant", rotary=ones(T, 2).requires_grad_()),
        ]
    ),
]  # fmt: skip


def blended() -> list:
    """temb, residual and mix, which NormActConv hands on."""
    with_temb = f"(B, Co) or (B, T, Co) = {(B, Co)} or {(B, T, Co)}"
    rows = [
        *no_tensor("temb", "residual", "mix"),
        *of_shapes("temb", with_temb, {"of-C": (B, C), "1-d": (Co,), "T": (B, 1, Co)}),
        *of_shapes("residual", f"(B, Co, T, H, W) = {OUT}", {"of-x": IMAGES, "frames-first": (B, T, Co, H, W)}),
        *of_shapes("mix", f"() or (B,) or (B, T) = () or {(B,)} or {(B, T)}", {"one": (1,), "transposed": (T, B)}),
        *of_dtypes("temb", (B, Co), (torch.int64, torch.float16), "torch.float32"),
        *of_dtypes("residual", OUT, (torch.int64, torch.float16), "torch.float32, as x"),
        *of_dtypes("mix", (B,), (torch.int64, torch.bool), FLOATING),
        elsewhere("temb", (B, Co), "x"), elsewhere("residual", OUT, "x"), elsewhere("mix", (B,), "x"),
        wrong("mix-alone", ValueError, "mix is given without residual", "both", residual=None),
    ]  # fmt: skip
    return [row.by("norm_act_conv") for row in rows]


_TEMB = f"(B, E) or (B, T, E) = {(B, E)} or {(B, T, E)}"
TEMB = [
    *no_tensor("temb", none=True), *of_dtypes("temb", (B, E), NOT_FLOATING, FLOATING),
    *of_dtypes("temb", (B, E), (torch.float64, torch.float16), "torch.float32, as its weights"),
    *of_shapes("temb", _TEMB, {"0-d": (), "1-d": (E,), "B": (B + 1, E), "E": (B, E + 1), "T": (B, T + 1, E), "of-C": (B, C),
                               "transposed": (E, B), "4-d": (B, T, E, 1)}),
    elsewhere("temb", (B, E), "its weights"),
]  # fmt: skip


def lengths() -> list:
    """T and S of RelativePositionBias."""
    rows = [
        wrong(f"{name}-{label}", error, f"{name} is {given}", allowed, **{name: value})
        for name in "TS"
        for label, value, error, given, allowed in (
            ("zero", 0, ValueError, "0", "at least 1"), ("negative", -1, ValueError, "-1", "at least 1"),
            ("float", 3.0, TypeError, "3.0", "an int"), ("bool", True, TypeError, "True", "an int"),
            ("text", "3", TypeError, "'3'", "an int"), ("tensor", ones(2, 2), TypeError, "a Tensor", "an int"),
        )
    ]  # fmt: skip
    return rows + [wrong("T-none", TypeError, "T is None", "an int", T=None)]


LONG = [
    wrong("T-long", ValueError, "T = 5 and S = 3 frames", "at most max_frames = 4", T=5),
    wrong("S-long", ValueError, "T = 3 and S = 5 frames", "at most max_frames = 4", S=5),
]


# Label: makes the module, its valid arguments, the rows.
TABLES = {
    "TemporalAttention": (
        lambda: nn.TemporalAttention(C, 2, max_frames=4), {"x": ones(*ATTENDED), "focus_present": CLIP},
        [*of_x("(B, T, H, W, C)", ATTENDED), *frames(ATTENDED, 4), *norms_and_residual("temporal_layer"),
         *focus("temporal_layer"), *TEMPORAL_ONLY],
    ),
    "SpatialAttention": (
        lambda: nn.SpatialAttention(C, 2, max_size=(4, 6)), {"x": ones(*ATTENDED)},
        [*of_x("(B, T, H, W, C)", ATTENDED), *frame_sizes(), *norms_and_residual("spatial_layer"),
         *empty("(B, T, H, W, C)", ATTENDED, "HW", "spatial_layer")],
    ),
    "FactorizedAttention": (
        lambda: nn.FactorizedAttention(C, 2, max_frames=4, max_size=(4, 6)), {"x": ones(*ATTENDED), "focus_present": CLIP},
        [*of_x("(B, T, H, W, C)", ATTENDED), *frames(ATTENDED, 4), *frame_sizes(), *focus("FactorizedAttention"),
         *empty("(B, T, H, W, C)", ATTENDED, "HW", "spatial_layer")],
    ),
    "SpatialConv": (
        lambda: nn.SpatialConv(C, Co), {"x": ones(*IMAGES)},
        [*of_x("(B, C, T, H, W)", IMAGES), *empty("(B, C, T, H, W)", IMAGES, "THW", "norm_act_conv")],
    ),
    "TemporalConv": (
        lambda: nn.TemporalConv(C, Co), {"x": ones(*IMAGES)},
        [*of_x("(B, C, T, H, W)", IMAGES), *empty("(B, C, T, H, W)", IMAGES, "THW", "norm_act_conv")],
    ),
    "Pseudo3DConv": (
        lambda: nn.Pseudo3DConv(C, Co), {"x": ones(*IMAGES)},
        [*of_x("(B, C, T, H, W)", IMAGES), *empty("(B, C, T, H, W)", IMAGES, "THW", "pseudo3d_conv")],
    ),
    "NormActConv": (
        lambda: nn.NormActConv(C, Co, groups=4),
        {"x": ones(*IMAGES), "temb": ones(B, Co), "residual": ones(*OUT), "mix": ones(B)},
        [*of_x("(B, C, T, H, W)", IMAGES), *empty("(B, C, T, H, W)", IMAGES, "THW", "norm_act_conv"), *blended()],
    ),
    "ResnetBlock3D": (
        lambda: nn.ResnetBlock3D(C, Co, temb_channels=E, groups=4), {"x": ones(*IMAGES), "temb": ones(B, E)},
        [*of_x("(B, C, T, H, W)", IMAGES), *empty("(B, C, T, H, W)", IMAGES, "THW", "ResnetBlock3D"), *TEMB],
    ),
    "ResnetBlock3D-plain": (
        lambda: nn.ResnetBlock3D(C, groups=4), {"x": ones(*IMAGES)},
        [wrong("temb", ValueError, "temb is given", "None, as temb_channels is None", temb=ones(B, E)),
         wrong("temb-number", ValueError, "temb is given", "None, as temb_channels is None", temb=0)],
    ),
    "Pseudo3DBlock": (
        lambda: nn.Pseudo3DBlock(C, Co, 2), {"x": ones(*FRAMES)},
        [*of_x("(B, T, C, H, W)", FRAMES), *frames(FRAMES, 32),
         *empty("(B, T, C, H, W)", FRAMES, "HW", "norm_act_conv", see=lambda x: x.transpose(1, 2))],
    ),
    "FeedForward": (
        lambda: nn.FeedForward(C), {"x": ones(B, T, C)},
        [*of_any_x((B, T, C)), *of_shapes(
             "x", f"(..., C) with C = {C}",
             {"0-d": (), "1-d": (C + 1,), "C": (B, C + 1), "C-0": (B, 0), "first": FRAMES},
         )],
    ),
    "RelativePositionBias": (lambda: nn.RelativePositionBias(2, max_frames=4), {"T": 3, "S": 3}, [*lengths(), *LONG]),
    "RelativePositionBias-dense": (
        lambda: nn.RelativePositionBias(2, "dense", 4), {"T": 3, "S": 3}, LONG,
    ),
    "RelativePositionBias-t5": (
        lambda: nn.RelativePositionBias(2, "t5"), {"T": 3, "S": 3}, lengths(),
    ),
}  # fmt: skip
ROWS = [pytest.param(label, row, id=f"{label}-{row}") for label, (_, _, rows) in TABLES.items() for row in rows]
made = functools.cache(lambda label: TABLES[label][0]())

# A module whose backend cannot have its tensors, and the operator that says so.
UNSERVED = {
    "TemporalAttention": "temporal_layer", "SpatialAttention": "spatial_layer", "FactorizedAttention": "spatial_layer",
    "SpatialConv": "norm_act_conv", "TemporalConv": "norm_act_conv", "Pseudo3DConv": "pseudo3d_conv",
    "NormActConv": "norm_act_conv", "ResnetBlock3D-plain": "norm_act_conv", "Pseudo3DBlock": "norm_act_conv",
    "FeedForward": "geglu",
}  # fmt: skip


@pytest.mark.parametrize("label", TABLES)
def test_valid(label):
    _, arguments, rows = TABLES[label]
    if label in ("RelativePositionBias", "RelativePositionBias-dense"):  # they give a view of their table: nothing runs
        made(label)(**arguments)
    else:
        with vdiff_kernels.backend("reference"):
            assert_valid(made(label), arguments)
    names = [row.name for row in rows]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("label", [label for label in TABLES if not label.startswith("RelativePositionBias")])
def test_valid_under_autocast(label):
    """Weights stay float32 and x may be either: what modules ask of dtypes holds outside autocast. A sum with a float32 residual
    is float32, as eager PyTorch's.
    """
    _, arguments, _ = TABLES[label]
    adds_x = label in ("FactorizedAttention", "ResnetBlock3D-plain")
    for dtype in (torch.float32, torch.bfloat16):
        is_wide = arguments.get("residual") is not None or (adds_x and dtype == torch.float32)
        with vdiff_kernels.backend("reference"), torch.autocast("cpu", torch.bfloat16):
            out = made(label)(**arguments | {"x": arguments["x"].to(dtype)})
            assert out.dtype == (torch.float32 if is_wide else torch.bfloat16)


@pytest.mark.parametrize("label, row", ROWS)
def test_forward(label, row):
    module = made(label)
    assert_refused(type(module).__name__, row, module, TABLES[label][1])


@pytest.mark.parametrize("label", UNSERVED)
def test_backend_that_cannot_serve(label):
    _, arguments, _ = TABLES[label]
    module = TABLES[label][0]()
    for part in module.modules():
        part.backend = "cuda"
    given = "backend is 'cuda', which cannot serve this call: it runs on cuda tensors and these are on cpu"
    assert_refused(UNSERVED[label], wrong("cuda", ValueError, given, "one of 'reference'"), module, arguments)
