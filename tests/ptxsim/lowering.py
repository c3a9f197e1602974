"""From a parsed kernel to what the core decodes: control flow, registers in few places, operands as numbers."""

import functools
import heapq
import re
from dataclasses import dataclass, replace

from .parser import TYPE_BYTES, Function, Module, PtxError, Statement, Variable, split_operands

# The kinds of an operand, as core/decode.h has them.
REGISTER, INTEGER, FLOAT32, FLOAT64, SINK, SPECIAL, PARAMETER, VARIABLE, LABEL, FUNCTION = range(10)

_SPECIALS = (
    "%tid.x %tid.y %tid.z %ntid.x %ntid.y %ntid.z %ctaid.x %ctaid.y %ctaid.z %nctaid.x %nctaid.y %nctaid.z %laneid %warpid "
    "%nwarpid %lanemask_eq %lanemask_lt %lanemask_le %lanemask_gt %lanemask_ge %dynamic_smem_size %total_smem_size %smid"
)
SPECIALS = {name: place for place, name in enumerate(_SPECIALS.split())}
CLOCK = SPECIALS["%smid"] + 100
CLOCKS = ("%clock", "%clock64", "%clock_hi", "%globaltimer", "%globaltimer_lo")
NO_DESTINATION = {
    "st", "red", "bra", "bar", "barrier", "membar", "fence", "cp", "ret", "exit", "nanosleep", "stmatrix", "griddepcontrol",
    "prefetch", "prefetchu", "trap", "discard", "brkpt", "call",
}  # fmt: skip
SHARED_ALIGN = 16
SHARED_GAP = 128  # between arrays, so that none reaches into the next; once around the banks, which leaves conflicts as they are


@dataclass
class Lowered:
    opcodes: list[str]
    words: list[int]
    header: list[int]  # register bytes, static shared bytes, parameter bytes, local bytes
    shared: list[Variable]  # static arrays
    shared_offsets: list[int]
    statements: list[Statement]
    registers: int  # most 32-bit registers live at once


def lower(module: Module, kernel: Function, specials_bytes: int) -> Lowered:
    return _Lowering(module, kernel, specials_bytes).lower()


class _Lowering:
    def __init__(self, module: Module, kernel: Function, specials_bytes: int):
        self.module, self.kernel, self.specials_bytes = module, kernel, specials_bytes
        self.functions = _reachable(module, kernel)
        self.statements: list[Statement] = []
        self.owner: list[Function] = []
        self.entry: dict[str, int] = {}
        self.registers: dict[str, str] = {}
        self.local_offsets: dict[str, int] = {}
        self.local_bytes = 0

    def lower(self) -> Lowered:
        for function in self.functions:
            self._place(function)
        self._lay_out_memory()
        parsed = [[_operand(text) for text in statement.operands] for statement in self.statements]
        successors = [self._successors(at) for at in range(len(self.statements))]
        joins = joins_of(successors, self._branches())
        slots, register_bytes, most = self._allocate(parsed, successors)
        opcodes: dict[str, int] = {}
        words: list[int] = []
        meeting = {join for join in joins.values() if join >= 0}
        meeting |= {at + 1 for at, s in enumerate(self.statements) if s.opcode.split(".")[0] == "call"}
        for at, statement in enumerate(self.statements):
            words.append(opcodes.setdefault(statement.opcode, len(opcodes)))
            if statement.guard:
                name = statement.guard.lstrip("!")
                words += [1, slots[self._qualified(at, name)], int(statement.guard.startswith("!"))]
            else:
                words += [0, -1, 0]
            words += [joins.get(at, -1), int(at in meeting), len(parsed[at])]
            for group in parsed[at]:
                words.append(len(group))
                for atom in group:
                    words += self._encode(at, atom, slots)
        static = self.shared_bytes
        header = [register_bytes, static, self.kernel.parameter_bytes, self.local_bytes]
        shared = self._static_shared()
        offsets = [self.shared_offsets[variable.name] for variable in shared]
        return Lowered(list(opcodes), words, header, shared, offsets, self.statements, most)

    # ---- functions one after the other

    def _place(self, function: Function) -> None:
        self.entry[function.name] = len(self.statements)
        function.first = len(self.statements)
        for statement in function.statements:
            self.statements.append(statement)
            self.owner.append(function)
        if not function.statements or function.statements[-1].opcode.split(".")[0] not in ("ret", "exit", "bra", "trap"):
            self.statements.append(Statement("ret", [], line=function.statements[-1].line if function.statements else 0))
            self.owner.append(function)
        for name, type_ in function.registers.items():
            self.registers[f"{function.name}/{name}"] = type_

    def _qualified(self, at: int, name: str) -> str:
        return f"{self.owner[at].name}/{name}"

    def _lay_out_memory(self) -> None:
        self.shared_offsets: dict[str, int] = {}
        offset = 0
        for variable in self._static_shared():
            offset = -(-offset // max(variable.align, 1)) * max(variable.align, 1)
            self.shared_offsets[variable.name] = offset
            offset += variable.bytes + SHARED_GAP
        self.shared_bytes = -(-offset // SHARED_ALIGN) * SHARED_ALIGN if self.module.dynamic_shared else offset
        for name in self.module.dynamic_shared:
            self.shared_offsets[name] = self.shared_bytes
        for function in self.functions:
            blocks = [*function.local, *function.call_parameters]
            if not function.is_kernel:
                blocks += [*function.parameters, *function.results]
            for block in blocks:
                align = getattr(block, "align", 16)
                self.local_bytes = -(-self.local_bytes // align) * align
                self.local_offsets[f"{function.name}/{block.name}"] = self.local_bytes
                self.local_bytes += block.bytes
        self.local_bytes = -(-self.local_bytes // 16) * 16

        self._share_call_parameters()

    def _static_shared(self) -> list[Variable]:
        return [*self.module.shared, *(variable for function in self.functions for variable in function.shared)]

    def _share_call_parameters(self) -> None:
        """What a call stores for its callee and loads of it lies where the callee has it: nothing is recursive."""
        for at, statement in enumerate(self.statements):
            if statement.opcode.split(".")[0] != "call":
                continue
            caller, callee = self.owner[at], self._callee(statement)
            names = [_names(operand) for operand in statement.operands if operand.startswith("(")]
            places = [callee.parameters] if callee.parameters else []
            if callee.results:
                places.insert(0, callee.results)
            for ours, theirs in zip(names, places):
                for name, parameter in zip(ours, theirs):
                    self.local_offsets[f"{caller.name}/{name}"] = self.local_offsets[f"{callee.name}/{parameter.name}"]
            self.statements[at] = replace(statement, operands=[callee.name])

    def _callee(self, statement: Statement) -> Function:
        for operand in statement.operands:
            if operand in self.module.functions:
                return self.module.functions[operand]
        raise PtxError(f"PTX line {statement.line}: a call of a function that is not in this module: {statement.operands}")

    # ---- control flow

    def _label(self, at: int, name: str) -> int | None:
        function = self.owner[at]
        place = function.labels.get(name)
        return None if place is None else function.first + place

    def _successors(self, at: int) -> list[int]:
        """Places that may come next within the function; none after it ends. A call comes back."""
        statement = self.statements[at]
        name = statement.opcode.split(".")[0]
        if name == "bra":
            target = self._label(at, statement.operands[0])
            if target is None:
                raise PtxError(f"PTX line {statement.line}: no label {statement.operands[0]!r}")
            return [target, at + 1] if statement.guard else [target]
        if name in ("ret", "exit", "trap"):
            return [at + 1] if statement.guard else []
        return [at + 1] if at + 1 < len(self.statements) and self.owner[at + 1] is self.owner[at] else []

    def _branches(self) -> list[int]:
        return [at for at, s in enumerate(self.statements) if s.guard and s.opcode.split(".")[0] == "bra"]

    # ---- registers

    def _allocate(self, parsed, successors) -> tuple[dict[str, int], int, int]:
        """Places for the registers, which share them where they do not live at the same time."""
        uses: list[set[str]] = []
        kills: list[set[str]] = []
        for at, statement in enumerate(self.statements):
            name = statement.opcode.split(".")[0]
            destinations = 0 if name in NO_DESTINATION else 1
            use, define = set(), set()
            for number, group in enumerate(parsed[at]):
                for atom in group:
                    if atom[0] == REGISTER:
                        register = self._register(at, atom[1])
                        (define if number < destinations and not atom[3] else use).add(register)
            if name == "wgmma":
                use |= define  # accumulators
            if statement.guard:
                use.add(self._register(at, statement.guard.lstrip("!")))
                use |= define  # where the guard does not hold, the old value stays
            uses.append(use)
            kills.append(define)
        size = {register: TYPE_BYTES[type_] for register, type_ in self.registers.items()}
        intervals, most = _lifetimes(uses, kills, successors, size)
        # What wgmma holds is read and written after the instruction, until its wait: it shares its places with nothing.
        held = {self._register(at, atom[1]) for at, s in enumerate(self.statements) if s.opcode.startswith("wgmma.mma_async")
                for group in parsed[at][:2] if len(group) > 1 for atom in group if atom[0] == REGISTER}  # fmt: skip
        intervals.update(dict.fromkeys(held, (0, len(self.statements))))
        slots: dict[str, int] = {}
        end = self.specials_bytes
        free: dict[int, list[int]] = {}
        ending: list[tuple[int, str]] = []
        starts = {function.first for function in self.functions}
        for register, (start, stop) in sorted(intervals.items(), key=lambda item: item[1][0]):
            if starts and start >= min(starts):  # a function runs while its caller's registers live: it shares none of them
                starts = {at for at in starts if at > start}
                free.clear(), ending.clear()
            while ending and ending[0][0] < start:
                _, done = heapq.heappop(ending)
                free.setdefault(size[done], []).append(slots[done])
            if free.get(size[register]):
                slots[register] = free[size[register]].pop()
            else:
                slots[register] = end
                end += 32 * max(size[register], 1)
            heapq.heappush(ending, (stop, register))
        return slots, end, most

    def _register(self, at: int, name: str) -> str:
        register = self._qualified(at, name)
        if register not in self.registers:
            raise PtxError(f"PTX line {self.statements[at].line}: unknown register {name!r}")
        return register

    def _bytes(self, register: str) -> int:
        return TYPE_BYTES[self.registers[register]]

    # ---- operands

    def _encode(self, at: int, atom, slots) -> list[int]:
        kind, value, offset, _, negated = atom
        if kind == REGISTER:
            register = self._register(at, value)
            return [REGISTER, slots[register], offset, self._bytes(register), int(negated)]
        if kind != SYMBOL:
            return [kind, _signed(value), offset, 0, int(negated)]
        return self._symbol(at, value, offset)

    def _symbol(self, at: int, name: str, offset: int) -> list[int]:
        function = self.owner[at]
        if (target := self._label(at, name)) is not None:
            return [LABEL, target, 0, 0, 0]
        if name in self.entry and name != self.kernel.name:
            return [LABEL, self.entry[name], 0, 0, 0]
        if name in self.shared_offsets:
            return [INTEGER, self.shared_offsets[name] + offset, 0, 4, 0]
        local = f"{function.name}/{name}"
        if local in self.local_offsets:
            return [INTEGER, self.local_offsets[local] + offset, 0, 8, 0]
        for parameter in self.kernel.parameters if function.is_kernel else ():
            if parameter.name == name:
                return [PARAMETER, parameter.offset, offset, 0, 0]
        for number, variable in enumerate(self.module.all_variables):
            if variable.name == name:
                return [VARIABLE, number, offset, 8, 0]
        raise PtxError(f"PTX line {self.statements[at].line}: unknown name {name!r}")


SYMBOL = -1  # a name that is no register, until it is known what it names


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _operand(text: str) -> list[tuple[int, object, int, bool, bool]]:
    """Atoms (kind, value, offset, is a source, negated) of an operand; of [a + 4] and {a, b} and d|p too."""
    if text.startswith("["):
        inner = text[1:-1].strip()
        match = re.fullmatch(r"([^\s+]+)\s*(?:\+\s*(-?\s*\w+))?", inner)
        if match is None:
            raise PtxError(f"address not understood: {text!r}")
        base, offset = match[1], int((match[2] or "0").replace(" ", ""), 0)
        kind, value, _, _, negated = _atom(base)
        return [(kind, value, offset, True, negated)]
    if text.startswith(("{", "(")):
        return [_atom(part) for part in split_operands(text[1:-1])]
    if "|" in text:
        return [_atom(part.strip()) for part in text.split("|")]
    return [_atom(text)]


@functools.lru_cache(1 << 17)
def _atom(text: str) -> tuple[int, object, int, bool, bool]:
    negated = text.startswith("!")
    text = text.lstrip("!").strip()
    if text == "_":
        return SINK, 0, 0, False, negated
    if text in SPECIALS:
        return SPECIAL, SPECIALS[text], 0, True, negated
    if text in CLOCKS:
        return SPECIAL, CLOCK, 0, True, negated
    if text == "WARP_SZ":
        return INTEGER, 32, 0, True, negated
    if re.fullmatch(r"0[fF][0-9a-fA-F]{8}", text):
        return FLOAT32, int(text[2:], 16), 0, True, negated
    if re.fullmatch(r"0[dD][0-9a-fA-F]{16}", text):
        return FLOAT64, int(text[2:], 16), 0, True, negated
    if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", text):
        return INTEGER, int(text.rstrip("U"), 0), 0, True, negated
    symbol = re.fullmatch(r"([A-Za-z_$][\w$]*)\+(\d+)", text)
    if symbol:
        return SYMBOL, symbol[1], int(symbol[2]), True, negated
    if text.startswith("%") and "." not in text:
        return REGISTER, text, 0, False, negated
    if text.startswith("%"):
        raise PtxError(f"unknown special register {text!r}")
    return SYMBOL, text, 0, True, negated


def _names(group: str) -> list[str]:
    return split_operands(group[1:-1])


def _reachable(module: Module, kernel: Function) -> list[Function]:
    """The kernel and what it calls. Raises PtxError for recursion: functions have their parameters in one place."""
    found: list[Function] = []

    def visit(function: Function, callers: tuple[str, ...]) -> None:
        if function.name in callers:
            raise PtxError(f"{kernel.name}: {function.name} is recursive")
        if function not in found:
            found.append(function)
        for statement in function.statements:
            if statement.opcode.split(".")[0] == "call":
                for callee in filter(None, map(module.functions.get, statement.operands)):
                    visit(callee, (*callers, function.name))

    visit(kernel, ())
    return found


def joins_of(successors: list[list[int]], branches: list[int]) -> dict[int, int]:
    """Where the ways from each branch meet again: its immediate post-dominator, -1 where there is none before the end."""
    count = len(successors)
    end = count
    after = [s or [end] for s in successors] + [[]]
    before: list[list[int]] = [[] for _ in range(count + 1)]
    for at, nexts in enumerate(after):
        for follower in nexts:
            before[follower].append(at)
    order, seen, stack = [], {end}, [(end, iter(before[end]))]
    while stack:  # depth first from the end, against the flow
        at, rest = stack[-1]
        step = next((p for p in rest if p not in seen), None)
        if step is None:
            order.append(at)
            stack.pop()
        else:
            seen.add(step)
            stack.append((step, iter(before[step])))
    number = {at: place for place, at in enumerate(order)}
    dominator = {end: end}

    def common(a: int, b: int) -> int:
        while a != b:
            while number[a] < number[b]:
                a = dominator[a]
            while number[b] < number[a]:
                b = dominator[b]
        return a

    changed = True
    while changed:
        changed = False
        for at in reversed(order):
            if at == end:
                continue
            known = [f for f in after[at] if f in dominator]
            if not known:
                continue
            best = known[0]
            for follower in known[1:]:
                best = common(best, follower)
            if dominator.get(at) != best:
                dominator[at], changed = best, True
    return {at: -1 if dominator.get(at, end) == end else dominator[at] for at in branches}


def _lifetimes(uses, kills, successors, size) -> tuple[dict[str, tuple[int, int]], int]:
    """The first and last statement of each register between which it holds something, or is written; and how many words of
    registers are live at once, at the most."""
    count = len(uses)
    starts = sorted({0, *(s for at in range(count) for s in successors[at] if successors[at] != [at + 1]),
                     *(at + 1 for at in range(count - 1) if successors[at] != [at + 1])})  # fmt: skip
    blocks = [(start, stop) for start, stop in zip(starts, [*starts[1:], count])]
    block_of = {start: number for number, (start, _) in enumerate(blocks)}
    generated, killed = [], []
    for start, stop in blocks:
        use, kill = set(), set()
        for at in range(start, stop):
            use |= uses[at] - kill
            kill |= kills[at] - uses[at]
        generated.append(use)
        killed.append(kill)
    into = [set(g) for g in generated]
    out: list[set[str]] = [set() for _ in blocks]
    changed = True
    while changed:
        changed = False
        for number in reversed(range(len(blocks))):
            after = set()
            for follower in successors[blocks[number][1] - 1]:
                after |= into[block_of[follower]]
            if after != out[number]:
                out[number] = after
                into[number] = generated[number] | (after - killed[number])
                changed = True
    words = {register: (bytes + 3) // 4 if bytes > 1 else 0 for register, bytes in size.items()}  # predicates are not counted
    first: dict[str, int] = {}
    last: dict[str, int] = {}

    def reach(registers: set[str], at: int) -> None:  # from the last statement to the first
        first.update(dict.fromkeys(registers, at))
        for register in registers:
            last.setdefault(register, at)

    most = 0
    for number, (start, stop) in reversed(list(enumerate(blocks))):
        live = set(out[number])
        reach(live, stop - 1)
        now = sum(words[register] for register in live)
        for at in reversed(range(start, stop)):
            most = max(most, now)
            reach(uses[at] | kills[at], at)
            ended, begun = (kills[at] - uses[at]) & live, uses[at] - live
            live -= ended
            live |= begun
            now += sum(map(words.__getitem__, begun)) - sum(map(words.__getitem__, ended))
        reach(into[number], start)
    return {register: (first[register], last[register]) for register in first}, most
