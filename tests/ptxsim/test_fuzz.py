"""Random functions, compiled by nvcc for the simulator and by g++ for the host: every bit of their results is the same."""

import ctypes
import os
import random
import subprocess

import numpy as np
import pytest
import torch

from tests import ptxsim

THREADS = 256
INTEGERS = ("i16", "u16", "i32", "u32", "i64", "u64")
FLOATS = ("f32", "f64")
ARGUMENTS = {"a": "i32", "b": "i32", "c": "u32", "d": "i64", "e": "u16", "x": "f32", "y": "f32", "z": "f64"}

# What C++ leaves undefined is defined here: arithmetic is unsigned, shifts are masked, divisions guarded, conversions clamped.
PRELUDE = r"""
typedef short i16; typedef unsigned short u16; typedef int i32; typedef unsigned u32; typedef long long i64;
typedef unsigned long long u64; typedef float f32; typedef double f64;
#ifdef __CUDACC__
#define BOTH static __device__
#else
#include <cmath>
#define BOTH static
static int __popc(u32 a) { return __builtin_popcount(a); }
static int __popcll(u64 a) { return __builtin_popcountll(a); }
static int __clz(u32 a) { return a ? __builtin_clz(a) : 32; }
static int __clzll(u64 a) { return a ? __builtin_clzll(a) : 64; }
static u64 __brevll(u64 a) { u64 r = 0; for (int i = 0; i < 64; i++) r |= (a >> i & 1) << (63 - i); return r; }
static u32 __brev(u32 a) { return u32(__brevll(a) >> 32); }
#endif
template <class T> struct Wraps { typedef u32 type; };
template <> struct Wraps<i64> { typedef u64 type; };
template <> struct Wraps<u64> { typedef u64 type; };
#define WRAPPING(name, op) template <class T> BOTH T name(T a, T b) { typedef typename Wraps<T>::type U; return T(U(a) op U(b)); }
WRAPPING(add, +) WRAPPING(sub, -) WRAPPING(mul, *)
template <class T> BOTH T shl(T a, u32 b) { return T(typename Wraps<T>::type(a) << (b & (8 * sizeof(T) - 1))); }
template <class T> BOTH T shr(T a, u32 b) { return T(a >> (b & (8 * sizeof(T) - 1))); }
template <class T> BOTH bool divides(T a, T b) { return b != 0 && !(T(-1) < T(0) && b == T(-1)); }
template <class T> BOTH T quot(T a, T b) { return divides(a, b) ? T(a / b) : a; }
template <class T> BOTH T rem(T a, T b) { return divides(a, b) ? T(a % b) : b; }
template <class T> BOTH T whole(f64 a, f64 low, f64 high) {
  return a >= low && a <= high ? T(a) : a > high ? T(high) : T(a < low ? low : 0);
}
BOTH u64 mix(u64 hash, u64 value) { return (hash ^ value) * 0x9e3779b97f4a7c15ull + (hash >> 29); }
template <class T> BOTH u64 mix_integer(u64 hash, T value) { return mix(hash, u64(value)); }
// All NaN are one: which of them an operation gives is the processor's own.
BOTH u64 mix_f32(u64 hash, f32 value) { u32 bits; memcpy(&bits, &value, 4); return mix(hash, value != value ? 1 : bits); }
BOTH u64 mix_f64(u64 hash, f64 value) { u64 bits; memcpy(&bits, &value, 8); return mix(hash, value != value ? 1 : bits); }
"""
RANGE = {"i16": (-32768, 32767), "u16": (0, 65535), "i32": (-2147483648, 2147483647), "u32": (0, 4294967295),
         "i64": (-9e18, 9e18), "u64": (0, 18e18)}  # fmt: skip


class Generator:
    def __init__(self, seed: int):
        self.rng = random.Random(seed)
        self.variables = dict(ARGUMENTS)  # name to type
        self.fixed: set[str] = set()  # counters of loops
        self.made = 0
        self.name = f"random_{seed}"

    def function(self) -> str:
        for type_ in (*INTEGERS, *FLOATS):
            self.variables[f"v_{type_}"] = type_
        lines = [f"  {type_} v_{type_} = {self.expression(type_, 1)};" for type_ in (*INTEGERS, *FLOATS)]
        lines += self.block(depth=3, statements=self.rng.randint(4, 8), indent="  ")
        parameters = ", ".join(f"{type_} {name}" for name, type_ in ARGUMENTS.items())
        return "\n".join([f"BOTH u64 {self.name}({parameters}) {{", *lines, f"  return {self.result()};", "}"])

    def result(self) -> str:
        text = "7"
        for name, type_ in self.variables.items():
            if name.startswith("v_"):
                text = f"mix_{type_ if type_ in FLOATS else 'integer'}({text}, {name})"
        return text

    # ---- statements

    def block(self, depth: int, statements: int, indent: str, in_loop: bool = False) -> list[str]:
        before, lines = dict(self.variables), []
        for _ in range(statements):
            kinds = [self.assign] * 4 + ([self.branch, self.branch, self.loop, self.switch] if depth else [])
            lines += self.rng.choice(kinds)(depth, indent)
        if in_loop and self.rng.random() < 0.4:
            lines.append(f"{indent}if ({self.condition(1)}) {self.rng.choice(['break', 'continue'])};")
        elif depth == 1 and self.rng.random() < 0.15:
            lines.append(f"{indent}if ({self.condition(1)}) return {self.result()};")
        self.variables = before
        return lines

    def assign(self, depth: int, indent: str) -> list[str]:
        type_ = self.rng.choice((*INTEGERS, *FLOATS))
        if self.rng.random() < 0.3:
            self.made += 1
            text = f"{indent}{type_} t{self.made} = {self.expression(type_, 3)};"
            self.variables[f"t{self.made}"] = type_
            return [text]
        names = [name for name, of in self.variables.items() if of == type_ and name not in self.fixed]
        return [f"{indent}{self.rng.choice(names)} = {self.expression(type_, 3)};"]

    def branch(self, depth: int, indent: str) -> list[str]:
        lines = [f"{indent}if ({self.condition(2)}) {{", *self.block(depth - 1, self.rng.randint(1, 3), indent + "  ")]
        if self.rng.random() < 0.6:
            lines += [f"{indent}}} else {{", *self.block(depth - 1, self.rng.randint(1, 3), indent + "  ")]
        return [*lines, f"{indent}}}"]

    def loop(self, depth: int, indent: str) -> list[str]:
        self.made += 1
        counter, bound = f"at{self.made}", f"trips{self.made}"
        trips, more = self.expression("u32", 2), f" && ({self.condition(1)})" if self.rng.random() < 0.4 else ""
        self.variables[counter] = "u32"
        self.fixed.add(counter)
        body = self.block(depth - 1, self.rng.randint(1, 3), indent + "  ", in_loop=True)
        del self.variables[counter]
        head = f"{indent}const u32 {bound} = {trips} % {self.rng.randint(2, 9)}u;"
        return [head, f"{indent}for (u32 {counter} = 0; {counter} < {bound}{more}; {counter}++) {{", *body, f"{indent}}}"]

    def switch(self, depth: int, indent: str) -> list[str]:
        lines = [f"{indent}switch ({self.expression('u32', 2)} % {self.rng.choice((5, 6, 8))}u) {{"]
        for case in self.rng.sample(range(8), self.rng.randint(2, 6)):
            lines += [
                f"{indent}  case {case}: {{",
                *self.block(depth - 1, self.rng.randint(1, 2), indent + "    "),
                f"{indent}  }}",
            ]
            lines += [f"{indent}  break;"] if self.rng.random() < 0.7 else []  # else it falls through
        return [*lines, f"{indent}  default: {{", *self.block(0, 1, indent + "    "), f"{indent}  }}", f"{indent}}}"]

    # ---- expressions

    def leaf(self, type_: str) -> str:
        names = [name for name, of in self.variables.items() if of == type_ and (not name.startswith("v_") or self.made)]
        if names and self.rng.random() < 0.75:
            return self.rng.choice(names)
        if type_ in FLOATS:
            value = self.rng.choice([0.0, 1.0, -1.5, 0.1, 3.0e7, 1e-40, 65504.0, self.rng.uniform(-100, 100)])
            return f"{type_}({value!r})"
        low, high = (0, 2**64 - 1) if type_ == "u64" else (-(2**63) + 1, 2**63 - 1) if type_ == "i64" else RANGE[type_]
        value = self.rng.choice([0, 1, high, low, high // 2, self.rng.randint(low, high), self.rng.randint(0, 40)])
        return f"{type_}({value}{'ull' if value > 2**63 - 1 else 'll'})"

    def expression(self, type_: str, depth: int) -> str:
        if depth == 0:
            return self.leaf(type_)
        kind = self.rng.random()
        if kind < 0.12:
            return f"({self.condition(depth - 1)} ? {self.expression(type_, depth - 1)} : {self.expression(type_, depth - 1)})"
        if kind < 0.27:
            return self.conversion(type_, depth)
        return (self.float_operation if type_ in FLOATS else self.integer_operation)(type_, depth - 1)

    def conversion(self, type_: str, depth: int) -> str:
        source = self.rng.choice((*INTEGERS, *FLOATS))
        value = self.expression(source, depth - 1)
        if source in FLOATS and type_ in INTEGERS:
            low, high = RANGE[type_]
            return f"whole<{type_}>({value}, {low:.1f}, {high:.1f})"
        return f"{type_}({value})"

    def integer_operation(self, type_: str, depth: int) -> str:
        a, b = self.expression(type_, depth), self.expression(type_, depth)
        name = self.rng.choice(["add", "sub", "mul", "quot", "rem", "shl", "shr", "&", "|", "^", "~", "bits", "least", "most"])
        if name in ("add", "sub", "mul", "quot", "rem"):
            return f"{name}<{type_}>({a}, {b})"
        if name in ("shl", "shr"):
            return f"{name}<{type_}>({a}, {self.expression('u32', depth)})"
        if name == "~":
            return f"{type_}(~{a})"
        if name == "bits":
            function, of = self.rng.choice([(f, of) for f in ("popc", "clz", "brev") for of in ("u32", "u64")])
            return f"{type_}(__{function}{'ll' if of == 'u64' else ''}({self.expression(of, depth)}))"
        if name in ("least", "most"):
            return f"({a} {'<' if name == 'least' else '>'} {b} ? {a} : {b})" if len(a + b) < 80 else f"{type_}({a} ^ {b})"
        return f"{type_}({a} {name} {b})"

    def float_operation(self, type_: str, depth: int) -> str:
        a, b = self.expression(type_, depth), self.expression(type_, depth)
        suffix = "f" if type_ == "f32" else ""
        name = self.rng.choice(["+", "-", "*", "/", "+", "*", "neg", "fabs", "sqrt", "floor", "trunc", "rint", "fma"])
        if name == "neg":
            return f"(-{a})"
        if name == "fma":
            return f"fma{suffix}({a}, {b}, {self.expression(type_, depth)})"
        return f"({a} {name} {b})" if len(name) == 1 else f"{name}{suffix}({a})"

    def condition(self, depth: int) -> str:
        first, second = self.rng.choice((FLOATS, INTEGERS)), None
        types = [self.rng.choice(first), self.rng.choice(first)]  # signed with unsigned too: as C++ converts them
        first, second = (self.expression(type_, depth) for type_ in types)
        text = f"{first} {self.rng.choice(['<', '<=', '>', '>=', '==', '!='])} {second}"
        return (
            text if depth == 0 or self.rng.random() < 0.7 else f"({text}) {self.rng.choice(['&&', '||'])} ({self.condition(0)})"
        )


def inputs() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    specials = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e-45, -1e-40, 3.4e38, -2.5, 2147483648.0, -1e19, 0.5]
    columns = []
    for type_ in ARGUMENTS.values():
        width = int(type_[1:]) // 8
        bits = rng.integers(0, 256, THREADS * width, dtype=np.uint8)
        if type_ in FLOATS:
            column = bits.view(f"f{width}").copy()
            column[::3] = rng.choice(specials, len(column[::3]))
            column[1::3] = rng.normal(0, 1000, len(column[1::3]))
        else:
            column = bits.view(f"{type_[0]}{width}").copy()
            limits = np.iinfo(column.dtype)
            column[::3] = rng.choice([limits.min, limits.max, 0, 1, limits.max - 1, limits.min + 1], len(column[::3]))
            column[1::3] = rng.integers(0 if limits.min == 0 else -20, 20, len(column[1::3]))
        columns.append(column)
    return columns


def sources(functions: dict[int, str]) -> tuple[str, str]:
    """The texts for nvcc and for g++: of the same functions."""
    parameters = ", ".join(f"const {type_}* {name}" for name, type_ in ARGUMENTS.items())
    values = ", ".join(f"{name}[at]" for name in ARGUMENTS)
    device, host = [PRELUDE], ["#include <cstring>", PRELUDE]
    for seed, text in functions.items():
        device += [text, f'extern "C" __global__ void k{seed}({parameters}, u64* out) {{']
        device += [f"  const int at = blockIdx.x * blockDim.x + threadIdx.x;\n  out[at] = random_{seed}({values});\n}}"]
        host += [text, f'extern "C" void k{seed}({parameters}, u64* out) {{']
        host += [f"  for (int at = 0; at < {THREADS}; at++) out[at] = random_{seed}({values});\n}}"]
    return "\n".join(device), "\n".join(host)


def compare(first: int, count: int, folder) -> None:
    functions = {seed: Generator(seed).function() for seed in range(first, first + count)}
    device, host = sources(functions)
    module = ptxsim.from_cuda(device, flags=("-fmad=false", "-w"))
    (folder / "host.cpp").write_text(host)
    flags = ["-shared", "-fPIC", "-O0", "-ffp-contract=off", "-fwrapv", "-w"]
    command = [os.environ.get("CXX", "g++"), *flags, str(folder / "host.cpp"), "-o", str(folder / "host.so")]
    subprocess.run(command, check=True)
    library = ctypes.CDLL(str(folder / "host.so"))
    columns = inputs()
    tensors = [torch.from_numpy(column) for column in columns]
    for seed, text in functions.items():
        expected = np.zeros(THREADS, dtype=np.uint64)
        getattr(library, f"k{seed}")(*(ctypes.c_void_p(column.ctypes.data) for column in (*columns, expected)))
        out = ptxsim.empty(THREADS, dtype=torch.int64)
        report = module.kernels[f"k{seed}"].launch(THREADS // 128, 128, [*tensors, out], seed=(0, 3))
        wrong = np.flatnonzero(out.numpy().view(np.uint64) != expected)
        values = {name: column[wrong[0]] for name, column in zip(ARGUMENTS, columns)} if len(wrong) else {}
        assert not len(wrong), f"seed {seed}: {len(wrong)} of {THREADS} threads differ, the first with {values}\n{text}"
        assert not report.findings, f"seed {seed}: {', '.join(map(str, report.findings))}\n{text}"


def test_random_functions(tmp_path):
    compare(0, 40, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(40, 440, 40))
def test_more_random_functions(first, tmp_path):
    compare(first, 40, tmp_path)
