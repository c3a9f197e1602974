"""`.aligned` instructions (ldmatrix, movmatrix, mma, ..) that lanes of a warp may reach apart, found in the text of a kernel.

All lanes of a warp must run such an instruction together. The simulator brings lanes that a branch has parted together where its
ways meet (its immediate post-dominator); a GPU need not: only a barrier promises that they are together again.

Lane-dependent are %tid, %laneid and the other special registers but those of _OF_A_WARP; what an atomic, a local or volatile
load, or an instruction among lanes gives; what is made of these; and all that is written where a lane-dependent branch has parted
the lanes, until its ways meet. Not so are %tid.x divided by 32 or compared with a multiple of it, and what a vote or redux of the
full mask gives. Loads from one address give all lanes the same, for races are a launch's to find.

Barriers are bar.warp.sync of the full mask, and bar and barrier of the block (aligned by the letter; here they are CUDA's
__syncthreads, at which lanes may arrive one by one). Between a branch and where its ways meet they do not help. shfl.sync and
vote.sync are none: a lane waits for the others' values there, which does not say that it goes on with them.

Limits: a branch counts whether or not lanes ever differ at it; blocks are as wide as whole warps, or of one dimension; calls and
indirect branches raise PtxError; the branches that ptxas adds and removes are not seen.
"""

import collections
import functools
import itertools
import re
from dataclasses import dataclass

from .lowering import NO_DESTINATION, joins_of
from .module import Kernel
from .parser import Function, PtxError, Statement
from .report import source_of

_OF_A_WARP = {f"%{name}.{axis}" for name in ("ntid", "ctaid", "nctaid") for axis in "xyz"}
_OF_A_WARP |= {"%warpid", "%nwarpid", "%smid", "%dynamic_smem_size", "%total_smem_size"}
_JUMPS = ("bra", "ret", "exit", "trap")


@dataclass(frozen=True)
class Apart:
    instruction: str  # its source line and opcode
    branch: str  # the source line of what may have parted the lanes: a branch, or the instruction's own guard

    def __str__(self) -> str:
        return f"{self.instruction}: lanes that {self.branch} may have parted have met at no barrier"


def reached_apart(kernel: Kernel) -> list[Apart]:
    """Every such instruction with each branch that may have parted the lanes. Raises PtxError for what is not followed."""
    code = kernel.function.statements
    if not any(map(_is_aligned, code)):
        return []
    flow = _Flow(kernel.function)
    lanes = _Lanes(kernel.function, flow)
    found = {}
    for number, parted_by in enumerate(_parted_by(flow, lanes)):
        for at in flow.blocks[number]:
            if lanes.is_barrier(code[at]):
                parted_by &= lanes.not_met[number]
            elif _is_aligned(code[at]):
                branches = [flow.blocks[block][-1] for block in sorted(parted_by)]
                branches += [at] if code[at].guard.lstrip("!") in lanes.dependent else []
                what = f"{source_of(code[at])} {code[at].opcode}"
                found |= dict.fromkeys(Apart(what, source_of(code[branch])) for branch in branches)
    return list(found)


def _parted_by(flow: "_Flow", lanes: "_Lanes") -> list[set[int]]:
    """Of each block, the blocks whose ends may have parted the lanes that come to it."""
    has_barrier = [any(lanes.is_barrier(lanes.code[at]) for at in block) for block in flow.blocks]
    before: list[set[int]] = [set() for _ in flow.blocks]
    todo = set(range(len(flow.blocks)))
    while todo:
        block = todo.pop()
        after = before[block] & lanes.not_met[block] if has_barrier[block] else before[block]
        after = after | ({block} & lanes.parting)
        for follower in flow.after[block]:
            if follower < len(flow.blocks) and not after <= before[follower]:
                before[follower] |= after
                todo.add(follower)
    return before


class _Flow:
    """The blocks of statements between branches, and those that may follow each; their number stands for the kernel's end."""

    def __init__(self, function: Function):
        after = [_followers(function, at) for at in range(len(function.statements))]
        ends = [at for at, followers in enumerate(after) if followers != [at + 1]]
        starts = sorted({0, len(after), *(at + 1 for at in ends), *itertools.chain(*(after[at] for at in ends))})
        number = {start: place for place, start in enumerate(starts)}
        self.blocks = [range(start, stop) for start, stop in itertools.pairwise(starts)]
        self.after = [[number[follower] for follower in after[block[-1]]] for block in self.blocks]
        self.meets = joins_of(self.after, range(len(self.blocks)))

    def until_met(self, block: int) -> set[int]:
        """The blocks that lanes parted at the end of this one may come to before its ways meet."""
        beyond, found, todo = {self.meets[block], len(self.blocks)}, set(), list(self.after[block])
        while todo:
            if (one := todo.pop()) not in found and one not in beyond:
                found.add(one)
                todo += self.after[one]
        return found


class _Lanes:
    """dependent: the registers that may differ between lanes. parting: the blocks whose ends part lanes. not_met: of each block,
    those of them whose ways have not met there."""

    def __init__(self, function: Function, flow: _Flow):
        self.code, self.flow = function.statements, flow
        self.written, read = zip(*map(_registers, self.code))
        self.readers = collections.defaultdict(list)
        for at, names in enumerate(read):
            for name in names:
                self.readers[name].append(at)
        self._find_copies()
        self.parting: set[int] = set()
        self.not_met: list[set[int]] = [set() for _ in flow.blocks]
        self.dependent = {name for name in self.readers if name not in function.registers} - _OF_A_WARP
        self.todo = list(self.dependent)
        for at, statement in enumerate(self.code):
            if _differs(statement) and not self._is_of_a_warp(statement):
                self._write(at)
        block_of = {block[-1]: number for number, block in enumerate(flow.blocks)}
        while self.todo:
            name = self.todo.pop()
            for at in self.readers[name]:
                is_guard = self.code[at].guard.lstrip("!") == name
                if is_guard and _words(self.code[at].opcode)[0] in _JUMPS:
                    self._part(block_of[at])
                elif is_guard or not self._is_of_a_warp(self.code[at]):
                    self._write(at)

    def _find_copies(self) -> None:
        """Registers that hold %tid.x or the mask of all lanes and nothing else."""
        self.thread, self.full = {"%tid.x"}, set()
        times = collections.Counter(itertools.chain(*self.written))
        for statement in self.code:
            if statement.opcode.startswith(("mov.", "cvt.u64.u32")) and times[statement.operands[0]] == 1:
                copy, source = statement.operands
                self.thread |= {copy} if source in self.thread else set()
                self.full |= {copy} if self._is_full(source) else set()

    def _is_full(self, mask: str) -> bool:
        return mask in self.full or _number(mask) in (-1, 0xFFFFFFFF)

    def is_barrier(self, statement: Statement) -> bool:
        """Not if it is guarded: lanes may then pass it by."""
        name, how = _words(statement.opcode)
        if name not in ("bar", "barrier") or "arrive" in how or statement.guard:
            return False
        return "warp" not in how or self._is_full(statement.operands[0])

    def _is_of_a_warp(self, statement: Statement) -> bool:
        """Whether all lanes get the same, whatever each gives."""
        name, how = _words(statement.opcode)
        if name in ("vote", "redux"):
            return self._is_full(statement.operands[-1])
        if len(statement.operands) != 3 or statement.operands[1] not in self.thread:
            return False
        if (number := _number(statement.operands[2])) is None:
            return False
        edge = {"lt": 0, "ge": 0, "gt": 31, "le": 31}.get(how[0])
        return {"shr": number >= 5, "and": number % 32 == 0, "setp": number % 32 == edge}.get(name, False)

    def _part(self, block: int) -> None:
        self.parting.add(block)
        for one in self.flow.until_met(block):
            self.not_met[one].add(block)
            for at in self.flow.blocks[one]:
                self._write(at)

    def _write(self, at: int) -> None:
        new = self.written[at] - self.dependent
        self.dependent |= new
        self.todo += new


@functools.cache
def _words(opcode: str) -> tuple[str, list[str]]:
    name, *how = opcode.split(".")
    return name, how


def _followers(function: Function, at: int) -> list[int]:
    statement = function.statements[at]
    name, _ = _words(statement.opcode)
    if name in ("call", "brx"):
        raise PtxError(f"PTX line {statement.line}: {statement.opcode} is not followed")
    if name not in _JUMPS:
        return [at + 1]
    target = function.labels[statement.operands[0]] if name == "bra" else len(function.statements)
    return [target, at + 1] if statement.guard else [target]


def _registers(statement: Statement) -> tuple[set[str], set[str]]:
    """Those that it writes and those that it reads, of which its guard is one."""
    name, how = _words(statement.opcode)
    count = int(name not in NO_DESTINATION or "red" in how)  # bar.red
    written, read = statement.operands[:count], [*statement.operands[count:], statement.guard]
    return {*re.findall(r"%[\w$.]+", " ".join(written))}, {*re.findall(r"%[\w$.]+", " ".join(read))}


def _differs(statement: Statement) -> bool:
    """Whether lanes may get different results of the same operands."""
    name, how = _words(statement.opcode)
    if name in ("ld", "ldu"):
        return not {"param", "global", "shared", "const"} & {*how} or bool({"volatile", "relaxed", "acquire"} & {*how})
    return name in ("atom", "activemask") or "sync" in how


def _is_aligned(statement: Statement) -> bool:
    name, how = _words(statement.opcode)
    return "aligned" in how and name not in ("bar", "barrier")


def _number(text: str) -> int | None:
    return int(text.rstrip("U"), 0) if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", text) else None
