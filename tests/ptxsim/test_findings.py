"""Every kind of mistake is found, on its line; the same kernel without it is clean."""

import re
from pathlib import Path

import pytest
import torch

from tests import ptxsim
from tests.ptxsim import empty
from tests.ptxsim.fixtures import compiled

KERNELS = Path(__file__).parent / "kernels"
BUGS = KERNELS / "bugs.cu"
I32 = torch.int32


def numbers(count=512):
    return torch.arange(1.0, count + 1)


# Of each kernel: blocks, threads, its arguments, dynamic shared bytes, the kind that is found.
RACE, UNWRITTEN = "shared-memory race: ", "read of shared memory that nobody wrote"
CASES = {
    "between_warps": (1, 128, lambda: [numbers(), empty(128)], 0, UNWRITTEN),
    "within_warp": (1, 32, lambda: [numbers(), empty(32)], 0, RACE + "read after write"),
    "overwritten": (1, 128, lambda: [numbers(), empty(128), 3], 0, RACE + "write after read"),
    "one_place": (1, 32, lambda: [empty(32)], 0, RACE + "write after write"),
    "between_blocks": (4, 32, lambda: [torch.zeros(1)], 0, "global race between blocks: write after write"),
    "last_block": (64, 32, lambda: [numbers(), empty(64), torch.zeros(1, dtype=I32), empty(1)], 0,
                   "global race between blocks: read after write"),
    "beyond_global": (1, 64, lambda: [numbers(32), empty(64), 32], 0, "out of bounds"),
    "into_the_next": (1, 32, lambda: [empty(32)], 0, "out of bounds"),
    "beyond_shared": (1, 32, lambda: [empty(32)], 128, "out of bounds"),
    "unwritten_shared": (1, 32, lambda: [empty(32)], 0, UNWRITTEN),
    "unwritten_global": (1, 32, lambda: [empty(32), empty(32)], 0, "read of global memory that nobody wrote"),
    "misaligned": (1, 16, lambda: [numbers(), empty(64)], 0, "misaligned access"),
    "part_of_a_block": (1, 64, lambda: [numbers(), empty(64)], 0, "barrier reached by part of the block"),
    "part_of_a_warp": (1, 32, lambda: [numbers(), empty(32)], 0, "barrier reached by part of a warp"),
    "deadlock": (1, 64, lambda: [empty(64)], 0, "deadlock"),
    "inactive_lane": (1, 32, lambda: [numbers(), empty(32)], 0, "operation on lanes that are not there"),
    "before_its_wait": (1, 32, lambda: [numbers(), empty(128)], 0, "cp.async data used before its wait"),
    "group_too_early": (1, 32, lambda: [numbers(), empty(128)], 0, "cp.async data used before its wait"),
    "copy_for_another": (1, 64, lambda: [numbers(), empty(256)], 0, RACE + "read after write"),
    "matrix_too_early": (1, 32, lambda: [numbers().half(), empty(32, dtype=I32)], 0, RACE + "read after write"),
}  # fmt: skip


def buggy_line(kernel: str) -> int:
    text = BUGS.read_text()
    begin = re.search(rf"\bvoid {kernel}\(", text).start()
    return text.count("\n", 0, text.index("// BUG", begin)) + 1


def launch(name, bug, seed):
    grid, block, arguments, shared_bytes, _ = CASES[name]
    return compiled(BUGS)[f"{name}ILi{bug}E"].launch(grid, block, arguments(), shared_bytes, seed=seed)


@pytest.mark.parametrize("name", CASES)
def test_a_planted_bug_is_found_at_its_line(name):
    kind, where = CASES[name][-1], f"bugs.cu:{buggy_line(name)} "
    for seed in (0, 3):
        found = [finding for finding in launch(name, 1, seed).findings if finding.where.startswith(where)]
        assert kind in [finding.kind for finding in found] or seed != 0
        assert found, f"seed {seed}"


@pytest.mark.parametrize("name", CASES)
def test_without_the_bug_it_is_clean(name):
    for seed in range(4):
        launch(name, 0, seed).assert_clean()


def test_every_kernel_of_the_file_is_asked():
    assert set(re.findall(r"^BOTH\((\w+)", BUGS.read_text(), re.M)) == set(CASES)


def test_both_parties_of_a_race_are_named():
    (finding,) = launch("within_warp", 1, 0).findings
    line = buggy_line("within_warp")
    assert finding.where.startswith(f"bugs.cu:{line} ") and finding.other.startswith(f"bugs.cu:{line - 2} ")
    assert "warp 0 lane 0 and warp 0 lane 31 of block 0, byte 124 of row" in finding.detail
    found = {finding.where.split()[0]: finding.detail for finding in launch("deadlock", 1, 0).findings}
    line = buggy_line("deadlock")
    assert f"bugs.cu:{line}" in found and f"bugs.cu:{line + 1}" in found
    assert "warp 0 lanes 0xffffffff wait at barrier 1" in found[f"bugs.cu:{line}"]


def test_a_bad_access_does_not_reach_memory():
    neighbours = torch.zeros(64)
    report = compiled(BUGS)["beyond_globalILi1E"].launch(1, 64, [numbers(64), neighbours[:32], 32])
    assert [finding.kind for finding in report.findings] == ["out of bounds"]
    assert (neighbours[32:] == 0).all() and torch.equal(neighbours[:32], numbers(32))


POINTER = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry read(.param .u64 p, .param .u64 out)
{
  .reg .b64 %rd<3>; .reg .f32 %f<2>;
  ld.param.u64 %rd1, [p]; ld.param.u64 %rd2, [out];
  ld.global.f32 %f1, [%rd1];
  st.global.f32 [%rd2], %f1;
  ret;
}
"""


def test_memory_of_an_earlier_launch_is_named():
    kernel = ptxsim.load(POINTER)["read"]
    old, out = numbers(4), empty(1)
    kernel.launch(1, 1, [old, out]).assert_clean()
    (finding,) = kernel.launch(1, 1, [old.data_ptr() + 4, empty(1)]).findings
    assert finding.kind == "out of bounds"
    assert "byte 4 of argument 0 (4,) float32, which belongs to an earlier launch" in finding.detail
    (finding,) = kernel.launch(1, 1, [0, empty(1)]).findings
    assert finding.kind == "out of bounds"


def test_constant_memory_is_not_written():
    text = POINTER.replace(".visible .entry", ".const .align 4 .f32 table[2] = {0f3F800000, 0f40000000};\n.visible .entry")
    text = text.replace("st.global.f32", "mov.u64 %rd2, table; cvta.const.u64 %rd2, %rd2; st.global.f32")
    (finding,) = ptxsim.load(text)["read"].launch(1, 1, [numbers(4), empty(1)]).findings
    assert finding.kind == "write to constant memory"


def test_a_result_that_hangs_on_the_order_is_a_finding():
    kernel, arguments = compiled(KERNELS / "machine.cu")["first_come"], [torch.tensor([-1], dtype=I32), torch.zeros(1, dtype=I32)]
    report = kernel.launch(1, 128, arguments, seed=tuple(range(6)))
    assert {finding.kind for finding in report.findings} == {"result changes with the interleaving"}
    kernel = compiled(BUGS)["last_blockILi0E"]
    for _ in range(20):  # each seed on several host threads, which meet elsewhere every time
        kernel.launch(64, 32, CASES["last_block"][2](), seed=tuple(range(6))).assert_clean()


def test_lanes_of_a_warp_may_write_the_same_value():
    text = POINTER.replace("ld.global.f32 %f1, [%rd1];", "mov.f32 %f1, 0f3F800000;")
    ptxsim.load(text)["read"].launch(1, 32, [numbers(4), empty(1)]).assert_clean()
    text = POINTER.replace("ld.global.f32 %f1, [%rd1];", ".reg .u32 %r1; mov.u32 %r1, %tid.x; cvt.rn.f32.u32 %f1, %r1;")
    kinds = {finding.kind for finding in ptxsim.load(text)["read"].launch(1, 32, [numbers(4), empty(1)]).findings}
    assert kinds == {"global race: write after write"}


def test_an_endless_loop_ends():
    text = POINTER.replace("ld.global.f32 %f1, [%rd1];", "again: ld.global.f32 %f1, [%rd1]; bra again;")
    (finding,) = ptxsim.load(text)["read"].launch(1, 1, [numbers(4), empty(1)], check=False).findings
    assert finding.kind == "endless loop"
