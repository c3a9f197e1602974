"""Approximations are within the errors that the PTX ISA (9.0, chapter 9.7) states, with its results for special values."""

import math

import numpy as np
import pytest

from .exact import EVERY_HALF, F32, FORMATS, Format, apply, bits_of, same


def relative(exponent):
    return lambda x, y, ulp: np.abs(y) * 2.0**exponent


def absolute(exponent, beyond=None, reach=None):  # the bound `beyond` holds outside of [-reach, reach]
    return lambda x, y, ulp: np.where(np.abs(x) <= (reach or np.inf), 2.0**exponent, 2.0 ** (beyond or 0))


def ulps(number):
    return lambda x, y, ulp: number * ulp


def of_lg2(x, y, ulp):
    return np.where((x > 0.5) & (x < 2), 2.0**-22, np.abs(y) * 2.0**-22)


TURN = 2 * math.pi
APPROXIMATIONS = {  # opcode: (function, bound, least and greatest input, special values)
    "rcp.approx.f32": (lambda x: 1 / x, ulps(1), None, "-inf:-0 -0:-inf 0:inf inf:0 nan:nan"),
    "sqrt.approx.f32": (np.sqrt, relative(-23), (0, np.inf), "-inf:nan -2:nan -0:-0 0:0 inf:inf nan:nan"),
    "rsqrt.approx.f32": (lambda x: x**-0.5, relative(-22.9), (1e-45, np.inf), "-inf:nan -2:nan -0:-inf 0:inf inf:0 nan:nan"),
    "sin.approx.f32": (np.sin, absolute(-20.5, -14.7, TURN), (-50 * TURN, 50 * TURN), "-inf:nan -0:-0 0:0 inf:nan nan:nan"),
    "cos.approx.f32": (np.cos, absolute(-20.5, -14.7, TURN), (-50 * TURN, 50 * TURN), "-inf:nan -0:1 0:1 inf:nan nan:nan"),
    "lg2.approx.f32": (np.log2, of_lg2, (1e-45, np.inf), "-inf:nan -2:nan -0:-inf 0:-inf inf:inf nan:nan"),
    "ex2.approx.f32": (np.exp2, ulps(2), None, "-inf:0 -0:1 0:1 inf:inf nan:nan"),
    "tanh.approx.f32": (np.tanh, relative(-11), None, "-inf:-1 -0:-0 0:0 inf:1 nan:nan"),
    "ex2.approx.f16": (np.exp2, relative(-9.9), None, "-inf:0 -0:1 0:1 inf:inf nan:nan"),
    "ex2.approx.ftz.bf16": (np.exp2, relative(-7), None, "-inf:0 -1e-39:1 -0:1 0:1 1e-39:1 inf:inf nan:nan"),
    "tanh.approx.f16": (np.tanh, absolute(-10.987), None, "-inf:-1 -0:-0 0:0 inf:1 nan:nan"),
    "tanh.approx.bf16": (np.tanh, absolute(-8), None, "-inf:-1 -0:-0 0:0 inf:1 nan:nan"),
}


def within(format: Format, found: np.ndarray, x: np.ndarray, y: np.ndarray, bound, flush: bool) -> None:
    found = np.array([format.value(bits) for bits in found])
    least = 2.0 ** (1 - format.bias)
    scale = np.exp2(np.floor(np.log2(np.maximum(np.abs(y), least))))
    ulp = scale * 2.0**-format.mantissa
    allowed = np.maximum(bound(x, y, ulp), ulp / 2)
    largest = format.value(format.infinity - 1)
    fine = (np.abs(found - y) <= allowed) | (np.isinf(found) & (np.abs(y) >= largest) & (np.sign(found) == np.sign(y)))
    fine |= flush & (found == 0) & (np.abs(y) < least)
    assert fine.all(), [(x[at], found[at], y[at]) for at in np.flatnonzero(~fine)[:5]]


@pytest.mark.parametrize("opcode", APPROXIMATIONS)
def test_approximations(opcode):
    function, bound, domain, special = APPROXIMATIONS[opcode]
    format, flush = FORMATS[opcode.split(".")[-1]], "ftz" in opcode
    rng = np.random.default_rng(0)
    near = (rng.standard_normal(8000) * 2.0 ** rng.integers(-8, 8, 8000)).astype(np.float32).view(np.uint32)
    inputs = EVERY_HALF if format is not F32 else np.concatenate([rng.integers(0, 2**32, 8000, dtype=np.uint32), near])
    x = np.array([format.value(bits) for bits in inputs])
    low, high = domain or (-np.inf, np.inf)
    kept = np.isfinite(x) & (x != 0) & (x >= low) & (x <= high)
    inputs, x = inputs[kept], x[kept]
    with np.errstate(all="ignore"):
        y = function(x)
        within(format, apply(opcode, inputs, out=format.width), x, y, bound, flush)
        if format is F32 and "tanh" not in opcode:
            # ".ftz flushes subnormal inputs and results to sign-preserving zero": those inputs are rows of `special`
            normal = np.abs(x) >= 2.0**-126
            found = apply(opcode.replace("approx", "approx.ftz"), inputs[normal])
            within(format, found, x[normal], y[normal], bound, True)
    rows = [row.split(":") for row in special.split()]
    for name in [opcode, *([opcode.replace("approx", "approx.ftz")] if format is F32 and "tanh" not in opcode else [])]:
        given = [float(row[0]) for row in rows] + ([1e-40, -1e-40] if name != opcode else [])
        zeros = {row[0]: float(row[1]) for row in rows}
        wanted = [float(row[1]) for row in rows] + ([zeros["0"], zeros["-0"]] if name != opcode else [])
        inputs = bits_of(given, format)
        same(apply(name, inputs, out=format.width), [format.round(value) for value in wanted], inputs)


@pytest.mark.parametrize("opcode", ["div.approx.f32", "div.full.f32", "div.approx.ftz.f32", "div.full.ftz.f32"])
def test_approximate_division(opcode):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2**32, (2, 20_000), dtype=np.uint32)
    with np.errstate(invalid="ignore"):  # some are signalling NaN
        x, y = (column.view(np.float32).astype(np.float64) for column in (a, b))
    flush, approximate = "ftz" in opcode, "approx" in opcode
    normal = np.isfinite(x) & np.isfinite(y) & (np.abs(y) >= 2.0**-126) & (np.abs(x) >= 2.0**-126)
    kept = normal & (np.abs(y) <= 2.0**126) if approximate else normal
    within(F32, apply(opcode, a[kept], b[kept]), x[kept], x[kept] / y[kept], ulps(2), flush)
    big = normal & (np.abs(y) > 2.0**126)
    if approximate:
        # 9.7.3.8 "For 2^126 < |b| < 2^128, if a is infinity, div.approx.f32 returns NaN, otherwise [..] a sign-preserving zero"
        assert big.sum() > 100
        same(apply(opcode, a[big], b[big]), (a[big] ^ b[big]) & 0x80000000, a[big], b[big])
        infinite = np.full(int(big.sum()), F32.infinity, dtype=np.uint32)
        same(apply(opcode, infinite, b[big]), [F32.nan] * len(infinite), infinite, b[big])
