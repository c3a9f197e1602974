"""Integer instructions at and beyond their limits, against the words and the pseudo-code of the PTX ISA (9.0, chapter 9.7)."""

import operator
import random

import numpy as np
import pytest

from tests import ptxsim

from .exact import apply, same

TYPES = {f"{kind}{width}": (width, kind == "s") for width in (16, 32, 64) for kind in "us"}


def numbers(width: int, count: int = 160, seed: int = 0) -> np.ndarray:
    rng, top = random.Random(seed), 1 << width - 1
    edges = [0, 1, 2, 3, top - 2, top - 1, top, top + 1, 2 * top - 2, 2 * top - 1]
    values = edges + [rng.getrandbits(width) >> rng.randrange(width) for _ in range(count)]
    rng.shuffle(values)
    return np.array(values, dtype=f"u{width // 8}")


def columns(width: int, number: int) -> list[np.ndarray]:
    """Random tuples, after all pairs of edges."""
    edges = np.array([0, 1, 2, (1 << width - 1) - 1, 1 << width - 1, (1 << width) - 2, (1 << width) - 1], dtype=f"u{width // 8}")
    pairs = [np.repeat(edges, 7), np.tile(edges, 7), np.roll(np.tile(edges, 7), 3)]
    return [np.concatenate([pairs[place % 3], numbers(width, seed=place)]) for place in range(number)]


def signed(value: int, width: int, is_signed: bool = True) -> int:
    value = int(value) & (1 << width) - 1
    return value - (value >> width - 1 << width) if is_signed else value


def quotient(a: int, b: int) -> int:  # towards zero
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


ARITHMETIC = {
    "add": operator.add,
    "sub": operator.sub,
    "mul.lo": operator.mul,
    "min": min,
    "max": max,
    "sad": lambda a, b, c: c + abs(a - b),
    "mad.lo": lambda a, b, c: a * b + c,
    "div": lambda a, b: quotient(a, b) if b else -1,  # 9.7.1.8 leaves division by zero to the machine, which gives all ones
    "rem": lambda a, b: a - b * quotient(a, b) if b else a,
}


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_wraps(name, type_):
    (width, is_signed), function = TYPES[type_], ARITHMETIC[name]
    sources = columns(width, function.__code__.co_argcount if hasattr(function, "__code__") else 2)
    expected = [function(*(signed(value, width, is_signed) for value in row)) for row in zip(*sources)]
    same(apply(f"{name}.{type_}", *sources, out=width), expected, *sources)


@pytest.mark.parametrize("type_", TYPES)
def test_high_and_wide_products(type_):
    width, is_signed = TYPES[type_]
    a, b, c = columns(width, 3)
    products = [signed(x, width, is_signed) * signed(y, width, is_signed) for x, y in zip(a, b)]
    same(apply(f"mul.hi.{type_}", a, b, out=width), [product >> width for product in products], a, b)
    added = [(product >> width) + int(z) for product, z in zip(products, c)]
    same(apply(f"mad.hi.{type_}", a, b, c, out=width), added, a, b, c)
    if width < 64:
        same(apply(f"mul.wide.{type_}", a, b, out=2 * width), products, a, b)
        wide = np.resize(numbers(2 * width), len(a))
        added = [product + int(z) for product, z in zip(products, wide)]
        same(apply(f"mad.wide.{type_}", a, b, wide, out=2 * width), added, a, b, wide)


@pytest.mark.parametrize("width", [16, 32, 64])
def test_signs(width):
    (a,) = columns(width, 1)
    same(apply(f"neg.s{width}", a, out=width), [-int(x) for x in a], a)
    same(apply(f"abs.s{width}", a, out=width), [abs(signed(x, width)) for x in a], a)
    same(apply(f"not.b{width}", a, out=width), [~int(x) for x in a], a)
    same(apply(f"cnot.b{width}", a, out=width), [x == 0 for x in a], a)


@pytest.mark.parametrize("name, function", [("add", operator.add), ("sub", operator.sub)])
def test_saturating_sums(name, function):
    a, b = columns(32, 2)
    expected = [min(2**31 - 1, max(-(2**31), function(signed(x, 32), signed(y, 32)))) for x, y in zip(a, b)]
    same(apply(f"{name}.sat.s32", a, b), expected, a, b)


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("kind", "us")
def test_carries(width, kind):
    a, b, c, d = columns(width, 4)
    both = [(int(x) | int(y) << width, int(z) | int(w) << width) for x, y, z, w in zip(a, b, c, d)]
    low = "%r3" if width == 32 else "%rd0"
    type_ = f"{kind}{width}"
    for name, function in [("add", operator.add), ("sub", operator.sub)]:
        found = apply(f"{name}.cc.{type_} {low}, {{0}}, {{2}}; {name}c.{type_} %d, {{1}}, {{3}}", a, b, c, d, out=width)
        same(found, [function(x, y) >> width for x, y in both], a, b, c, d)
    products = [signed(x, width, kind == "s") * signed(y, width, kind == "s") for x, y in zip(a, b)]
    carries = [(product & (1 << width) - 1) + int(z) >> width for product, z in zip(products, c)]
    found = apply(f"mad.lo.cc.{type_} {low}, {{0}}, {{1}}, {{2}}; madc.hi.{type_} %d, {{0}}, {{1}}, {{3}}", a, b, c, d, out=width)
    same(found, [(product >> width) + carry + int(w) for product, carry, w in zip(products, carries, d)], a, b, c, d)


@pytest.mark.parametrize("width", [16, 32, 64])
def test_shifts_by_the_width_and_more(width):
    # 9.7.8.8 "Shift amounts greater than the register width N are clamped to N."
    amounts = np.array([0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 2**31, 2**32 - 1], dtype=np.uint32)
    values = np.repeat(numbers(width, 40), len(amounts))
    amounts = np.resize(amounts, len(values))
    clamped = np.minimum(amounts, width).astype(int)
    for name, is_signed in (
        (f"shl.b{width}", False),
        (f"shr.u{width}", False),
        (f"shr.s{width}", True),
        (f"shr.b{width}", False),
    ):
        shift = operator.lshift if "shl" in name else operator.rshift
        expected = [shift(signed(value, width, is_signed), int(by)) for value, by in zip(values, clamped)]
        same(apply(name, values, amounts, out=width), expected, values, amounts)


@pytest.mark.parametrize("mode", ["wrap", "clamp"])
def test_funnel_shifts(mode):
    low, high = columns(32, 2)
    amounts = np.resize(np.array([0, 1, 31, 32, 33, 63, 64, 2**32 - 1], dtype=np.uint32), len(low))
    by = [int(n) & 31 if mode == "wrap" else min(int(n), 32) for n in amounts]
    both = [int(y) << 32 | int(x) for x, y in zip(low, high)]
    same(apply(f"shf.l.{mode}.b32", low, high, amounts), [(x << n) >> 32 for x, n in zip(both, by)], low, high, amounts)
    same(apply(f"shf.r.{mode}.b32", low, high, amounts), [x >> n for x, n in zip(both, by)], low, high, amounts)


FIELDS = [0, 1, 2, 7, 8, 30, 31, 32, 33, 62, 63, 64, 65, 254, 255, 256, 257, 2**32 - 1]


def fields(width: int) -> list[np.ndarray]:
    positions = np.array([position for position in FIELDS for _ in FIELDS], dtype=np.uint32)
    lengths = np.resize(np.array(FIELDS, dtype=np.uint32), len(positions))
    return [
        np.resize(numbers(width, seed=1), len(positions)),
        np.resize(numbers(width, seed=2), len(positions)),
        positions,
        lengths,
    ]


@pytest.mark.parametrize("type_", ["u32", "s32", "u64", "s64"])
def test_bit_field_extract(type_):
    width, is_signed = TYPES[type_]
    a, _, positions, lengths = fields(width)

    def extracted(value, position, length):  # the pseudo-code of 9.7.1.19
        position, length, bit = position & 255, length & 255, lambda place: value >> place & 1
        sign = bit(min(position + length - 1, width - 1)) if is_signed and length else 0
        return sum(
            (bit(position + place) if place < length and position + place < width else sign) << place for place in range(width)
        )

    expected = [extracted(*map(int, row)) for row in zip(a, positions, lengths)]
    same(apply(f"bfe.{type_}", a, positions, lengths, out=width), expected, a, positions, lengths)


@pytest.mark.parametrize("width", [32, 64])
def test_bit_field_insert(width):
    sources = fields(width)

    def inserted(a, b, position, length):  # the pseudo-code of 9.7.1.20
        position, length = position & 255, length & 255
        for place in range(min(length, width - position)):
            b = b & ~(1 << position + place) | (a >> place & 1) << position + place
        return b

    same(apply(f"bfi.b{width}", *sources, out=width), [inserted(*map(int, row)) for row in zip(*sources)], *sources)


def test_lop3_of_every_eighth_table():
    a, b, c = columns(32, 3)
    for table in range(3, 256, 8):
        bits = [[(int(x) >> place & 1) << 2 | (int(y) >> place & 1) << 1 | int(z) >> place & 1 for place in range(32)]
                for x, y, z in zip(a[:40], b[:40], c[:40])]  # fmt: skip
        expected = [sum((table >> entry & 1) << place for place, entry in enumerate(row)) for row in bits]
        same(apply("lop3.b32", a[:40], b[:40], c[:40], table), expected, a, b, c)


def test_prmt_chooses_and_extends_bytes():
    a, b, _ = columns(32, 3)
    control = numbers(32, len(a) - 10, seed=9)

    def chosen(a, b, control):
        source, result = (int(b) << 32 | int(a)).to_bytes(8, "little"), 0
        for place in range(4):
            selector = int(control) >> 4 * place & 15
            byte = source[selector & 7]
            result |= ((0xFF if byte & 128 else 0) if selector & 8 else byte) << 8 * place
        return result

    same(apply("prmt.b32", a, b, control), map(chosen, a, b, control), a, b, control)


@pytest.mark.parametrize("opcode", ["prmt.b32.f4e", "prmt.b32.b4e", "prmt.b32.rc8", "mad24.lo.u32", "mul24.lo.u32"])
def test_what_nvcc_does_not_emit_is_refused(opcode):
    with pytest.raises(ptxsim.PtxError):
        apply(opcode, *columns(32, 2 if "mul" in opcode else 3))


@pytest.mark.parametrize("half", ["lo", "hi"])
@pytest.mark.parametrize("of_a", "us")
@pytest.mark.parametrize("of_b", "us")
def test_dp2a(of_a, of_b, half):
    a, b, c = columns(32, 3)
    first = 2 * (half == "hi")

    def dot(a, b, c):
        pairs = [(signed(a >> 16 * k, 16, of_a == "s"), signed(b >> 8 * (first + k), 8, of_b == "s")) for k in range(2)]
        return c + sum(x * y for x, y in pairs)

    same(apply(f"dp2a.{half}.{of_a}32.{of_b}32", a, b, c), [dot(*map(int, row)) for row in zip(a, b, c)], a, b, c)


@pytest.mark.parametrize("of_a", "us")
@pytest.mark.parametrize("of_b", "us")
def test_dp4a(of_a, of_b):
    a, b, c = columns(32, 3)

    def dot(a, b, c):
        pairs = [(signed(a >> 8 * k, 8, of_a == "s"), signed(b >> 8 * k, 8, of_b == "s")) for k in range(4)]
        return c + sum(x * y for x, y in pairs)

    same(apply(f"dp4a.{of_a}32.{of_b}32", a, b, c), [dot(*map(int, row)) for row in zip(a, b, c)], a, b, c)


@pytest.mark.parametrize("width", [32, 64])
def test_counting_bits(width):
    (a,) = columns(width, 1)
    texts = [f"{int(x):0{width}b}" for x in a]
    same(apply(f"popc.b{width}", a), [text.count("1") for text in texts], a)
    same(apply(f"clz.b{width}", a), [(text + "1").index("1") for text in texts], a)
    same(apply(f"brev.b{width}", a, out=width), [int(text[::-1], 2) for text in texts], a)
    for kind in "us":  # 9.7.1.16 "bfind returns 0xffffffff if no non-sign bit is found"
        found = [width - 1 - text.find("10"[kind == "s" and text[0] == "1"]) for text in texts]
        found = [-1 if place == width else place for place in found]
        same(apply(f"bfind.{kind}{width}", a), found, a)
        shifts = [place if place < 0 else width - 1 - place for place in found]
        same(apply(f"bfind.shiftamt.{kind}{width}", a), shifts, a)


@pytest.mark.parametrize("modifier, flushed", [("", [1, 0, 1, 0, 0, 1, 1]), (".ftz", [1, 1, 1, 0, 0, 1, 1])])
def test_selection_by_sign(modifier, flushed):
    # 9.7.6.4 "negative zero equals zero", ".ftz flushes subnormal values of operand c", "If operand c is NaN [..] b is selected"
    c = np.array([0x80000000, 0x80000001, 0x00000001, 0xBF800000, 0x7FFFFFFF, 0x3F800000, 0x7F800000], dtype=np.uint32)
    a, b = np.ones(7, dtype=np.uint32), np.zeros(7, dtype=np.uint32)
    same(apply(f"slct{modifier}.u32.f32", a, b, c), flushed, c)
    same(apply("slct.u32.s32", a, b, c), [0, 0, 1, 0, 1, 1, 1], c)
