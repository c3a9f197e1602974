"""Each rounding mode and special value, against exact rational arithmetic and the sentences of the PTX ISA (9.0, chapter 9.7)."""

import itertools
import math
import operator
import random
from fractions import Fraction

import numpy as np
import pytest
import torch

from .exact import BF16, EVERY_HALF, F16, F32, FORMATS, MODES, Format, apply, bits_of, hostile, same

# ---- cvt between floating formats


@pytest.mark.parametrize("source, target", [("f16", "f32"), ("bf16", "f32"), ("f16", "f64"), ("bf16", "f64")])
def test_every_half_widens_exactly(source, target):
    found = apply(f"cvt.{target}.{source}", EVERY_HALF, out=FORMATS[target].width)
    values = [FORMATS[source].value(bits) for bits in EVERY_HALF]
    number = np.array([not math.isnan(value) for value in values])
    same(found[number], [FORMATS[target].round(value) for value in values if value == value], EVERY_HALF[number])
    assert all(math.isnan(FORMATS[target].value(bits)) for bits in found[~number])


NARROWINGS = [("f64", "f32"), ("f64", "f16"), ("f64", "bf16"), ("f32", "f16"), ("f32", "bf16"), ("f32", "tf32")]
NARROW_MODES = {"f32": MODES, "f16": MODES, "bf16": MODES, "tf32": ("rna", "rn", "rz")}


@pytest.mark.parametrize("source, target, mode", [(*pair, mode) for pair in NARROWINGS for mode in NARROW_MODES[pair[1]]])
@pytest.mark.parametrize("modifier", ["", ".satfinite", ".relu", ".ftz"])
def test_narrowing_rounds_once(source, target, mode, modifier):
    before, after = FORMATS[source], FORMATS[target]
    inputs = hostile(before, after)
    found = apply(f"cvt.{mode}{modifier}.{target}.{source}", inputs, out=after.width)
    flush = modifier == ".ftz"

    def expected(bits):
        value = before.value(before.flushed(bits) if flush and before is F32 else bits)
        # 9.7.9.21 "clamps the result to 0 if negative. NaN results are converted to canonical NaN"
        if "relu" in modifier and value < 0:
            return 0
        result = after.round(value, mode, finite="satfinite" in modifier)
        return after.flushed(result) if flush and after is F32 else result

    same(found, [expected(int(bits)) for bits in inputs], inputs)


@pytest.mark.parametrize("target", ["f16", "bf16"])
@pytest.mark.parametrize("mode", ["rn", "rz"])
@pytest.mark.parametrize("modifier", ["", ".relu", ".satfinite"])
def test_a_pair_is_packed_high_then_low(target, mode, modifier):
    inputs = hostile(F32, FORMATS[target], seed=1)
    other = inputs[::-1].copy()
    pairs = apply(f"cvt.{mode}{modifier}.{target}x2.f32", inputs, other)
    single = [apply(f"cvt.{mode}{modifier}.{target}.f32", one, out=16) for one in (inputs, other)]
    same(pairs, [int(high) << 16 | int(low) for high, low in zip(*single)], inputs, other)


@pytest.mark.parametrize("target, dtype", [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_nearest_is_that_of_torch(target, dtype):
    inputs = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    numbers = inputs[~np.isnan(inputs.view(np.float32))]
    torch_bits = torch.from_numpy(numbers.view(np.float32)).to(dtype).view(torch.int16).numpy().view(np.uint16)
    same(apply(f"cvt.rn.{target}.f32", numbers, out=16), torch_bits, numbers)


@pytest.mark.parametrize("target", ["f16", "f32", "f64"])
def test_saturation_is_to_0_and_1(target):
    # 9.7.9.21 ".sat limits the result to the range [0.0, 1.0]. NaN results are flushed to positive zero."
    inputs = hostile(F32, FORMATS[target])
    values = [F32.value(bits) for bits in inputs]
    kept = np.array([value != 0 for value in values])  # the sign of a zero is not said
    rounding = "" if target != "f16" else ".rn"
    found = apply(f"cvt{rounding}.sat.{target}.f32", inputs, out=FORMATS[target].width)
    clamped = [0.0 if math.isnan(value) else min(1.0, max(0.0, value)) for value in values if value != 0]
    same(found[kept], [FORMATS[target].round(value) for value in clamped], inputs[kept])


@pytest.mark.parametrize("name", ["f16", "f32", "f64"])
@pytest.mark.parametrize("mode, integral", [("rni", round), ("rzi", math.trunc), ("rmi", math.floor), ("rpi", math.ceil)])
def test_to_an_integral_value(name, mode, integral):
    format = FORMATS[name]
    inputs = np.array([bits for bits in hostile(format, BF16 if name == "f16" else F16) if not math.isnan(format.value(bits))])
    found = apply(f"cvt.{mode}.{name}.{name}", inputs, out=format.width)
    values = [format.value(bits) for bits in inputs]
    same(found, [format.round(v if math.isinf(v) else math.copysign(integral(Fraction(v)), v)) for v in values], inputs)


# ---- cvt with integers

INTEGERS = {f"{kind}{width}": (width, kind == "s") for width in (8, 16, 32, 64) for kind in "us"}


def limits(name: str) -> tuple[int, int]:
    width, signed = INTEGERS[name]
    return (-(1 << width - 1), (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)


@pytest.mark.parametrize("source", ["f16", "f32", "f64"])
@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("mode, integral", [("rni", round), ("rzi", math.trunc), ("rmi", math.floor), ("rpi", math.ceil)])
def test_float_to_integer_clamps(source, target, mode, integral):
    format, (low, high) = FORMATS[source], limits(target)
    near = [edge + step for edge in (low, high) for step in (-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2)]
    small = [n / 4 for n in range(-13, 14)]
    inputs = np.concatenate([bits_of([*near, *small], format), hostile(format, BF16, count=200)])
    width = max(16, INTEGERS[target][0])

    def expected(bits):
        value = format.value(bits)
        if math.isnan(value):
            # 9.7.9.21 "Zero if source is not .f64 and destination is not .s64, .u64. Otherwise 1 << (BitWidth(dst) - 1)"
            wide = source == "f64" or INTEGERS[target][0] == 64
            least = 1 << INTEGERS[target][0] - 1
            return (low if low < 0 else least) if wide else 0
        # 9.7.9.21 "the result is clamped to the destination range by default"
        return high if value == math.inf else low if value == -math.inf else min(high, max(low, integral(Fraction(value))))

    same(apply(f"cvt.{mode}.{target}.{source}", inputs, out=width), map(expected, inputs), inputs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["f16", "bf16", "f32", "f64"])
@pytest.mark.parametrize("source", INTEGERS)
def test_integer_to_float_rounds_once(source, target, mode):
    (width, _), (low, high) = INTEGERS[source], limits(source)
    rng, mantissa = random.Random(0), FORMATS[target].mantissa
    values = [low, low + 1, high, high - 1, 0, 1, *(rng.randint(low, high) >> rng.randrange(width) for _ in range(150))]
    ties = [(2 * rng.randrange(1 << mantissa, 2 << mantissa) + 1 << up) + step for up in range(0, 60, 3) for step in (-1, 0, 1)]
    values += [65504, 65519, 65520, 65535, 65536, *ties]
    values = [value for value in values if low <= value <= high]
    register = max(16, width)
    inputs = np.array([value & (1 << register) - 1 for value in values], dtype=f"u{register // 8}")
    found = apply(f"cvt.{mode}.{target}.{source}", inputs, out=FORMATS[target].width)
    same(found, [FORMATS[target].round(Fraction(value), mode) for value in values], inputs)


@pytest.mark.parametrize("saturate", ["", ".sat"])
@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("source", INTEGERS)
def test_integer_to_integer(source, target, saturate):
    (width, signed), (low, high) = INTEGERS[source], limits(target)
    rng = random.Random(0)
    register = max(16, width)
    inputs = np.array([rng.getrandbits(register) >> rng.randrange(register) for _ in range(96)], dtype=f"u{register // 8}")
    inputs = np.concatenate([inputs, ~inputs])

    def expected(bits):
        value = int(bits) & (1 << width) - 1  # "The lower n bits corresponding to the instruction-type width are used"
        value -= (value >> width - 1) << width if signed else 0
        if saturate:
            return min(high, max(low, value))
        value &= (1 << INTEGERS[target][0]) - 1
        return value - (1 << INTEGERS[target][0]) if low < 0 and value > high else value

    # "sign-extended to the destination register width for signed integers, and zero-extended [..] for unsigned": 32 bits at least
    out = max(32, INTEGERS[target][0])
    same(apply(f"cvt{saturate}.{target}.{source}", inputs, out=out), map(expected, inputs), inputs)


# ---- arithmetic, rounded once


def negative(value: float) -> bool:
    return math.copysign(1, value) < 0


def product_sum(mode: str, a: float, b: float, c: float | None = None) -> tuple[Fraction | float, bool]:
    """a * b {+ c}: exactly, or as IEEE 754 has it of infinities and NaN; and whether it is -0 if it is zero."""
    if not all(map(math.isfinite, (a, b, c or 0.0))):
        return (a * b if c is None else a * b + c), False
    exact = Fraction(a) * Fraction(b) + Fraction(c or 0.0)
    signs = {negative(a) != negative(b)} | ({negative(c)} if c is not None else set())
    return exact, signs == {True} or (len(signs) == 2 and mode == "rm")


def quotient(mode: str, a: float, b: float) -> tuple[Fraction | float, bool]:
    sign = -1.0 if negative(a) != negative(b) else 1.0
    if math.isnan(a) or math.isnan(b) or (a == 0 and b == 0) or (math.isinf(a) and math.isinf(b)):
        return math.nan, False
    if b == 0 or math.isinf(a):
        return sign * math.inf, False
    return (0.0 * sign if math.isinf(b) else Fraction(a) / Fraction(b)), sign < 0


def root(mode: str, a: float) -> tuple[Fraction | float, bool]:
    if not 0 < a < math.inf:
        return (math.nan if a < 0 else a), False
    scaled = Fraction(a) * 4**700
    whole = math.isqrt(int(scaled))
    return Fraction(2 * whole + (whole * whole != scaled), 2 << 700), False  # no root is a tie: any number between will do


OPERATIONS = {
    "add": (2, lambda mode, a, b: product_sum(mode, a, 1.0, b)),
    "sub": (2, lambda mode, a, b: product_sum(mode, a, 1.0, -b)),
    "mul": (2, product_sum),
    "fma": (3, product_sum),
    "div": (2, quotient),
    "rcp": (1, lambda mode, a: quotient(mode, 1.0, a)),
    "sqrt": (1, root),
}


def operands(format: Format, number: int) -> list[np.ndarray]:
    """All tuples of the edges, and random ones of which the last is near to cancelling the others."""
    rng, top = random.Random(number), 1 << format.width - 1
    edges = [0, 1, (1 << format.mantissa) - 1, 1 << format.mantissa, format.infinity - 1, format.infinity, format.nan]
    edges = [bits | sign for bits in (*edges, format.round(1.0), format.round(1.5)) for sign in (0, top)]
    tuples = list(itertools.product(edges, repeat=number)) if number < 3 else [rng.choices(edges, k=3) for _ in range(400)]
    for _ in range(300):
        one = [rng.randrange(2 * top) for _ in range(number)]
        two = [format.round(rng.choice((-1, 1)) * math.ldexp(1 + rng.random(), rng.randint(-9, 3))) for _ in range(number)]
        near = math.prod(format.value(bits) for bits in two[:-1])
        two[-1] = format.round(-near * (1 + math.ldexp(rng.random(), -rng.randrange(60)))) if rng.random() < 0.6 else two[-1]
        low = [format.round(format.value(bits) * 2.0 ** -(format.bias // 2)) for bits in two]  # to denormals
        tuples += [one, two, low]
    if number == 3:  # a product that is a tie, and what is next to nothing beside it
        a, b, least = format.round(1.0) | 1, format.round(1.5), 1 << format.mantissa
        tuples += [[a | sign, b, c | other] for sign in (0, top) for other in (0, top) for c in (0, 1, least)]
    return [np.array(column, dtype=f"u{format.width // 8}") for column in zip(*tuples)]


def expected_of(name: str, format: Format, mode: str, modifier: str, columns: list[np.ndarray]) -> list[int]:
    results = []
    for row in zip(*columns):
        row = [format.flushed(int(bits)) if "ftz" in modifier else int(bits) for bits in row]
        exact, zero_is_negative = OPERATIONS[name][1](mode, *map(format.value, row))
        if "sat" in modifier:  # 9.7.3.3 "clamps the result to [0.0, 1.0]. NaN results are flushed to +0.0f."
            exact = 0.0 if exact != exact else min(max(exact, 0.0), 1.0)
        if "relu" in modifier and exact < 0:  # 9.7.4.4 "clamps the result to 0 if negative"
            exact, zero_is_negative = 0.0, False
        bits = format.round(exact, mode, zero_is_negative)
        results.append(format.flushed(bits) if "ftz" in modifier else bits)
    return results


def check(name: str, type_: str, mode: str, modifier: str) -> None:
    format = FORMATS[type_.removesuffix("x2")]
    columns = operands(format, OPERATIONS[name][0])
    if type_.endswith("x2"):
        pairs = [column.astype(np.uint32) << 16 | np.roll(column, 7) for column in columns]
        both = apply(f"{name}.{mode}{modifier}.{type_}", *pairs)
        found = np.concatenate([both >> 16, np.roll(both & 0xFFFF, -7)]).astype(np.uint16)
        columns = [np.tile(column, 2) for column in columns]
    else:
        found = apply(f"{name}.{mode}{modifier}.{type_}", *columns, out=format.width)
    expected = np.array(expected_of(name, format, mode, modifier, columns), dtype=found.dtype)
    if "sat" in modifier or "relu" in modifier:  # the sign of a zero is not said
        found, expected = (np.where(bits == np.array(1 << format.width - 1, bits.dtype), 0, bits) for bits in (found, expected))
    kept = np.array([type_ != "f64" or not math.isnan(format.value(bits)) for bits in expected])  # a double's payload is not said
    same(found[kept], expected[kept], *(column[kept] for column in columns))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_f32_arithmetic_rounds_once(name, mode):
    for modifier in ["", ".ftz", *([".sat", ".ftz.sat"] if name in ("add", "sub", "mul", "fma") else [])]:
        check(name, "f32", mode, modifier)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["add", "mul", "div", "rcp", "sqrt"])
def test_f64_arithmetic_rounds_once(name, mode):
    check(name, "f64", mode, "")


@pytest.mark.parametrize("type_", ["f16", "f16x2", "bf16", "bf16x2"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "fma"])
def test_half_arithmetic_rounds_once(name, type_):
    of_f16 = [".ftz", ".sat", ".ftz.sat"] if type_.startswith("f16") else []
    for modifier in ["", *of_f16, *([".relu"] if name == "fma" else [])]:
        check(name, type_, "rn", modifier)


MIN_MAX = ["", ".ftz", ".NaN", ".ftz.NaN", ".xorsign.abs", ".NaN.xorsign.abs"]
MIN_MAX_TYPES = [
    (type_, modifier) for type_ in ("f16", "bf16", "f32") for modifier in MIN_MAX if "ftz" not in modifier or type_ != "bf16"
]


@pytest.mark.parametrize("type_, modifier", MIN_MAX_TYPES)
@pytest.mark.parametrize("name", ["min", "max"])
def test_min_max(name, type_, modifier):
    format = FORMATS[type_]
    first, second = operands(format, 2)

    def expected(a, b):  # 9.7.3.11 and 9.7.4.7
        sign = int(a ^ b) >> format.width - 1
        a, b = (format.value(format.flushed(int(bits)) if "ftz" in modifier else bits) for bits in (a, b))
        a, b = (abs(a), abs(b)) if "abs" in modifier else (a, b)
        if math.isnan(a) or math.isnan(b):
            value = math.nan if "NaN" in modifier else b if math.isnan(a) else a
        else:  # "+0.0 > -0.0"
            value = (min if name == "min" else max)((a, b), key=lambda value: (value, not negative(value)))
        return format.round(-value if "xorsign" in modifier and sign else value)

    same(apply(f"{name}{modifier}.{type_}", first, second, out=format.width), map(expected, first, second), first, second)


@pytest.mark.parametrize("type_", ["f16", "bf16"])
def test_signs_of_every_half(type_):
    format = FORMATS[type_]
    inputs = np.array([bits for bits in EVERY_HALF if not math.isnan(format.value(bits))])
    for modifier in ["", ".ftz"] if type_ == "f16" else [""]:
        kept = np.array([format.flushed(int(bits)) if modifier else bits for bits in inputs], dtype=np.uint16)
        same(apply(f"neg{modifier}.{type_}", inputs, out=16), kept ^ 0x8000, inputs)
        same(apply(f"abs{modifier}.{type_}", inputs, out=16), kept & 0x7FFF, inputs)


COMPARISONS = {name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}


@pytest.mark.parametrize("type_", ["f16", "f32", "f64"])
def test_comparisons_with_nan(type_):
    format = FORMATS[type_]
    columns = operands(format, 2)
    values = [[format.value(bits) for bits in column] for column in columns]
    unordered = [math.isnan(a) or math.isnan(b) for a, b in zip(*values)]
    cases = {"num": [not u for u in unordered], "nan": unordered}
    for name, holds in COMPARISONS.items():
        cases[name] = [not u and holds(a, b) for a, b, u in zip(*values, unordered)]
        cases[name + "u"] = [u or holds(a, b) for a, b, u in zip(*values, unordered)]
    for name, expected in cases.items():
        same(apply(f"set.{name}.u32.{type_}", *columns), [-int(holds) for holds in expected], *columns)
        found = apply(f"setp.{name}.{type_} %q, {{0}}, {{1}}; selp.u32 %d, 1, 0, %q", *columns)
        same(found, expected, *columns)


def test_kinds_of_numbers():
    (inputs,) = operands(F32, 1)
    values = inputs.view(np.float32)
    subnormal = (values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)
    kinds = {"finite": np.isfinite(values), "infinite": np.isinf(values), "number": ~np.isnan(values), "subnormal": subnormal}
    kinds |= {"notanumber": np.isnan(values), "normal": np.isfinite(values) & ~subnormal}
    for name, expected in kinds.items():  # 9.7.3.1 "positive and negative zero are considered normal numbers"
        same(apply(f"testp.{name}.f32 %q, {{0}}; selp.u32 %d, 1, 0, %q", inputs), expected, inputs)
