"""wgmma: where a warpgroup's matrices lie, in registers and in shared memory, and what it may not meet until its wait.

The layouts are those of the PTX ISA 9.x document, 9.7.15.5, "Asynchronous wgmma Instructions": its canonical layouts, T being the
elements of 16 bytes, as shapes and strides, which `offset` reads from the first to the last.
"""

import itertools
from dataclasses import dataclass

import pytest
import torch

from tests import ptxsim
from tests.ptxsim import PtxError, empty

from .test_layouts import BF16, F16, F32, I32, A, c_or_d, integers, load_all, places, store_all, vector

THREADS, ROWS = 128, 64
TYPES = {"f16": (F16, 16), "bf16": (BF16, 16), "tf32": (F32, 8)}
SWIZZLES = {"none": (0, 1), "32B": (3, 2), "64B": (2, 4), "128B": (1, 8)}  # as a descriptor has it; units of 16 bytes in a row
MMA = "wgmma.mma_async"
GAP = 1024  # the repeating pattern of the widest swizzle


def offset(index: int, shape: tuple, stride: tuple) -> int:
    total = 0
    for extent, step in zip(shape, stride):
        total, index = total + index % extent * step, index // extent
    assert index == 0
    return total


@dataclass(frozen=True)
class Stored:
    """A matrix in shared memory: `outer` rows of A, or columns of B, by k elements; k is contiguous if it is not transposed."""

    outer: int
    k: int
    type: str
    swizzle: str
    transposed: bool

    @property
    def strides(self) -> tuple[int, int]:
        """Leading and stride bytes; with gaps between what they step over, so that neither is what the other would be."""
        row = 16 * SWIZZLES[self.swizzle][1]
        if self.transposed:
            return (GAP, 2 * GAP) if row == 16 else (4 * GAP, 2 * GAP)
        return (GAP // 2, 3 * GAP) if row == 16 else (16, 8 * row + GAP)

    def byte(self, outer: int, k: int) -> int:
        dtype, _ = TYPES[self.type]
        width, size, (leading, stride) = SWIZZLES[self.swizzle][1], dtype.itemsize, self.strides
        T, LBO, SBO, many = 16 // size, leading // size, stride // size, 256
        if not self.transposed:
            at = offset(outer, (8, many), (width * T, SBO)) + offset(k, (T, 2), (1, LBO if width == 1 else T))
        elif width == 1:
            at = offset(outer, (T, many), (1, SBO)) + offset(k, (8, many), (T, LBO))
        else:
            at = offset(outer, (T, width, many), (1, T, LBO)) + offset(k, (8, many), (width * T, SBO))
        row, unit = divmod(at * size // 16, 8)  # swizzled by the row of 128 bytes that it lies in
        return 128 * row + 16 * (unit ^ (row % width)) + at * size % 16

    def image(self, matrix) -> torch.Tensor:
        """Its bytes, from matrix [outer, k]."""
        at = torch.tensor([[self.byte(outer, k) for k in range(self.k)] for outer in range(self.outer)])
        bytes_ = torch.zeros(-(-(int(at.max()) + 4) // GAP) * GAP, dtype=torch.uint8)
        places = at[..., None] + torch.arange(matrix.element_size())
        assert places.unique().numel() == places.numel()
        bytes_[places] = matrix.contiguous().view(torch.uint8).view(places.shape)
        return bytes_

    def descriptor(self, start: int) -> int:
        leading, stride = self.strides
        return start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | SWIZZLES[self.swizzle][0] << 62


def kernel(body: str, shared: int, parameters: str = ".param .u64 image, .param .u64 out", d: int = 4):
    """Of four warps. `%out` is the address of the thread's accumulators, `%shared` that of the buffer."""
    return ptxsim.load(f"""
.version 8.0
.target sm_90a
.address_size 64
.visible .entry one({parameters})
{{
.reg .b32 %tid, %warp, %shared, %to, %end, %d_<{d}>, %a_<4>, %v_<4>, %w;
.reg .b64 %image, %out, %a, %at, %b_desc, %a_desc;
.reg .pred %p, %more, %some;
.shared .align 1024 .b8 buffer[{shared}];
mov.u32 %tid, %tid.x;
shr.u32 %warp, %tid, 5;
mov.u32 %shared, buffer;
ld.param.u64 %image, [image];
ld.param.u64 %out, [out];
mad.wide.u32 %out, %tid, {4 * d}, %out;
{body}
ret;
}}
""")["one"]


def copy_in(bytes_: int) -> str:
    return f"""mad.lo.u32 %to, %tid, 16, %shared;
mad.wide.u32 %at, %tid, 16, %image;
add.u32 %end, %shared, {bytes_};
copy:
ld.global.v4.b32 {vector("v", 4)}, [%at];
st.shared.v4.b32 [%to], {vector("v", 4)};
add.u32 %to, %to, {16 * THREADS};
add.u64 %at, %at, {16 * THREADS};
setp.lt.u32 %more, %to, %end;
@%more bra copy;
fence.proxy.async.shared::cta;
bar.sync 0;
"""


def of_threads(d, n):
    """[64, n] from the accumulators of each thread, [128, n / 2]."""
    tiles = d.view(4, 32, n // 8, 4)  # warps, lanes, 8 columns each, elements of a lane
    rows, columns = places(c_or_d, 4)
    matrix = torch.empty(4, 16, n // 8, 8)
    matrix[:, rows, :, columns] = tiles.permute(1, 3, 0, 2)
    return matrix.view(ROWS, n)


def fragments(a, k):
    """The four registers of A of each thread, [128, 4] words."""
    rows, columns = places(A[k, 8 * a.element_size()], 16 * k // 32)
    return a.view(4, 16, k)[:, rows, columns].contiguous().view(I32).view(THREADS, 4)


def multiply(type_, n, a, b, a_in, b_in, d=None, scales="1, 1"):
    """D, from A [64, k], which is in registers where a_in is None, and B [n, k]. d: what there is; None: it is not added."""
    k = TYPES[type_][1]
    images = [] if a_in is None else [a_in.image(a)]
    b_start = sum(map(len, images))
    image = torch.cat([*images, b_in.image(b)])
    image = torch.cat([image, image.new_zeros(-len(image) % (16 * THREADS))])
    first = "%a_desc" if a_in else vector("a", 4)
    transposes = "" if type_ == "tf32" else "".join(f", {int(one.transposed)}" for one in (a_in, b_in) if one)
    body = copy_in(len(image)) + load_all("d", n // 2).replace("[%d ", "[%out ")
    body += "ld.param.u64 %a, [a];\nmad.wide.u32 %a, %tid, 16, %a;\n" + load_all("a", 4)
    accumulators = vector("d", n // 2)
    body += f"""mov.b64 %b_desc, {b_in.descriptor(b_start)};
mov.b64 %a_desc, {a_in.descriptor(0) if a_in else 0};
wgmma.fence.sync.aligned;
{MMA}.sync.aligned.m64n{n}k{k}.f32.{type_}.{type_} {accumulators}, {first}, %b_desc, {int(d is not None)}, {scales}{transposes};
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0;
"""
    body += store_all("d", n // 2).replace("[%d ", "[%out ")
    out = torch.full((THREADS, n // 2), float("nan")) if d is None else d.clone()
    run = kernel(body, len(image), ".param .u64 image, .param .u64 out, .param .u64 a", n // 2)
    report = run.launch(1, THREADS, [image, out, fragments(a, k)], threads=1).assert_clean()
    assert report.counts.mma_flops == 2 * ROWS * n * k and report.counts.instructions["tensor"] == 4
    return of_threads(out, n)


FORMS = [
    (type_, swizzle, *transposed)
    for type_, swizzle, *transposed in itertools.product(TYPES, SWIZZLES, [False, True], [False, True])
    if type_ != "tf32" or not any(transposed)
]


@pytest.mark.parametrize("type_, swizzle, transpose_a, transpose_b", FORMS)
def test_where_elements_lie(type_, swizzle, transpose_a, transpose_b):
    dtype, k = TYPES[type_]
    for n in (24, 256):
        a, b = integers(-8, 8, ROWS, k, dtype=dtype), integers(-8, 8, n, k, dtype=dtype)
        a_in, b_in = Stored(ROWS, k, type_, swizzle, transpose_a), Stored(n, k, type_, swizzle, transpose_b)
        for first in (a_in,) if transpose_a or n > 24 else (a_in, None):
            assert torch.equal(multiply(type_, n, a, b, first, b_in), (a.double() @ b.double().T).float())


@pytest.mark.parametrize("type_", TYPES)
def test_scales(type_):
    dtype, k = TYPES[type_]
    a, b = integers(-8, 8, ROWS, k, dtype=dtype), integers(-8, 8, 16, k, dtype=dtype)
    stored = Stored(ROWS, k, type_, "none", False), Stored(16, k, type_, "64B", False)
    d = torch.arange(THREADS * 8.0).view(THREADS, 8)
    for of_a, of_b in itertools.product((1, -1), repeat=2):
        expected = of_threads(d, 16) + of_a * of_b * (a.double() @ b.double().T).float()
        assert torch.equal(multiply(type_, 16, a, b, *stored, d, f"{of_a}, {of_b}"), expected)


# ---- what is found

A_BYTES, B_BYTES = 64 * 32, 8 * 32  # m64n8k16 of f16, not swizzled: core matrices of 128 bytes, which follow each other along k
A_DESC, B_DESC = ((start >> 4) | 128 >> 4 << 16 | 256 >> 4 << 32 for start in (0, A_BYTES))
PRODUCT = f"{MMA}.sync.aligned.m64n8k16.f32.f16.f16 {vector('d', 4)}"
STORES = store_all("d", 4).replace("[%d ", "[%out ")
CLEAN = f"""{copy_in(A_BYTES + B_BYTES)}mov.b64 %a_desc, {A_DESC};
mov.b64 %b_desc, {B_DESC};
mov.b32 %a_0, 0; mov.b32 %a_1, 0; mov.b32 %a_2, 0; mov.b32 %a_3, 0;
wgmma.fence.sync.aligned;
{PRODUCT}, %a_desc, %b_desc, 0, 1, 1, 0, 0;
wgmma.commit_group.sync.aligned;
setp.ge.s32 %p, %tid, 0;
{PRODUCT}, {vector("a", 4)}, %b_desc, %p, 1, 1, 0;
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 0;
bar.sync 0;
st.shared.b32 [%shared + {A_BYTES}], %a_0;
{STORES}"""
SHARED_STORE, WAIT = f"st.shared.b32 [%shared + {A_BYTES}], %a_0;\n", "wgmma.wait_group.sync.aligned 0;\n"
COPY = """mad.lo.u32 %to, %tid, 16, %shared;
mad.wide.u32 %at, %tid, 16, %image;
cp.async.cg.shared.global [%to], [%at], 16;
cp.async.wait_all;
fence.proxy.async.shared::cta;
bar.sync 0;
wgmma.fence"""
AGAIN, NEXT = f"{PRODUCT}, %a_desc, %b_desc, 0, 1, 1, 0, 0;\n", "setp.ge.s32 %p, %tid, 0"
FENCE, PROXY, BARRIER = "wgmma.fence.sync.aligned;\n", "fence.proxy.async.shared::cta;\n", "bar.sync 0;\n"

EARLY, WRITTEN = "wgmma registers used before its wait", "shared memory written while wgmma reads it"
TOGETHER, LANES = "wgmma by a part of its warpgroup", "operation on lanes that are not there"
PENDING_COPY, OUTSIDE = "cp.async data used before its wait", "out of bounds"
DIFFER, BASE = "wgmma operands that differ between lanes", "wgmma descriptor with a base offset"
NO_FENCE = "wgmma without wgmma.fence after its registers were used"
RACE, LATE = "shared-memory race: read after write", "shared-memory race: write after read"
NO_PROXY = "wgmma without fence.proxy.async after its shared memory was written"
# Of each fault: what of the program is replaced, by what, the kind that is found, and at which instruction.
FAULTS = {
    "accumulator-read": (WAIT, f"st.global.b32 [%out], %d_0;\n{WAIT}", EARLY, "st.global.b32"),
    "accumulator-written": (WAIT, f"mov.b32 %d_3, 0;\n{WAIT}", EARLY, "mov.b32"),
    "a-written": (WAIT, f"mov.b32 %a_2, 0;\n{WAIT}", EARLY, "mov.b32"),
    "accumulator-as-a": (f"{PRODUCT}, {vector('a', 4)}", f"{PRODUCT}, {{%d_0, %a_1, %a_2, %a_3}}", EARLY, MMA),
    "wait-of-too-few": (WAIT, WAIT.replace("0;", "1;"), EARLY, "st.global.b32"),
    "never-committed": (f"wgmma.commit_group.sync.aligned;\n{WAIT}", WAIT, EARLY, "st.global.b32"),
    "no-wait": (WAIT, "", WRITTEN, "st.shared.b32"),
    "shared-written": (WAIT, SHARED_STORE + WAIT, WRITTEN, "st.shared.b32"),
    "a-in-shared-written": (WAIT, f"st.shared.b32 [%shared + {A_BYTES - 4}], %a_0;\n{WAIT}", WRITTEN, "st.shared.b32"),
    "copied-over": (WAIT, f"cp.async.ca.shared.global [%shared], [%image], 4;\n{WAIT}", WRITTEN, "cp.async.ca"),
    "no-barrier-after": (WAIT + BARRIER, f"{WAIT}setp.eq.u32 %some, %warp, 2;\n@%some ", LATE, "st.shared.b32"),
    "no-fence": (FENCE, "", NO_FENCE, MMA),
    "fence-before-a-write": (FENCE, f"{FENCE}mov.b32 %a_1, 0;\n", NO_FENCE, MMA),
    "no-proxy-fence": (PROXY, "", NO_PROXY, MMA),
    "written-after-the-proxy-fence": (PROXY, PROXY + SHARED_STORE.replace("%a_0", "0"), NO_PROXY, MMA),
    "proxy-fence-of-a-lane": (PROXY, f"setp.eq.s32 %some, %tid, 0;\n@%some {PROXY}", NO_PROXY, MMA),
    "no-barrier-before": (PROXY + BARRIER, PROXY, RACE, MMA),
    "copy-without-its-wait": ("wgmma.fence", COPY.replace("cp.async.wait_all;\n", ""), PENDING_COPY, MMA),
    "copy-without-a-proxy-fence": ("wgmma.fence", COPY.replace(PROXY, ""), NO_PROXY, MMA),
    "a-warp-missing": (NEXT, f"setp.ge.s32 %some, %tid, 96;\n@%some bra after;\n{AGAIN}after:\n{NEXT}", TOGETHER, MMA),
    "a-warp-with-another-descriptor": (FENCE, f"setp.ge.s32 %some, %tid, 96;\n@%some add.u64 %a_desc, %a_desc, 1;\n{FENCE}",
                                       TOGETHER, MMA),
    "lanes-missing": (NEXT, f"and.b32 %w, %tid, 1;\nsetp.eq.u32 %some, %w, 0;\n@%some {AGAIN}{NEXT}", "deadlock", MMA),
    "lanes-that-have-left": (FENCE, f"setp.eq.s32 %some, %tid, 9;\n@%some ret;\n{FENCE}", LANES, "wgmma.fence"),
    "lanes-that-differ": (NEXT, "setp.ge.s32 %p, %tid, 5", DIFFER, MMA),
    "outside-of-shared-memory": (f"%b_desc, {B_DESC}", f"%b_desc, {B_DESC + 8}", OUTSIDE, MMA),
    "far-outside": (f"%a_desc, {A_DESC}", f"%a_desc, {A_DESC | 0x3fff}", OUTSIDE, MMA),
    "base-offset": (f"%b_desc, {B_DESC}", f"%b_desc, {B_DESC | 1 << 49}", BASE, MMA),
    "unwritten": ("[%to], {%v_0", "[%shared], {%v_0", "read of shared memory that nobody wrote", MMA),
}  # fmt: skip


def run(body: str, threads: int = THREADS, seed=0):
    image, out = torch.zeros(2 * (A_BYTES + B_BYTES), dtype=torch.uint8), empty(THREADS, 4)
    return kernel(body, A_BYTES + B_BYTES).launch(1, threads, [image, out], seed=seed)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_at_its_line(name):
    old, new, kind, where = FAULTS[name]
    assert CLEAN.count(old) == 1
    for seed in range(3):
        found = run(CLEAN.replace(old, new), seed=seed).findings
        assert any(one.kind == kind and f": {where}" in one.where for one in found) or (found and seed), found


def test_without_a_fault_it_is_clean():
    for seed in range(4):
        run(CLEAN, seed=seed).assert_clean()


def test_a_block_without_four_warps():
    found = {one.kind: one.detail for one in run(CLEAN.replace(str(16 * THREADS), str(16 * 96)), threads=96).findings}
    assert found == {TOGETHER: "warp 3 of block 0 has issued 0 of the 2 products of its warpgroup"}


def test_both_parties_are_named():
    found = run(CLEAN.replace(WAIT, SHARED_STORE + WAIT)).findings
    (one,) = [one for one in found if one.kind == WRITTEN]
    assert "st.shared.b32" in one.where and "wgmma.mma_async" in one.other and f"byte {A_BYTES} of buffer" in one.detail


def test_the_barrier_of_a_fence_may_come_first():
    run(CLEAN.replace(PROXY + BARRIER, BARRIER + PROXY)).assert_clean()


BAD = {
    "m64n8k16.f16.f16.f16": "no such shape and types", "m64n12k16.f32.f16.f16": "no such shape and types",
    "m64n8k16.f32.tf32.tf32": "no such shape and types", "m64n8k32.f32.e4m3.e4m3": "no such shape and types",
    "sp.m64n8k16.f32.f16.f16": "modifier .sp is not known here",
}  # fmt: skip


@pytest.mark.parametrize("form", BAD)
def test_other_forms_are_errors_with_their_line(form):
    with pytest.raises(PtxError, match=rf"PTX line \d+: {BAD[form]}"):
        kernel(CLEAN.replace("m64n8k16.f32.f16.f16", form), 4096).decode()
