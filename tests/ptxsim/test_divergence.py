"""Aligned instructions that lanes may reach apart are found, with what has parted them; the same kernel without it is clean."""

import re
from pathlib import Path

import pytest

from tests import ptxsim
from tests.ptxsim.divergence import Apart, reached_apart
from tests.ptxsim.fixtures import compiled

PLANTED = Path(__file__).parent / "kernels" / "divergence.cu"
NAMES = re.findall(r"^BOTH\((\w+)", PLANTED.read_text(), re.M)


def line_of(kernel: str, mark: str) -> str:
    text = PLANTED.read_text()
    begin = re.search(rf"\bvoid {kernel}\(", text).start()
    return f"divergence.cu:{text.count(chr(10), 0, text.index(f'// {mark}', begin)) + 1}"


@pytest.mark.parametrize("name", NAMES)
def test_both_lines_are_named(name):
    found = reached_apart(compiled(PLANTED)[f"{name}ILi1E"])
    assert {(apart.instruction.split()[0], apart.branch) for apart in found} == {(line_of(name, "BUG"), line_of(name, "PARTED"))}


@pytest.mark.parametrize("name", NAMES)
def test_without_the_bug_there_is_nothing(name):
    assert reached_apart(compiled(PLANTED)[f"{name}ILi0E"]) == []


TEXT = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry kernel(.param .u32 n)
{
  .reg .b32 %r<4>; .reg .pred %p<3>;
  ld.param.u32 %r1, [n];
  mov.u32 %r2, %tid.x;
  setp.lt.u32 %p1, %r2, 32;
  setp.lt.u32 %p2, %r2, 31;
  @%p2 bra one;
  mov.u32 %r3, 1;
one:
  bar.warp.sync -1;
  movmatrix.sync.aligned.m8n8.trans.b16 %r1, %r1;
  ret;
}
"""


@pytest.mark.parametrize(
    "words, instead, branches",
    [
        ("", "", []),
        ("bar.warp.sync -1;", "", [12]),
        ("bar.warp.sync", "@%p1 bar.warp.sync", [12]),  # lanes may pass it by
        ("bar.warp.sync -1", "barrier.cta.arrive.aligned 0, 64", [12]),  # it does not wait
        ("movmatrix", "@%p1 movmatrix", []),
        ("movmatrix", "@%p2 movmatrix", [16]),
        ("@%p2 bra one", "@%p2 exit; bar.warp.sync -1; @%p1 bra one", [12]),  # no barrier brings them back
        ("setp.lt.u32 %p2, %r2, 31;", "ld.local.u32 %r3, [8]; setp.eq.u32 %p2, %r3, 0; @%p2 ret;", [11]),  # of each lane
    ],
)
def test_variations(words, instead, branches):
    found = reached_apart(ptxsim.load(TEXT.replace(words, instead) if words else TEXT)["kernel"])
    assert found == [Apart("PTX:16 movmatrix.sync.aligned.m8n8.trans.b16", f"PTX:{branch}") for branch in branches]


def test_a_call_is_not_followed():
    text = TEXT.replace(".visible", ".func parts()\n{\n ret;\n}\n.visible").replace("bar.warp.sync -1;", "call parts, ();")
    with pytest.raises(ptxsim.PtxError, match="PTX line 19: call is not followed"):
        reached_apart(ptxsim.load(text)["kernel"])
