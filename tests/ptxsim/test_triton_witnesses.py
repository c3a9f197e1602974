"""Kernels that Triton compiles, as witnesses that are not ours: right numbers, nothing found, counts that arithmetic foretells.

Bounds are of the first order in the unit roundoff u = 2^-p of p significant bits. A sum of n terms, in any order, is within
n u sum|terms|; tensor cores may cut where others round, so theirs is within 2 n u.
"""

import inspect

import pytest
import torch

from tests.ptxsim import empty, from_triton, unwritten

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

U = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
U_TF32 = 2.0**-10  # its low bits are cut, not rounded
SECTOR = 32
RUNS = [(seed, threads) for seed in (0, 1, 2) for threads in (1, 2)]


def witness(kernel, grid, arguments):
    """Runs a kernel on what arguments() gives, in each order of its warps; the report and the arguments of the first run.

    Asserts that nothing is found, and that neither the bits of the results nor any count depends on the order.
    """
    runs = []
    for seed, threads in RUNS:
        args = arguments()
        report = kernel.launch(grid, *args, seed=seed, threads=threads)
        assert report.findings == []
        runs.append((report, args))
    first, results = runs[0]
    for report, args in runs[1:]:
        assert report.counts == first.counts
        assert report.lines == first.lines
        assert all(torch.equal(a, b) for a, b in zip(args, results) if isinstance(a, torch.Tensor))
    return first, results


def sectors(*tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) // SECTOR


def line(report, function, text):
    """The counts of the one line of a kernel's source that has this text."""
    source, first = inspect.getsourcelines(function.fn)
    (number,) = [first + offset for offset, code in enumerate(source) if text in code]
    return report.lines[f"{__file__.rpartition('/')[2]}:{number}"]


def within(found, exact, bound):
    assert found.isfinite().all()
    worst = ((found.double() - exact).abs() / bound).max().item()
    assert worst <= 1, f"{worst:.3g} times the bound"


@triton.jit
def softmax(x, out, columns, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    place = tl.program_id(0) * columns + column
    row = tl.load(x + place, column < columns, float("-inf"))
    e = tl.exp(row - tl.max(row, 0))
    tl.store(out + place, e / tl.sum(e, 0), column < columns)


def test_softmax():
    rows, columns = 6, 1000  # not a power of two: the mask matters
    kernel = from_triton(softmax, {"x": "*fp32", "out": "*fp32", "columns": "i32"}, {"BLOCK": 1024}, divisible=("x", "out"))
    x = torch.randn(rows, columns) * 5
    report, (_, out, _) = witness(kernel, rows, lambda: [x, empty(rows, columns), columns])
    exact = x.double().softmax(1)
    # exp(x) is ex2.approx of x log2(e): 2^-22, and 3 roundings of an exponent of x - max, for the term and for the sum; the sum;
    # div.full has 2 ulp.
    spread = (x.max(1).values - x.min(1).values).max().double()
    within(out, exact, exact * (2 * (2.0**-22 + 3 * U[x.dtype] * spread) + columns * U[x.dtype] + 4 * U[x.dtype]) + 2.0**-126)
    assert unwritten(out) == 0
    assert report.counts.unique_read_sectors == report.counts.unique_written_sectors == sectors(x)
    assert line(report, softmax, "tl.load").bytes == line(report, softmax, "tl.store").bytes == x.numel() * 4
    assert report.counts.total.wavefronts == report.counts.total.ideal_wavefronts
    assert report.counts.mma_flops == report.counts.total.atomics == 0


@triton.jit
def layer_norm(x, weight, bias, out, epsilon, COLUMNS: tl.constexpr):
    column = tl.arange(0, COLUMNS)
    row = tl.load(x + tl.program_id(0) * COLUMNS + column).to(tl.float32)
    mean = tl.sum(row, 0) / COLUMNS
    centred = row - mean
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / COLUMNS + epsilon)
    y = centred * scale * tl.load(weight + column) + tl.load(bias + column)
    tl.store(out + tl.program_id(0) * COLUMNS + column, y.to(tl.bfloat16))


def test_layer_norm():
    rows, columns = 8, 512
    signature = {"x": "*bf16", "weight": "*fp32", "bias": "*fp32", "out": "*bf16", "epsilon": "fp32"}
    kernel = from_triton(layer_norm, signature, {"COLUMNS": columns})
    x = (torch.randn(rows, columns) + 3).bfloat16()
    weight, bias = torch.randn(columns), torch.randn(columns)
    report, (*_, out, _) = witness(kernel, rows, lambda: [x, weight, bias, empty(rows, columns, dtype=torch.bfloat16), 1e-5])
    exact = torch.nn.functional.layer_norm(x.double(), (columns,), weight.double(), bias.double(), 1e-5)
    # The result rounded to bf16; before it, in f32, the sums of the mean and of the variance, and some ten roundings, all of
    # terms of at most |x| / deviation.
    scale = x.double().var(1, unbiased=False).rsqrt()[:, None]
    reach = x.double().abs().amax(1, keepdim=True) * scale * weight.double().abs() + bias.double().abs()
    within(out, exact, U[torch.bfloat16] * exact.abs() + (2 * columns + 10) * U[torch.float32] * reach)
    assert report.counts.unique_read_sectors == sectors(x, weight, bias)
    assert report.counts.unique_written_sectors == sectors(out)
    assert report.counts.total.sectors == sectors(x, out) + rows * sectors(weight, bias)  # the rows share them, the blocks do not
    assert report.counts.total.wavefronts == report.counts.total.ideal_wavefronts


@triton.jit
def matmul(a, b, c, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    row = (tl.program_id(0) * BM + tl.arange(0, BM))[:, None]
    column = (tl.program_id(1) * BN + tl.arange(0, BN))[None, :]
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, K, BK):
        k = start + tl.arange(0, BK)
        left = tl.load(a + row * K + k[None, :], k[None, :] < K, 0)
        right = tl.load(b + k[:, None] * N + column, k[:, None] < K, 0)
        total = tl.dot(left, right, total)
    tl.store(c + row * N + column, total)


@pytest.mark.parametrize("type_, dtype", [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)])
@pytest.mark.parametrize("k", [128, 112])  # whole tiles, and a last one that copies zeros
def test_matmul(type_, dtype, k):
    m, n, tiles = 64, 128, {"BM": 32, "BN": 64, "BK": 32}
    kernel = from_triton(matmul, {**dict.fromkeys("ab", "*" + type_), "c": "*fp32", "N": "i32", "K": "i32"}, tiles, num_stages=3)
    ptx = kernel.compiled.asm["ptx"]
    assert "cp.async.cg.shared.global" in ptx and "cp.async.wait_group" in ptx and "mma.sync" in ptx  # two tiles are under way
    a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
    grid = m // tiles["BM"], n // tiles["BN"]
    report, (*_, c, _, _) = witness(kernel, grid, lambda: [a, b, empty(m, n), n, k])
    reach = a.double().abs() @ b.double().abs()
    of_inputs = 2 * U_TF32 if dtype == torch.float32 else 0  # products of 16-bit numbers are exact
    within(c, a.double() @ b.double(), reach * (of_inputs + 2 * k * U[torch.float32]))
    assert report.counts.mma_flops == 2 * m * n * 128
    assert report.counts.unique_read_sectors == sectors(a, b)
    assert report.counts.unique_written_sectors == sectors(c) == line(report, matmul, "tl.store").sectors
    assert line(report, matmul, "left = ").sectors == grid[1] * sectors(a)
    assert line(report, matmul, "right = ").sectors == grid[0] * sectors(b)
    assert report.counts.total.sectors == report.counts.total.ideal_sectors
    assert report.counts.total.wavefronts == report.counts.total.ideal_wavefronts  # Triton's layouts are swizzled


@triton.jit
def attention(q, k, v, out, scale, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    row, column, d = tl.program_id(0) * BM + tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, D)
    query = tl.load(q + row[:, None] * D + d[None, :])
    most, total = tl.full((BM,), float("-inf"), tl.float32), tl.zeros((BM,), tl.float32)
    mixed = tl.zeros((BM, D), tl.float32)
    for start in range(0, tl.program_id(0) * BM + BM, BN):
        key = tl.load(k + (start + column)[None, :] * D + d[:, None])
        value = tl.load(v + (start + column)[:, None] * D + d[None, :])
        score = tl.where(row[:, None] >= (start + column)[None, :], tl.dot(query, key) * scale, float("-inf"))
        new = tl.maximum(most, tl.max(score, 1))
        p, kept = tl.exp(score - new[:, None]), tl.exp(most - new)
        mixed = tl.dot(p.to(value.dtype), value, mixed * kept[:, None])
        total, most = total * kept + tl.sum(p, 1), new
    tl.store(out + row[:, None] * D + d[None, :], mixed / total[:, None])


def test_causal_attention():
    t, d, bm, bn = 128, 64, 64, 32
    signature = {**dict.fromkeys("qkv", "*bf16"), "out": "*fp32", "scale": "fp32"}
    kernel = from_triton(attention, signature, {"D": d, "BM": bm, "BN": bn}, num_stages=3)
    assert "cp.async.wait_group" in kernel.compiled.asm["ptx"]
    q, k, v = (torch.randn(t, d).bfloat16() for _ in range(3))
    report, (*_, out, scale) = witness(kernel, t // bm, lambda: [q, k, v, empty(t, d), d**-0.5])
    past = torch.ones(t, t).tril().bool()
    p = ((q.double() @ k.double().T) * scale).masked_fill(~past, float("-inf")).softmax(1)
    # Each p is rounded to bf16 on its way to the second product. In f32: an error of a score is a relative one of its p, once in
    # the term and once in the sum; the two sums of t; some ten roundings at each of the t / bn rescalings.
    u = U[torch.float32]
    of_score = 2 * (d + 2) * u * (q.double().abs() @ k.double().abs().T).max() * scale
    within(out, p @ v.double(), (p @ v.double().abs()) * (U[torch.bfloat16] + 2 * of_score + 3 * t * u + 10 * (t // bn) * u))
    columns = sum(range(bm, t + 1, bm))  # that the blocks look at, up to their diagonals
    assert report.counts.mma_flops == 2 * 2 * bm * d * columns
    assert report.counts.unique_read_sectors == sectors(q, k, v)
    assert line(report, attention, "key = ").bytes == line(report, attention, "value = ").bytes == columns * d * 2
    assert report.counts.unique_written_sectors == sectors(out)
    assert report.counts.total.wavefronts == report.counts.total.ideal_wavefronts


@triton.jit
def sum_of_columns(x, out, rows, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    tile = tl.load(x + row[:, None] * COLUMNS + column[None, :], row[:, None] < rows, 0)
    tl.atomic_add(out + column, tl.sum(tile, 0))


def test_atomic_sum():
    rows, columns, tile = 100, 128, 16
    signature = {"x": "*fp32", "out": "*fp32", "rows": "i32"}
    kernel = from_triton(sum_of_columns, signature, {"ROWS": tile, "COLUMNS": columns}, divisible=("x", "out"))
    x = torch.randint(-1000, 1000, (rows, columns)).float()  # of integers, all sums are exact, in any order
    report, (_, out, _) = witness(kernel, -(-rows // tile), lambda: [x, torch.zeros(columns), rows])
    assert torch.equal(out.double(), x.double().sum(0))
    assert report.counts.total.atomics == line(report, sum_of_columns, "atomic_add").atomics == 7 * columns // 32
    assert line(report, sum_of_columns, "tl.load").sectors == sectors(x)
    assert report.counts.unique_read_sectors == sectors(x, out)
    assert report.counts.unique_written_sectors == sectors(out)


@triton.jit
def gather(table, index, out, number, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    place, column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, COLUMNS)
    from_row = tl.load(index + place, place < number, -1)[:, None]
    value = tl.load(table + from_row * COLUMNS + column[None, :], from_row >= 0, 0)
    tl.store(out + place[:, None] * COLUMNS + column[None, :], value, place[:, None] < number)


def test_gather():
    rows, columns, number = 64, 64, 50
    signature = {"table": "*fp16", "index": "*i64", "out": "*fp16", "number": "i32"}
    kernel = from_triton(gather, signature, {"COLUMNS": columns, "BLOCK": 16}, divisible=("table", "index", "out"))
    table, index = torch.randn(rows, columns).half(), torch.randint(rows, (number,))
    index[::7] = -1  # rows of zeros, of which nothing may be read
    report, (_, _, out, _) = witness(kernel, 4, lambda: [table, index, empty(number, columns, dtype=torch.float16), number])
    expected = table[index].masked_fill(index[:, None] < 0, 0)
    assert torch.equal(out, expected)
    read = index[index >= 0]
    assert line(report, gather, "value = ").bytes == len(read) * columns * 2
    assert report.counts.unique_read_sectors == sectors(table[read.unique()]) + -(-number * 8 // SECTOR)
    assert report.counts.unique_written_sectors == sectors(out)
    assert report.counts.total.atomics == report.counts.mma_flops == 0
