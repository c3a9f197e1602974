"""Wrong calls of temporal_attention and spatial_attention."""

import pytest
import torch

from vdiff_kernels import spatial_attention, temporal_attention

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
    of_dtypes,
    of_shapes,
    ones,
    sparse,
    table,
    wrong,
)  # fmt: skip

B, T, H, W, N, D = SHAPE = 2, 3, 2, 5, 2, 4
L, S = H * W, 6  # S: another number of keys
_Q = "(B, T, H, W, N, D)"


def keys(*shape):
    return {"k": ones(*shape), "v": ones(*shape)}


def everywhere(*shape, **options):
    return {name: ones(*shape, **options) for name in "qkv"}


def common() -> list:
    """What both operators say of q, k, v, the kind of a table, scale and backend."""
    rows = no_tensor("q", "k", "v", none=True) + no_tensor("bias", "rel_bias")
    rows += of_dtypes("q", SHAPE, (*NOT_FLOATING, torch.float8_e4m3fn), FLOATING)
    for name in ("k", "v"):
        rows += of_dtypes(name, SHAPE, MIXED, "torch.float32, as q (mixed dtypes need autocast)")
    ranks = {"0-d": (), "1-d": (D,), "4-d": (B, L, N, D), "5-d": (B, T, L, N, D), "7-d": (1, *SHAPE)}
    rows += of_shapes("q", f"6 dimensions {_Q}", ranks)
    for letter, shape in grown(SHAPE, "BTHWND"):
        if letter != "T":
            rows.append(wrong(f"q-{letter}", ValueError, f"k has shape {SHAPE}", f"= {shape}", q=ones(*shape)))
    for name in ("bias", "rel_bias"):
        rows += of_dtypes(name, (N, T, T), (torch.int64, torch.bool, torch.complex64), FLOATING)
        rows.append(elsewhere(name, (N, T, T), "q"))
    rows += [
        wrong("half-q", TypeError, "k has dtype torch.float32", "torch.float16, as q", q=ones(*SHAPE, dtype=torch.float16)),
        wrong("q-device", ValueError, "k is on cpu", "meta, as q", q=ones(*SHAPE, device="meta")),
        elsewhere("k", SHAPE, "q"), elsewhere("v", SHAPE, "q"), sparse("q", SHAPE), sparse("k", SHAPE), sparse("v", SHAPE),
        wrong("scale-text", TypeError, "scale is '0.5'", "a number", scale="0.5"),
        wrong("scale-tensor", TypeError, "scale is a Tensor", "a number", scale=ones(2, 2)),
        wrong("scale-complex", TypeError, "scale is a complex", "a number", scale=0.5j),
        wrong("scale-bool", TypeError, "scale is True", "a number", scale=True),
        wrong("scale-list", TypeError, "scale is a list", "a number", scale=[0.5]),
        *backends(everywhere(*SHAPE, device="meta")),
    ]  # fmt: skip
    for label, width in (("0", 0), ("257", 257)):
        shape = (B, T, H, W, N, width)
        allowed = "D from 1 to 256"
        rows.append(wrong(f"D-{label}", ValueError, f"q has shape {shape}, so D = {width}", allowed, **everywhere(*shape)))
    shape = (B, T, H, W, 0, D)
    rows.append(wrong("N-0", ValueError, f"q has shape {shape}, so N = 0", "N at least 1", **everywhere(*shape)))
    return rows


_K = "(B, S, H, W, N, D)"
FOCUS = {"focus_present": ones(B, dtype=torch.bool)}
TEMPORAL = table(
    *common(),
    *no_tensor("focus_present", "rotary"),
    # k, v
    *of_shapes("k", f"6 dimensions {_K}", {"4-d": (B, S, N, D), "5-d": (B, T, L, N, D), "7-d": (1, *SHAPE)}),
    *(
        wrong(f"k-{letter}", ValueError, f"k has shape {shape}", f"{_K} = {SHAPE}", k=ones(*shape))
        for letter, shape in grown(SHAPE, "BTHWND") if letter != "T"
    ),
    *of_shapes("v", f"{_K} = {SHAPE}", {"4-d": (B, S, N, D), **dict(grown(SHAPE, "BSHWND"))}),
    wrong("k-S", ValueError, f"v has shape {SHAPE}", f"= {(B, S, H, W, N, D)}", k=ones(B, S, H, W, N, D)),
    wrong("T-0", ValueError, f"q has shape {(B, 0, H, W, N, D)}, so T = 0", "T at least 1", **everywhere(B, 0, H, W, N, D)),
    wrong("S-0", ValueError, f"k has shape {(B, 0, H, W, N, D)}, so S = 0", "S at least 1", **keys(B, 0, H, W, N, D)),
    # bias, rel_bias
    *of_shapes(
        "bias", f"(N, T, S) = {(N, T, T)}",
        {"N": (N + 1, T, T), "T": (N, T + 1, T), "S": (N, T, T + 1), "no-heads": (T, T), "parameter": (1, N, T, T), "0-d": (),
         "heads-last": (T, T, N), "longer-clip": (N, 32, 32), "broadcast": (1, T, T)},
    ),
    wrong("bias-transposed", ValueError, f"bias has shape {(N, S, T)}", f"(N, T, S) = {(N, T, S)}",
          bias=ones(N, S, T), **keys(B, S, H, W, N, D)),
    wrong("bias-of-T", ValueError, f"bias has shape {(N, T, T)}", f"(N, T, S) = {(N, T, S)}",
          bias=ones(N, T, T), **keys(B, S, H, W, N, D)),
    *of_shapes(
        "rel_bias", f"(N, T+S-1) = {(N, 2 * T - 1)}",
        {"transposed": (2 * T - 1, N), "N": (N + 1, 2 * T - 1), "2T": (N, 2 * T), "T": (N, T), "1-d": (2 * T - 1,), "0-d": (),
         "dense": (N, T, T), "spatial": (N, 2 * H - 1, 2 * W - 1), "parameter": (1, N, 2 * T - 1)},
    ),
    wrong("rel_bias-of-T", ValueError, f"rel_bias has shape {(N, 2 * T - 1)}", f"(N, T+S-1) = {(N, T + S - 1)}",
          rel_bias=ones(N, 2 * T - 1), **keys(B, S, H, W, N, D)),
    wrong("both-biases", ValueError, "bias and rel_bias are both given", "at most one of them",
          bias=ones(N, T, T), rel_bias=ones(N, 2 * T - 1)),
    # causal
    *(
        wrong(f"causal-{label}", TypeError, f"causal is {given}", "True or False", causal=value)
        for label, value, given in (
            ("number", 1, "1"), ("none", None, "None"), ("text", "yes", "'yes'"), ("list", [True], "a list"),
            ("mask", ones(T, T, dtype=torch.bool), "a Tensor"),
        )
    ),
    # focus_present
    wrong("focus_present-bool", TypeError, "focus_present is True", "a torch.Tensor", focus_present=True),
    *of_dtypes("focus_present", (B,), (torch.float32, torch.int64, torch.uint8), "torch.bool"),
    *(
        wrong(f"focus_present-{label}", ValueError, f"focus_present has shape {shape}", f"(B,) or (B, T) = {(B,)} or {(B, T)}",
              focus_present=ones(*shape, dtype=torch.bool))
        for label, shape in {"B": (B + 1,), "T": (B, T + 1), "transposed": (T, B), "frames-only": (T,), "column": (B, 1),
                             "0-d": (), "3-d": (B, T, 1), "mask": (B, T, T)}.items()
    ),
    wrong("focus_present-S", ValueError, f"focus_present is given with S = {S} and T = {T}", "S == T",
          **keys(B, S, H, W, N, D), **FOCUS),
    elsewhere("focus_present", (B,), "q", dtype=torch.bool),
    # rotary
    *of_dtypes("rotary", (T, 2), (torch.int64, torch.float16, torch.bfloat16, torch.complex64), "angles in radians"),
    *of_shapes(
        "rotary", f"(T, R//2) with T = {T} and R//2 from 1 to {D // 2}",
        {"1-d": (T,), "3-d": (1, T, 2), "0-d": (), "T": (T + 1, 2), "transposed": (2, T), "width-0": (T, 0), "over-D": (T, 3),
         "each-channel": (T, D)},
    ),
    wrong("rotary-D-1", ValueError, f"rotary has shape {(T, 1)}", "R//2 from 1 to 0",
          rotary=ones(T, 1), **everywhere(B, T, H, W, N, 1)),
    wrong("rotary-grad", ValueError, "rotary requires grad", "a constant", rotary=ones(T, 2).requires_grad_()),
    wrong("rotary-S", ValueError, f"rotary is given with S = {S} and T = {T}", "S == T",
          rotary=ones(T, 2), **keys(B, S, H, W, N, D)),
    elsewhere("rotary", (T, 2), "q"),
    sparse("rotary", (T, 2)), sparse("bias", (N, T, T)),
)  # fmt: skip

_KV = f"{_Q}, or context (B, S, N, D) or (B, T, S, N, D)"
SPATIAL = table(
    *common(),
    wrong("q-T", ValueError, f"k has shape {SHAPE}", f"{_Q} = {(B, T + 1, H, W, N, D)}", q=ones(B, T + 1, H, W, N, D)),
    *of_shapes("k", _KV, {"0-d": (), "3-d": (B, S, N * D), "7-d": (1, *SHAPE)}),
    *of_shapes("k", f"{_Q} = {SHAPE}", dict(grown(SHAPE, "BTHWND"))),
    *of_shapes("v", f"{_Q} = {SHAPE}", {"4-d": (B, L, N, D), "5-d": (B, T, L, N, D), **dict(grown(SHAPE, "BTHWND"))}),
    wrong("H-0", ValueError, f"q has shape {(B, T, 0, W, N, D)}, so H = 0", "H at least 1", **everywhere(B, T, 0, W, N, D)),
    wrong("W-0", ValueError, f"q has shape {(B, T, H, 0, N, D)}, so W = 0", "W at least 1", **everywhere(B, T, H, 0, N, D)),
    # context (B, S, N, D)
    *(
        wrong(f"context-{letter}", ValueError, f"k has shape {shape}", f"(B, S, N, D) = {(B, S, N, D)}", **keys(*shape))
        for letter, shape in grown((B, S, N, D), "BSND") if letter != "S"
    ),
    *(
        wrong(f"context-v-{letter}", ValueError, f"v has shape {shape}", f"(B, S, N, D) = {(B, S, N, D)}",
              **(keys(B, S, N, D) | {"v": ones(*shape)}))
        for letter, shape in [*grown((B, S, N, D), "BSND"), ("per-frame", (B, T, S, N, D)), ("pixels", SHAPE)]
    ),
    wrong("context-heads-first", ValueError, f"k has shape {(B, N, S, D)}", f"(B, S, N, D) = {(B, N, N, D)}",
          **keys(B, N, S, D)),
    wrong("context-S-0", ValueError, f"k has shape {(B, 0, N, D)}, so S = 0", "S at least 1", **keys(B, 0, N, D)),
    wrong("context-half", TypeError, "k has dtype torch.float16", "torch.float32, as q",
          k=ones(B, S, N, D, dtype=torch.float16)),
    # context (B, T, S, N, D)
    *(
        wrong(f"frame-context-{letter}", ValueError, f"k has shape {shape}", f"(B, T, S, N, D) = {(B, T, S, N, D)}",
              **keys(*shape))
        for letter, shape in grown((B, T, S, N, D), "BTSND") if letter != "S"
    ),
    wrong("frame-context-v-S", ValueError, f"v has shape {(B, T, S + 1, N, D)}", f"(B, T, S, N, D) = {(B, T, S, N, D)}",
          k=ones(B, T, S, N, D), v=ones(B, T, S + 1, N, D)),
    wrong("frame-context-S-0", ValueError, f"k has shape {(B, T, 0, N, D)}, so S = 0", "S at least 1", **keys(B, T, 0, N, D)),
    # bias, rel_bias
    *of_shapes(
        "bias", f"(N, H*W, S) = {(N, L, L)}",
        {"N": (N + 1, L, L), "HW": (N, L + 1, L), "S": (N, L, L + 1), "no-heads": (L, L), "temporal": (N, T, T), "0-d": (),
         "per-clip": (B, N, L, L), "image": (N, H, W, H, W), "heads-last": (L, L, N)},
    ),
    wrong("bias-transposed", ValueError, f"bias has shape {(N, S, L)}", f"(N, H*W, S) = {(N, L, S)}",
          bias=ones(N, S, L), **keys(B, S, N, D)),
    wrong("bias-of-pixels", ValueError, f"bias has shape {(N, L, L)}", f"(N, H*W, S) = {(N, L, S)}",
          bias=ones(N, L, L), **keys(B, T, S, N, D)),
    *of_shapes(
        "rel_bias", f"(N, 2H-1, 2W-1) = {(N, 2 * H - 1, 2 * W - 1)}",
        {"transposed": (N, 2 * W - 1, 2 * H - 1), "flat": (N, (2 * H - 1) * (2 * W - 1)), "N": (N + 1, 2 * H - 1, 2 * W - 1),
         "2H": (N, 2 * H, 2 * W - 1), "2W": (N, 2 * H - 1, 2 * W), "heads-last": (2 * H - 1, 2 * W - 1, N),
         "temporal": (N, 2 * T - 1), "dense": (N, L, L), "0-d": ()},
    ),
    wrong("both-biases", ValueError, "bias and rel_bias are both given", "at most one of them",
          bias=ones(N, L, L), rel_bias=ones(N, 2 * H - 1, 2 * W - 1)),
    # key_mask
    *(row for row in no_tensor("key_mask", put=lambda name, value: {name: value, **keys(B, S, N, D)})),
    *of_dtypes("key_mask", (B, S), (torch.float32, torch.int64, torch.uint8), "torch.bool",
               put=lambda name, value: {name: value, **keys(B, S, N, D)}),
    *(
        wrong(f"key_mask-{label}", ValueError, f"key_mask has shape {shape}", f"(B, S) = {(B, S)}",
              key_mask=ones(*shape, dtype=torch.bool), **keys(B, S, N, D))
        for label, shape in {"B": (B + 1, S), "S": (B, S + 1), "transposed": (S, B), "keys-only": (S,), "0-d": (),
                             "frames": (B, T, S), "broadcast": (1, S), "queries": (B, 1, S), "bias": (N, L, S)}.items()
    ),
    wrong("key_mask-frame-context-S", ValueError, f"key_mask has shape {(B, S + 1)}", f"(B, S) = {(B, S)}",
          key_mask=ones(B, S + 1, dtype=torch.bool), **keys(B, T, S, N, D)),
    wrong("key_mask-pixels", ValueError, "key_mask is given without context k, v", "bias (N, H*W, S) with -inf, or none",
          key_mask=ones(B, L, dtype=torch.bool)),
    elsewhere("key_mask", (B, S), "q", put=lambda name, value: {name: value, **keys(B, S, N, D)}, dtype=torch.bool),
    *(
        wrong(f"rel_bias-context-{len(shape)}-d", ValueError, "rel_bias is given with context k, v", "bias (N, H*W, S) or none",
              rel_bias=ones(N, 2 * H - 1, 2 * W - 1), **keys(*shape))
        for shape in ((B, S, N, D), (B, T, S, N, D))
    ),
    sparse("bias", (N, L, L)),
)  # fmt: skip


@pytest.mark.parametrize("operator", [temporal_attention, spatial_attention])
def test_valid(operator):
    assert assert_valid(operator, everywhere(*SHAPE) | {"backend": "reference"}).shape == SHAPE


@pytest.mark.parametrize("row", TEMPORAL, ids=str)
def test_temporal_attention(row):
    assert_operator_refuses(temporal_attention, row, everywhere(*SHAPE))


@pytest.mark.parametrize("row", SPATIAL, ids=str)
def test_spatial_attention(row):
    assert_operator_refuses(spatial_attention, row, everywhere(*SHAPE))
