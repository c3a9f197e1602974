"""For tests of numbers: one PTX instruction over arrays, and formats whose rounding is exact rational arithmetic."""

import functools
import math
import random
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from tests import ptxsim

# ---- one instruction over arrays


def apply(opcode: str, *sources, out: int = 32) -> np.ndarray:
    """The instruction's results, of `out` bits. sources: arrays of unsigned integers, which are registers; or immediates.

    Where one instruction does not do, opcode holds them all, with {0}, {1} .. for the sources, %d for the result, %q a predicate.
    """
    arrays = [np.ascontiguousarray(source) for source in sources if isinstance(source, np.ndarray)]
    immediates = tuple(None if isinstance(source, np.ndarray) else source for source in sources)
    size = len(arrays[0])
    result = np.full(size, 0xA5, dtype=f"u{out // 8}")
    kernel = _kernel(opcode, immediates, tuple(8 * array.itemsize for array in arrays), out)
    tensors = [torch.from_numpy(array.view(f"i{array.itemsize}")) for array in (*arrays, result)]
    kernel.launch(-(-size // 128), 128, [*tensors, size]).assert_clean()
    return result


@functools.cache
def _kernel(opcode: str, immediates: tuple, widths: tuple[int, ...], out: int) -> ptxsim.Kernel:
    names, body, used = [], [], iter(range(len(widths)))
    for immediate in immediates:
        if immediate is not None:
            names.append(str(immediate))
            continue
        place = next(used)
        names.append(f"%s{place}")
        body += [
            f".reg .b{widths[place]} %s{place};",
            f"ld.param.u64 %rd0, [p{place}];",
            f"mad.wide.u32 %rd0, %r0, {widths[place] // 8}, %rd0;",
            f"ld.global.b{widths[place]} %s{place}, [%rd0];",
        ]
    code = opcode.format(*names) if "%d" in opcode else f"{opcode} %d, {', '.join(names)}"
    last = len(widths)
    parameters = ", ".join(f".param .u64 p{place}" for place in range(last + 1))
    text = f"""
.version 9.0
.target sm_90
.address_size 64
.visible .entry one({parameters}, .param .u32 size)
{{
    .reg .pred %p0, %q;
    .reg .b32 %r<4>;
    .reg .b64 %rd0;
    .reg .b{out} %d;
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, %ctaid.x;
    mad.lo.u32 %r0, %r1, 128, %r0;
    ld.param.u32 %r2, [size];
    setp.ge.u32 %p0, %r0, %r2;
    @%p0 ret;
    {" ".join(body)}
    {code};
    ld.param.u64 %rd0, [p{last}];
    mad.wide.u32 %rd0, %r0, {out // 8}, %rd0;
    st.global.b{out} [%rd0], %d;
    ret;
}}
"""
    return ptxsim.load(text)["one"]


def same(found: np.ndarray, expected, *sources: np.ndarray) -> None:
    """All bits equal, or an AssertionError with the first inputs for which they are not."""
    expected = np.array([int(value) & ((1 << 8 * found.itemsize) - 1) for value in expected], dtype=found.dtype)
    wrong = np.flatnonzero(found != expected)
    lines = [
        f"({', '.join(hex(source[at]) for source in sources)}): {found[at]:#x}, expected {expected[at]:#x}" for at in wrong[:5]
    ]
    assert not lines, f"{len(wrong)} of {len(found)} differ: " + "; ".join(lines)


# ---- formats, and the one rounder


@dataclass(frozen=True)
class Format:
    mantissa: int  # stored bits
    exponent: int
    spare: int = 0  # low bits of its register that are zero

    @property
    def bias(self) -> int:
        return (1 << self.exponent - 1) - 1

    @property
    def width(self) -> int:
        return 1 + self.exponent + self.mantissa + self.spare

    @property
    def infinity(self) -> int:
        return ((1 << self.exponent) - 1) << self.mantissa

    @property
    def nan(self) -> int:  # the canonical one
        return (1 << self.width - 1) - 1

    def value(self, bits: int) -> float:
        """A double has all numbers of all formats."""
        bits = int(bits) >> self.spare
        sign = -1.0 if bits >> self.exponent + self.mantissa else 1.0
        exponent, fraction = bits >> self.mantissa & (1 << self.exponent) - 1, bits & (1 << self.mantissa) - 1
        if exponent == (1 << self.exponent) - 1:
            return math.nan if fraction else sign * math.inf
        if exponent == 0:
            return sign * math.ldexp(fraction, 1 - self.bias - self.mantissa)
        return sign * math.ldexp(fraction + (1 << self.mantissa), exponent - self.bias - self.mantissa)

    def round(self, exact: Fraction | float, mode: str = "rn", zero_is_negative: bool = False, finite: bool = False) -> int:
        """The bits of what `exact` is rounded to."""
        if isinstance(exact, float):
            if math.isnan(exact):
                return self.nan
            zero_is_negative = math.copysign(1, exact) < 0
            if math.isinf(exact) and not finite:
                return (int(zero_is_negative) << self.width - 1) | self.infinity << self.spare
            exact = 10**400 * (-1 if exact < 0 else 1) if math.isinf(exact) else exact
        numerator, denominator = exact.as_integer_ratio()
        negative = numerator < 0 or (numerator == 0 and zero_is_negative)
        bits = self._magnitude(
            abs(numerator), denominator, {"rm": "up" if negative else "rz", "rp": "rz" if negative else "up"}.get(mode, mode)
        )
        if bits >= self.infinity:
            away = not finite and (mode in ("rn", "rna") or mode == ("rm" if negative else "rp"))
            bits = self.infinity - (not away)
        return (int(negative) << self.width - 1) | bits << self.spare

    def _magnitude(self, n: int, d: int, mode: str) -> int:
        """Of n / d, in integers, for a Fraction takes ten times as long."""
        if n == 0:
            return 0
        exponent = n.bit_length() - d.bit_length()
        is_less = d << exponent > n if exponent >= 0 else d > n << -exponent
        exponent = max(exponent - is_less, 1 - self.bias)
        shift = exponent - self.mantissa
        n, d = (n, d << shift) if shift >= 0 else (n << -shift, d)
        whole, rest = divmod(n, d)
        up = {"rn": 2 * rest > d or (2 * rest == d and whole % 2), "rna": 2 * rest >= d, "rz": False, "up": rest > 0}[mode]
        return (exponent + self.bias - 1 << self.mantissa) + whole + up  # a carry goes on into the exponent

    def flushed(self, bits: int) -> int:
        return bits if bits & self.infinity else bits & 1 << self.width - 1


FORMATS = {
    "f16": Format(10, 5), "bf16": Format(7, 8), "f32": Format(23, 8), "f64": Format(52, 11), "tf32": Format(10, 8, spare=13)
}  # fmt: skip
F16, BF16, F32, F64, TF32 = FORMATS.values()
MODES = ("rn", "rz", "rm", "rp")
EVERY_HALF = np.arange(65536, dtype=np.uint16)


def bits_of(values, format: Format = F32) -> np.ndarray:
    return np.array([format.round(value) for value in values], dtype=f"u{format.width // 8}")


def hostile(source: Format, target: Format, count: int = 600, seed: int = 0) -> np.ndarray:
    """Numbers of `source`: its edges, ties of `target` with both neighbours, its thresholds and denormals, and random bits."""
    rng = random.Random(seed)
    top = 1 << source.width - 1
    edges = [0, 1, 2, source.infinity, source.infinity - 1, source.infinity + 1, source.nan, 1 << source.mantissa]
    edges += [(1 << source.mantissa) - 1, source.round(1.0), source.round(0.5), source.round(1.5), source.round(2.5)]
    dropped = source.mantissa - target.mantissa
    places = [0, 1, 2, target.infinity - 1, target.infinity - 2, 1 << target.mantissa, (1 << target.mantissa) - 1]
    places += [rng.randrange(target.infinity) for _ in range(count // 6)]
    for place in places if dropped > 0 else []:
        low = Fraction(target.value(place << target.spare))
        step = Fraction(2) ** (max((place >> target.mantissa) - 1, 0) + 1 - target.bias - target.mantissa)
        tie = source.round(low + step / 2, "rz")
        edges += [tie, tie + 1, max(tie - 1, 0)]
    edges += [rng.randrange(top) for _ in range(count // 4)]
    edges += [source.round(math.ldexp(rng.random(), rng.randint(-30, 30))) for _ in range(count // 4)]
    edges = [min(edge, top - 1) for edge in edges]
    return np.array([edge | sign for edge in edges for sign in (0, top)], dtype=f"u{source.width // 8}")
