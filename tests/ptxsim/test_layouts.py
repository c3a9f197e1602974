"""Which element of a matrix each lane holds, and when asynchronous copies are there: tables of the PTX ISA 9.x document.

The tables below are its formulas: an element's (row, column) by g, groupID = %laneid >> 2, by t, threadID_in_group = %laneid % 4,
and by i, the element's index in the fragment.
"""

from dataclasses import dataclass

import pytest
import torch

from tests import ptxsim
from tests.ptxsim import PtxError, empty

I16, I32, F16, BF16, F32 = torch.int16, torch.int32, torch.float16, torch.bfloat16, torch.float32
LANES = 32

# 9.7.14.5.6 to 8: "Matrix Fragments for mma.m16n8k4", "... m16n8k8", "... m16n8k16 with floating point type"; 16: .f16 and .bf16
A = {
    (4, 32): lambda g, t, i: (g if i == 0 else g + 8, t),
    (8, 32): lambda g, t, i: (g if i in (0, 2) else g + 8, t if i in (0, 1) else t + 4),
    (8, 16): lambda g, t, i: (g if i in (0, 1) else g + 8, t * 2 + (i & 0x1)),
    (16, 16): lambda g, t, i: (
        g if 0 <= i < 2 or 4 <= i < 6 else g + 8,
        t * 2 + (i & 0x1) if i < 4 else t * 2 + (i & 0x1) + 8,
    ),
}
B = {
    (4, 32): lambda g, t, i: (t, g),
    (8, 32): lambda g, t, i: (t if i == 0 else t + 4, g),
    (8, 16): lambda g, t, i: (t * 2 + i, g),
    (16, 16): lambda g, t, i: (t * 2 + (i & 0x1) if i < 2 else t * 2 + (i & 0x1) + 8, g),
}


def c_or_d(g, t, i):  # of all shapes and types
    return g if i < 2 else g + 8, t * 2 + (i & 0x1)


# 9.7.14.5.15 and 16, figures 104 and 107: "A group of four threads loads an entire row of the matrix"
MATRIX = {
    "": lambda g, t, i: (g, t * 2 + i),
    ".trans": lambda g, t, i: (t * 2 + i, g),  # "the matrix is loaded in column-major format"
}


@dataclass(frozen=True)
class Mma:
    k: int
    type: str
    accumulator: str

    @property
    def dtype(self):
        return {"f16": F16, "bf16": BF16, "tf32": F32}[self.type]

    @property
    def sum_dtype(self):
        return F16 if self.accumulator == "f16" else F32

    @property
    def tables(self):
        key = self.k, 8 * self.dtype.itemsize
        return A[key], B[key], c_or_d

    @property
    def name(self):
        return f"mma.sync.aligned.m16n8k{self.k}.row.col.{self.accumulator}.{self.type}.{self.type}.{self.accumulator}"


MMAS = [Mma(k, "tf32", "f32") for k in (4, 8)]
MMAS += [Mma(k, *types) for k in (8, 16) for types in [("f16", "f32"), ("bf16", "f32"), ("f16", "f16")]]
each_mma = pytest.mark.parametrize("mma", MMAS, ids=lambda mma: f"k{mma.k}-{mma.type}-{mma.accumulator}")


def places(table, elements):
    """The rows and the columns of a table, [32, elements] each."""
    pairs = torch.tensor([[table(lane >> 2, lane % 4, i) for i in range(elements)] for lane in range(LANES)])
    return pairs[..., 0], pairs[..., 1]


def fragments_of(matrices, table):
    """[cases, rows, columns] to the registers of each lane, [cases, 32, registers]: elements lie in them from low to high."""
    rows, columns = places(table, matrices[0].numel() // LANES)
    return matrices[:, rows, columns].contiguous().view(I32)


def matrices_of(registers, table, shape, dtype):
    values = registers.view(dtype)
    rows, columns = places(table, values.shape[-1])
    matrices = torch.empty(len(values), *shape, dtype=dtype)
    matrices[:, rows, columns] = values
    return matrices


# ---- kernels of one instruction


def kernel(arguments: dict[str, int], body: str, target="sm_80", shared=0):
    """Of a warp a block. Each argument is [blocks, 32, number] words: `%x` has the address of the lane's, in body."""
    parameters = ", ".join(f".param .u64 {name}" for name in arguments)
    addresses = "".join(
        f"ld.param.u64 %{name}, [{name}];\nmad.wide.u32 %{name}, %thread, {4 * words}, %{name};\n"
        for name, words in arguments.items()
    )
    return ptxsim.load(f"""
.version 8.0
.target {target}
.address_size 64
.visible .entry one_instruction({parameters})
{{
.reg .b32 %thread, %lane, %block, %shared, %to;
.reg .pred %low;
.reg .b64 {", ".join(f"%{name}" for name in arguments)};
{"".join(f".reg .b32 %{name}_<{words}>;" for name, words in arguments.items())}
.shared .align 16 .b8 buffer[{shared or 16}];
mov.u32 %lane, %laneid;
mov.u32 %block, %ctaid.x;
mad.lo.u32 %thread, %block, 32, %lane;
setp.lt.u32 %low, %lane, 16;
mov.u32 %shared, buffer;
{addresses}{body}
ret;
}}
""").kernels["one_instruction"]


def vector(name, words):
    return "{" + ", ".join(f"%{name}_{i}" for i in range(words)) + "}"


def load_all(name, words):
    return "".join(f"ld.global.b32 %{name}_{i}, [%{name} + {4 * i}];\n" for i in range(words))


def store_all(name, words):
    return "".join(f"st.global.b32 [%{name} + {4 * i}], %{name}_{i};\n" for i in range(words))


def multiply(mma, a, b, c):
    """D of each case, by the instruction."""
    registers = list(map(fragments_of, (a, b, c), mma.tables))
    words = dict(zip("abc", (x.shape[-1] for x in registers)))
    words["d"] = words["c"]
    operands = ", ".join(vector(name, words[name]) for name in "dabc")
    body = "".join(load_all(name, words[name]) for name in "abc") + f"{mma.name} {operands};\n" + store_all("d", words["d"])
    d = empty(*registers[2].shape, dtype=I32)
    report = kernel(words, body).launch(len(a), LANES, [*registers, d], threads=1).assert_clean()
    assert report.counts.mma_flops == len(a) * 2 * 16 * 8 * mma.k
    assert report.counts.instructions["tensor"] == len(a)
    return matrices_of(d, c_or_d, (16, 8), mma.sum_dtype)


def zeros(mma, cases):
    return (torch.zeros(cases, 16, mma.k, dtype=mma.dtype), torch.zeros(cases, mma.k, 8, dtype=mma.dtype),
            torch.zeros(cases, 16, 8, dtype=mma.sum_dtype))  # fmt: skip


def integers(low, high, *shape, dtype=F32):
    return torch.randint(low, high + 1, shape).to(dtype)


def assert_same(found, expected):
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=0, atol=0, equal_nan=True)


@each_mma
def test_every_place_of_a_matrix_is_in_one_fragment(mma):
    for table, (rows, columns) in zip(mma.tables, [(16, mma.k), (mma.k, 8), (16, 8)]):
        row, column = places(table, rows * columns // LANES)
        assert torch.equal((row * columns + column).flatten().sort().values, torch.arange(rows * columns))


@each_mma
def test_product_of_integers(mma):
    # Sums stay below 2^11 with a sum in f16, below 2^24 with one in f32: exact.
    large = 500 if mma.accumulator == "f16" else 8_000_000
    a, b = integers(-8, 8, 10, 16, mma.k, dtype=mma.dtype), integers(-8, 8, 10, mma.k, 8, dtype=mma.dtype)
    c = integers(-large, large, 10, 16, 8, dtype=mma.sum_dtype)
    assert_same(multiply(mma, a, b, c), a.double() @ b.double() + c.double())


@each_mma
@pytest.mark.parametrize("factor", "ab")
def test_one_in_every_place(mma, factor):
    a, b, c = zeros(mma, mma.k * (16 if factor == "a" else 8))
    one, other = (a, b) if factor == "a" else (b, a)
    one.view(len(one), -1).fill_diagonal_(1)
    other[:] = torch.arange(1, other[0].numel() + 1).view(other.shape[1:])  # all differ: the product tells the place of the one
    assert_same(multiply(mma, a, b, c), a.double() @ b.double())


@each_mma
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_special_value_in_every_place_of_the_accumulator(mma, value):
    a, b, c = zeros(mma, 128)
    a[:], b[:] = integers(-4, 4, 16, mma.k), integers(-4, 4, mma.k, 8)
    c.view(128, -1).fill_diagonal_(value)
    assert_same(multiply(mma, a, b, c), a.double() @ b.double() + c.double())


@each_mma
def test_infinities_and_nans_of_factors(mma):
    inf, nan = float("inf"), float("nan")
    a, b, c = zeros(mma, 5)
    a[0, 3, 1] = inf  # times zeros
    a[1, 3, 1], b[1, 1, 2] = inf, -2
    a[2, 3, 1], a[2, 3, 2], b[2, 1, 2], b[2, 2, 2] = inf, -inf, 1, 1
    b[3, 1, 2] = nan
    a[4, 3, 1], b[4, 1, 2], c[4, 3, 2] = inf, 1, -inf
    expected = c.clone()
    expected[0, 3], expected[1, 3] = nan, nan
    expected[1, 3, 2] = -inf
    expected[2, 3], expected[3, :, 2], expected[4, 3] = nan, nan, nan
    assert_same(multiply(mma, a, b, c), expected)


@each_mma
def test_sums_round_to_the_accumulators_type(mma):
    a, b, c = zeros(mma, 4)
    a[:, 0, 0] = 1
    b[:, 0, 0] = torch.tensor([1.0, 1.0, 1.0, 128.0], dtype=mma.dtype)
    c[:, 0, 0] = torch.tensor([2048.0, 2050.0, 16384.0, 65472.0], dtype=mma.sum_dtype)
    narrow, wide = [2048.0, 2052.0, 16384.0, float("inf")], [2049.0, 2051.0, 16385.0, 65600.0]  # f16: 11 bits, ties to even
    assert multiply(mma, a, b, c)[:, 0, 0].tolist() == (narrow if mma.accumulator == "f16" else wide)


def test_a_shape_that_there_is_not_is_refused():
    name = Mma(16, "tf32", "f32").name
    body = f"{name} {vector('c', 4)}, {vector('a', 8)}, {vector('b', 4)}, {vector('c', 4)};"
    with pytest.raises(PtxError, match="no such shape and types"):
        kernel({"a": 8, "b": 4, "c": 4}, body).decode()


each_matrix = pytest.mark.parametrize("trans", MATRIX, ids=["row", "trans"])
each_number = pytest.mark.parametrize("number", [1, 2, 4])
NOWHERE = 0xFFFFFFF0 - (1 << 32)  # what lanes that have no row to give may hold


def row_offsets(number, stride):
    """Places in shared memory for the rows of each matrix, in no order; none in the lanes beyond them."""
    offsets = torch.full((LANES,), NOWHERE, dtype=I32)
    for m, place in enumerate(torch.randperm(number).tolist()):
        offsets[8 * m : 8 * m + 8] = (8 * place + torch.randperm(8)) * stride
    return offsets


@each_number
@each_matrix
@pytest.mark.parametrize("stride, wavefronts", [(16, 1), (48, 1), (128, 8)])  # of a matrix: rows of one bank wait for each other
def test_ldmatrix(number, trans, stride, wavefronts):
    body = f"""{load_all("x", 4)}{load_all("at", 1)}
setp.lt.u32 %low, %lane, {8 * number};
add.u32 %to, %shared, %at_0;
@%low st.shared.v4.b32 [%to], {vector("x", 4)};
bar.warp.sync -1;
ldmatrix.sync.aligned.m8n8.x{number}{trans}.shared.b16 {vector("d", number)}, [%to];
{store_all("d", number)}"""
    words = {"x": 4, "at": 1, "d": number}
    matrices = torch.randperm(LANES * 8).to(I16).view(4, 8, 8)
    d = empty(LANES, number, dtype=I32)
    report = kernel(words, body, shared=LANES * 128).launch(1, LANES, [matrices.view(I32), row_offsets(number, stride), d])
    rows, columns = places(MATRIX[trans], 2)
    # "Addresses addr0-addr7 correspond to the rows of the first matrix, addresses addr8-addr15 ... the second matrix"
    assert torch.equal(d.view(I16).view(LANES, number, 2), matrices[:number, rows, columns].transpose(0, 1))
    total = report.assert_clean().counts.total
    assert total.wavefronts == 2 * number * wavefronts  # the store's eight lanes of 16 bytes are as a matrix's eight rows
    assert total.ideal_wavefronts == 2 * number


@each_number
@each_matrix
def test_stmatrix(number, trans):
    body = f"""{load_all("x", number)}{load_all("at", 1)}
mad.lo.u32 %to, %lane, 48, %shared;
st.shared.v4.b32 [%to], {{-1, -1, -1, -1}};
bar.warp.sync -1;
add.u32 %at_0, %shared, %at_0;
stmatrix.sync.aligned.m8n8.x{number}{trans}.shared.b16 [%at_0], {vector("x", number)};
bar.warp.sync -1;
ld.shared.v4.b32 {vector("d", 4)}, [%to];
{store_all("d", 4)}"""
    fragments = torch.randperm(LANES * number * 2).to(I16).view(LANES, number, 2)
    offsets, d = row_offsets(number, 48), empty(LANES, 4, dtype=I32)
    stored = kernel({"x": number, "at": 1, "d": 4}, body, "sm_90", LANES * 48)
    stored.launch(1, LANES, [fragments.view(I32), offsets, d]).assert_clean()
    matrices = torch.empty(number, 8, 8, dtype=I16)
    matrices[(slice(None), *places(MATRIX[trans], 2))] = fragments.transpose(0, 1)
    expected = torch.full((LANES, 8), -1, dtype=I16)
    expected[offsets[: 8 * number].long() // 48] = matrices.view(-1, 8)
    assert torch.equal(d.view(I16), expected)


# ---- 9.7.9.25.3, cp.async


@pytest.mark.parametrize("cache, size", [("ca", 4), ("ca", 8), ("ca", 16), ("cg", 16)])
@pytest.mark.parametrize("shorter", ["no", "power of two", "any"])
def test_copies_and_their_zero_fill(cache, size, shorter):
    words = size // 4
    of = f".v{words}.b32" if words > 1 else ".b32"
    body = f"""{load_all("size", 1)}
mad.lo.u32 %to, %lane, {size}, %shared;
cp.async.{cache}.shared.global [%to], [%x], {size}{", %size_0" * (shorter != "no")};
cp.async.wait_all;
ld.shared{of} {vector("d", words) if words > 1 else "%d_0"}, [%to];
{store_all("d", words)}"""
    x, d = torch.randint(1, 256, (LANES * size,), dtype=torch.uint8), empty(LANES, words, dtype=I32)
    allowed = {"no": [size], "power of two": [0, 1, 2, 4, 8, 16], "any": range(17)}[shorter]
    sizes = torch.tensor([n for n in allowed if n <= size] * LANES, dtype=I32)[:LANES]
    sizes[-3:] = torch.tensor([size] * 3 if shorter == "no" else [size, 1, 0])
    end = LANES * size if shorter == "no" else LANES * size - 2 * size + 1  # what the last lanes do not read is not there
    copy = kernel({"x": words, "size": 1, "d": words}, body, shared=LANES * 16)
    copy.launch(1, LANES, [x[:end], sizes, d]).assert_clean()
    filled = torch.arange(size) >= sizes[:, None]  # "remaining bytes in destination dst are filled with zeros"
    assert torch.equal(d.view(torch.uint8), x.view(LANES, size).masked_fill(filled, 0))


def test_a_copy_is_aligned_to_its_size_however_few_bytes_it_reads():
    x, d = torch.zeros(LANES * 4, dtype=I32), empty(LANES, 1, dtype=I32)
    body = "mad.lo.u32 %to, %lane, 16, %shared;\ncp.async.ca.shared.global [%to], [%x + 4], 16, 4;\n"
    report = kernel({"x": 4, "d": 1}, body, shared=LANES * 16).launch(1, LANES, [x, d])
    assert {finding.kind for finding in report.findings} == {"misaligned access"}


COMMIT = "cp.async.commit_group;\n"


def copy_of_group(group, commit=COMMIT):
    return f"cp.async.ca.shared.global [%to + {128 * group}], [%x + {4 * group}], 4;\n{commit}"


def copy_and_read(copies, waits):
    """What each lane reads of its four copies, -1 of those that have not arrived, and the kinds of the findings."""
    body = "mad.lo.u32 %to, %lane, 4, %shared;\n" + copies + waits
    body += "".join(f"ld.shared.b32 %d_{group}, [%to + {128 * group}];\n" for group in range(4)) + store_all("d", 4)
    x = torch.randint(1, 1 << 30, (LANES, 4), dtype=I32)
    d = empty(LANES, 4, dtype=I32)
    report = kernel({"x": 4, "d": 4}, body, shared=512).launch(1, LANES, [x, d])
    assert torch.equal(d, torch.where(d == -1, -1, x))
    return d != -1, {finding.kind for finding in report.findings}


EARLY = {"cp.async data used before its wait"}
FOUR_GROUPS = "".join(map(copy_of_group, range(4)))
LAST_IN_NONE = FOUR_GROUPS.removesuffix(COMMIT)
WAITS = [  # "till only N or fewer of the most recent cp.async-groups are pending"
    *((FOUR_GROUPS, f"wait_group {pending}", max(0, 4 - pending)) for pending in range(6)),
    (FOUR_GROUPS + COMMIT, "wait_group 1", 4),  # a group of no copies is a group
    (LAST_IN_NONE, "wait_group 0", 3),
    (LAST_IN_NONE, "wait_all", 4),
]


@pytest.mark.parametrize("copies, wait, complete", WAITS)
def test_what_is_complete_after_a_wait(copies, wait, complete):
    arrived, kinds = copy_and_read(copies, f"cp.async.{wait};\n")
    assert arrived.tolist() == [[place < complete for place in range(4)]] * LANES
    assert kinds == (EARLY if complete < 4 else set())


def test_each_lane_has_its_own_groups():  # "creates a new cp.async-group per thread"
    copies = "".join(copy_of_group(group, "@%low " + COMMIT) for group in range(3)) + copy_of_group(3)
    arrived, kinds = copy_and_read(copies, "cp.async.wait_group 1;\n")
    assert arrived[:16].tolist() == [[True, True, True, False]] * 16  # four groups
    assert not arrived[16:].any()  # one
    assert kinds == EARLY
