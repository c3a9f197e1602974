"""Tables of wrong calls: what each must raise, and that nothing ran before it did.

Every refusal is one line, "operator: what was given; expected what is allowed". A row names the argument and what was given in
full, and a fragment of what is allowed.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vdiff_kernels import Norm

FLOATING = "float32, float64, float16 or bfloat16"
NOT_FLOATING = (torch.int64, torch.uint8, torch.bool, torch.complex64)
MIXED = (torch.int64, torch.bool, torch.complex64, torch.float64, torch.bfloat16)  # with float32
NOT_TENSORS = {"list": [1.0, 2.0], "number": 3.0, "text": "x"}


@dataclass(frozen=True)
class Wrong:
    """One wrong call: a valid one with `change` in it."""

    name: str  # Unique in its table.
    error: type  # Exactly.
    given: str  # All that stands between "operator: " and "; expected ".
    allowed: str  # Part of what stands after it.
    change: dict
    who: str | None = None  # The operator named, where it is not the one called: one that a module calls.

    def by(self, who: str) -> "Wrong":
        return replace(self, who=who)

    def __str__(self) -> str:
        return self.name


def wrong(name: str, error: type, given: str, allowed: str, /, **change) -> Wrong:
    return Wrong(name, error, given, allowed, change)


def table(*rows: Wrong) -> list[Wrong]:
    names = [row.name for row in rows]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"rows of the same name: {twice}"
    return list(rows)


# ---------------------------------------------------------------------------------------------------------------- values
def ones(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> torch.Tensor:
    return torch.ones(shape, dtype=dtype, device=device)


def grown(shape: tuple[int, ...], letters: str):
    """(letter, shape with that dimension one larger) for every dimension."""
    for place, letter in enumerate(letters):
        yield letter, (*shape[:place], shape[place] + 1, *shape[place + 1 :])


# ------------------------------------------------------------------------------------------------ rows of one argument
def no_tensor(*names: str, none: bool = False, put=lambda name, value: {name: value}) -> list[Wrong]:
    """A list, a number, a text and, with none, None in place of each tensor. put: the change that gives `name` a value."""
    values = NOT_TENSORS | ({"none": None} if none else {})
    return [
        wrong(
            f"{name}-{kind}", TypeError,
            f"{name} is {'a list' if kind == 'list' else repr(value)}", "a torch.Tensor", **put(name, value),
        )
        for name in names for kind, value in values.items()
    ]  # fmt: skip


def of_dtypes(name: str, shape: tuple, dtypes, allowed: str, put=lambda name, value: {name: value}) -> list[Wrong]:
    return [
        wrong(
            f"{name}-{str(dtype).removeprefix('torch.')}", TypeError,
            f"{name} has dtype {dtype}", allowed, **put(name, ones(*shape).to(dtype)),
        )
        for dtype in dtypes
    ]  # fmt: skip


def of_shapes(name: str, allowed: str, shapes: dict, put=lambda name, value: {name: value}) -> list[Wrong]:
    return [
        wrong(f"{name}-{label}", ValueError, f"{name} has shape {shape}", allowed, **put(name, ones(*shape)))
        for label, shape in shapes.items()
    ]


def elsewhere(name: str, shape: tuple, like: str, put=lambda name, value: {name: value}, dtype=torch.float32) -> Wrong:
    value = ones(*shape, dtype=dtype, device="meta")
    return wrong(f"{name}-device", ValueError, f"{name} is on meta", f"cpu, as {like}", **put(name, value))


def sparse(name: str, shape: tuple) -> Wrong:
    value = ones(*shape).to_sparse()
    return wrong(f"{name}-sparse", TypeError, f"{name} has layout torch.sparse_coo", "a dense torch.Tensor", **{name: value})


def backends(on_meta: dict) -> list[Wrong]:
    """on_meta: the change that moves the call to meta tensors."""
    known = "one of 'reference', 'composed', 'cpu', 'cuda', 'triton'"

    def cannot(name, needed, device):
        return f"backend is {name!r}, which cannot serve this call: it runs on {needed} tensors and these are on {device}"

    return [
        wrong("backend-unknown", ValueError, "backend is 'opencl'", known, backend="opencl"),
        wrong("backend-case", ValueError, "backend is 'CPU'", known, backend="CPU"),
        wrong("backend-empty", ValueError, "backend is ''", known, backend=""),
        wrong("backend-number", ValueError, "backend is 0", known, backend=0),
        wrong("backend-list", ValueError, "backend is a list", known, backend=["cpu"]),
        wrong("backend-cuda-on-cpu", ValueError, cannot("cuda", "cuda", "cpu"), "one of 'reference'", backend="cuda"),
        wrong("backend-triton-on-cpu", ValueError, cannot("triton", "cuda", "cpu"), "one of 'reference'", backend="triton"),
        wrong("backend-cpu-on-meta", ValueError, cannot("cpu", "cpu", "meta"), "one of 'reference'", backend="cpu", **on_meta),
    ]


def norms(B: int, C: int, *, required: bool = False) -> list[Wrong]:
    """Wrong values of `norm` for a float32 x of B clips and C channels, C a multiple of 4."""

    def group(name, value):  # in field `name` of an otherwise valid norm
        return {"norm": Norm("group", **{"groups": 2, name.removeprefix("norm."): value})}

    a_norm = "a vdiff_kernels.Norm"
    rows = [
        wrong("norm-text", TypeError, "norm is 'group'", a_norm, norm="group"),
        wrong("norm-module", TypeError, "norm is a GroupNorm", a_norm, norm=nn.GroupNorm(2, C)),
        wrong("norm-class", TypeError, "norm is a type", a_norm, norm=Norm),
        wrong("norm-tensor", TypeError, "norm is a Tensor", a_norm, norm=ones(C)),
        wrong("norm-dict", TypeError, "norm is a dict", a_norm, norm={"kind": "layer"}),
    ]
    if required:
        rows.append(wrong("norm-none", TypeError, "norm is None", a_norm, norm=None))
    kinds, scopes = "one of 'group', 'layer', 'rms'", "one of 'frame', 'clip'"
    for label, kind, given in (
        ("unknown", "batch", "'batch'"), ("case", "Group", "'Group'"), ("none", None, "None"), ("number", 2, "2"),
        ("tensor", ones(2, 2), "a Tensor"),
    ):  # fmt: skip
        rows.append(wrong(f"norm-kind-{label}", ValueError, f"norm.kind is {given}", kinds, norm=Norm(kind, groups=2)))
    for label, scope, given in (("unknown", "video", "'video'"), ("none", None, "None"), ("tensor", ones(2, 2), "a Tensor")):
        rows.append(wrong(f"norm-scope-{label}", ValueError, f"norm.scope is {given}", scopes, **group("scope", scope)))
    for label, groups, error, given, allowed in (
        ("missing", None, TypeError, "None", "an int"),
        ("float", 2.0, TypeError, "2.0", "an int"),
        ("bool", True, TypeError, "True", "an int"),
        ("text", "2", TypeError, "'2'", "an int"),
        ("tensor", ones(2, 2), TypeError, "a Tensor", "an int"),
        ("zero", 0, ValueError, "0", "at least 1"),
        ("negative", -2, ValueError, "-2", "at least 1"),
        ("no-divisor", 3, ValueError, "3", f"a divisor of C = {C}"),
        ("over-C", 2 * C, ValueError, f"{2 * C}", f"a divisor of C = {C}"),
    ):
        rows.append(wrong(f"norm-groups-{label}", error, f"norm.groups is {given}", allowed, **group("groups", groups)))
    for kind in ("layer", "rms"):
        given, allowed = "norm.groups is 2", f"None, as norm.kind is {kind!r}"
        rows.append(wrong(f"norm-groups-for-{kind}", ValueError, given, allowed, norm=Norm(kind, groups=2)))
    for label, eps, error, given, allowed in (
        ("negative", -1e-5, ValueError, "-1e-05", "at least 0"),
        ("nan", float("nan"), ValueError, "nan", "at least 0"),
        ("none", None, TypeError, "None", "a number"),
        ("text", "1e-5", TypeError, "'1e-5'", "a number"),
        ("bool", True, TypeError, "True", "a number"),
        ("tensor", ones(2, 2), TypeError, "a Tensor", "a number"),
    ):
        rows.append(wrong(f"norm-eps-{label}", error, f"norm.eps is {given}", allowed, **group("eps", eps)))
    wrong_dtypes = (torch.int64, torch.complex64, torch.float64, torch.float16)
    vector = {"size": (C + 1,), "row": (1, C), "column": (C, 1), "scalar": ()}
    matrix = {"B": (B + 1, C), "C": (B, C + 1), "vector": (C,), "frames": (B, 3, C), "transposed": (C, B)}
    for name, letters, shape, shapes in (
        ("norm.weight", f"(C,) = ({C},)", (C,), vector),
        ("norm.bias", f"(C,) = ({C},)", (C,), vector),
        ("norm.scale", f"(B, C) = ({B}, {C})", (B, C), matrix),
        ("norm.shift", f"(B, C) = ({B}, {C})", (B, C), matrix),
    ):
        rows += no_tensor(name, put=group)
        rows += of_dtypes(name, shape, wrong_dtypes, "torch.float32", put=group)
        rows += of_shapes(name, letters, shapes, put=group)
        rows.append(elsewhere(name, shape, "x", put=group))
    return rows


# --------------------------------------------------------------------------------------------------------------- checks
class NothingRuns(TorchDispatchMode):
    """Any operator of PyTorch or of this package, fused or eager, is an AssertionError; views are free."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view:
            raise AssertionError(f"{func} ran before the call was refused")
        return func(*args, **(kwargs or {}))


def assert_refused(who: str, row: Wrong, function, arguments: dict) -> None:
    """function(**arguments), with the row's change, raises what the row says before anything runs."""
    with pytest.raises((TypeError, ValueError)) as raised, NothingRuns():
        function(**(arguments | row.change))
    message = str(raised.value)
    given, _, allowed = message.partition("; expected ")
    assert raised.type is row.error, f"{raised.type.__name__}: {message}"
    assert given == f"{row.who or who}: {row.given}", message
    assert row.allowed in allowed, message
    assert "\n" not in message, message


def assert_operator_refuses(operator, row: Wrong, arguments: dict) -> None:
    """As `assert_refused`, whatever the backend: the arguments are checked before it is looked at."""
    chosen = ({},) if "backend" in row.change else ({}, {"backend": "reference"}, {"backend": "nowhere"})
    for backend in chosen:
        assert_refused(operator.__name__, row, operator, arguments | backend)


def assert_valid(function, arguments: dict):
    """The call that the rows change is a valid one, and `NothingRuns` sees it run. Returns its result."""
    out = function(**arguments)
    with pytest.raises(AssertionError, match="ran before"), NothingRuns():
        function(**arguments)
    return out
