"""Wrong constructor arguments of the modules: refused before a parameter is made."""

import pytest
import torch

from vdiff_kernels import nn

from ..bad_input import assert_refused, assert_valid, ones, wrong

KERNELS, SCOPES = "one of 'spatial', 'temporal'", "one of 'frame', 'clip'"
BACKENDS = "one of None, 'reference', 'composed', 'cpu', 'cuda', 'triton'"


def not_positive(name: str) -> list:
    """What is no size, in place of one that must be an int from 1."""
    return [
        wrong(f"{name}-{label}", error, f"{name} is {given}", allowed, **{name: value})
        for label, value, error, given, allowed in (
            ("zero", 0, ValueError, "0", "at least 1"), ("negative", -8, ValueError, "-8", "at least 1"),
            ("float", 8.0, TypeError, "8.0", "an int"), ("bool", True, TypeError, "True", "an int"),
            ("text", "8", TypeError, "'8'", "an int"), ("tuple", (8, 8), TypeError, "a tuple", "an int"),
            ("tensor", ones(2, 2), TypeError, "a Tensor", "an int"),
        )
    ]  # fmt: skip


def sizes(*names: str, none: tuple = ()) -> list:
    """none: those that may be None."""
    rows = [row for name in names for row in not_positive(name)]
    absent = [name for name in names if name not in none]
    return rows + [wrong(f"{name}-none", TypeError, f"{name} is None", "an int", **{name: None}) for name in absent]


def choices(name: str, allowed: str, *values) -> list:
    return [wrong(f"{name}-{value}", ValueError, f"{name} is {value!r}", allowed, **{name: value}) for value in values]


def no_bool(name: str) -> list:
    values = {"number": (1, "1"), "none": (None, "None"), "text": ("cpu", "'cpu'"), "tensor": (ones(2, 2), "a Tensor")}
    return [
        wrong(f"{name}-{label}", TypeError, f"{name} is {given}", "True or False", **{name: value})
        for label, (value, given) in values.items()
    ]


BACKEND = [
    *choices("backend", BACKENDS, "opencl", "CPU", "", 0),
    wrong("backend-list", ValueError, "backend is a list", BACKENDS, backend=["cpu"]),
    wrong("backend-tensor", ValueError, "backend is a Tensor", BACKENDS, backend=ones(2, 2)),
    wrong("backend-device", ValueError, "backend is a device", BACKENDS, backend=torch.device("cpu")),
]
EPS = [
    wrong("eps-negative", ValueError, "eps is -1e-05", "at least 0", eps=-1e-5),
    wrong("eps-nan", ValueError, "eps is nan", "at least 0", eps=float("nan")),
    wrong("eps-none", TypeError, "eps is None", "a number", eps=None),
    wrong("eps-text", TypeError, "eps is '1e-5'", "a number", eps="1e-5"),
    wrong("eps-bool", TypeError, "eps is True", "a number", eps=True),
]
KERNEL = choices("kernel", KERNELS, "both", "Spatial", None, 3)
SCOPE = choices("scope", SCOPES, "video", "Frame", None, 1)
MAX_SIZE = [
    wrong("max_size-number", TypeError, "max_size is 8", "two ints (Hmax, Wmax)", max_size=8),
    wrong("max_size-text", TypeError, "max_size is '88'", "two ints (Hmax, Wmax)", max_size="88"),
    wrong("max_size-one", TypeError, "max_size is a tuple", "two ints (Hmax, Wmax)", max_size=(8,)),
    wrong("max_size-three", TypeError, "max_size is a tuple", "two ints (Hmax, Wmax)", max_size=(8, 8, 8)),
    wrong("max_size-empty", TypeError, "max_size is a list", "two ints (Hmax, Wmax)", max_size=[]),
    wrong("max_size-bool", TypeError, "max_size is True", "two ints (Hmax, Wmax)", max_size=True),
    wrong("max_size-H-zero", ValueError, "max_size[0] is 0", "at least 1", max_size=(0, 8)),
    wrong("max_size-W-negative", ValueError, "max_size[1] is -1", "at least 1", max_size=(8, -1)),
    wrong("max_size-H-float", TypeError, "max_size[0] is 8.0", "an int", max_size=(8.0, 8)),
    wrong("max_size-W-none", TypeError, "max_size[1] is None", "an int", max_size=(8, None)),
]


def heads(name: str) -> list:
    return [
        *sizes(name, "num_heads"),
        wrong("no-divisor", ValueError, f"{name} is 16", "a multiple of num_heads = 3", num_heads=3),
        wrong("over", ValueError, f"{name} is 16", "a multiple of num_heads = 32", num_heads=32),
        wrong("D-257", ValueError, f"{name} is 2056 with num_heads = 8, so D = 257", "D from 1 to 256",
              **{name: 2056, "num_heads": 8}),
    ]  # fmt: skip


def groups(*names: str) -> list:
    return [wrong(f"{name}-no-multiple", ValueError, f"{name} is 18", "a multiple of groups = 4", **{name: 18}) for name in names]


_T5, _BUCKETS = {"kind": "t5"}, "a multiple of 4 and more than a quarter of it"
T5 = [wrong(row.name, row.error, row.given, row.allowed, **_T5, **row.change) for row in sizes("num_buckets", "max_distance")]
T5 += [
    wrong(f"t5-{label}", ValueError, f"num_buckets is {buckets} and max_distance {distance}", _BUCKETS,
          **_T5, num_buckets=buckets, max_distance=distance)
    for label, buckets, distance in (("two", 2, 128), ("odd", 33, 128), ("six", 6, 128), ("short", 32, 8), ("shorter", 32, 1))
]  # fmt: skip

CONV = [*sizes("in_channels", "out_channels"), *no_bool("bias"), *BACKEND]

# Module: its valid arguments, the rows.
TABLES = {
    nn.TemporalAttention: ({"dim": 16, "num_heads": 2}, [*heads("dim"), *sizes("max_frames"), *BACKEND]),
    nn.SpatialAttention: ({"dim": 16, "num_heads": 2}, [*heads("dim"), *MAX_SIZE, *BACKEND]),
    nn.FactorizedAttention: ({"dim": 16, "num_heads": 2}, [*heads("dim"), *sizes("max_frames"), *MAX_SIZE, *BACKEND]),
    nn.SpatialConv: ({"in_channels": 3, "out_channels": 4}, CONV),
    nn.TemporalConv: ({"in_channels": 3, "out_channels": 4}, CONV),
    nn.Pseudo3DConv: ({"in_channels": 3, "out_channels": 4}, CONV),
    nn.NormActConv: (
        {"in_channels": 8, "out_channels": 3, "groups": 4},
        [*sizes("in_channels", "out_channels", "groups"), *groups("in_channels"), *KERNEL, *EPS, *SCOPE,
         *choices("act", "one of None, 'silu'", "relu", "SiLU", True, 0), *BACKEND],
    ),
    nn.ResnetBlock3D: (
        {"in_channels": 8, "out_channels": 12, "temb_channels": 5, "groups": 4},
        [*sizes("in_channels", "out_channels", "temb_channels", "groups", none=("out_channels", "temb_channels")),
         *groups("in_channels", "out_channels"), *KERNEL, *EPS, *SCOPE, *BACKEND],
    ),
    nn.Pseudo3DBlock: (
        {"in_channels": 3, "out_channels": 16, "num_heads": 2},
        [*sizes("in_channels"), *heads("out_channels"), *BACKEND,
         wrong("out_channels-no-multiple", ValueError, "out_channels is 12", "a multiple of groups = 8", out_channels=12)],
    ),
    nn.FeedForward: ({"dim": 4}, [*sizes("dim", "dim_out", "mult", none=("dim_out",)), *no_bool("bias"), *BACKEND]),
    nn.RelativePositionBias: (
        {"num_heads": 2},
        [*sizes("num_heads", "max_frames"), *choices("kind", "one of 'dense', 'offset', 't5'", "rotary", "T5", None, 2), *T5],
    ),
}  # fmt: skip
ROWS = [pytest.param(module, row, id=f"{module.__name__}-{row}") for module, (_, rows) in TABLES.items() for row in rows]


@pytest.mark.parametrize("module", TABLES)
def test_valid(module):
    arguments, rows = TABLES[module]
    assert_valid(module, arguments)
    names = [row.name for row in rows]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("module, row", ROWS)
def test_constructor(module, row):
    assert_refused(module.__name__, row, module, TABLES[module][0])
