"""PTX text to modules, functions and statements. No instruction's meaning is known here."""

import re
from dataclasses import dataclass, field

TYPE_BYTES = {
    "pred": 1, "b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "bf16": 2, "b32": 4, "u32": 4, "s32": 4,
    "f32": 4, "f16x2": 4, "bf16x2": 4, "b64": 8, "u64": 8, "s64": 8, "f64": 8,
}  # fmt: skip


class PtxError(ValueError):
    """PTX that cannot be run, with the line of its text."""


@dataclass
class Statement:
    opcode: str
    operands: list[str]
    guard: str = ""  # "", "%p1" or "!%p1"
    line: int = 0  # of the PTX text
    source: tuple[str, int] = ("", 0)  # file and line


@dataclass
class Variable:
    name: str
    bytes: int
    align: int
    data: bytes = b""  # of .global and .const
    addresses: list[tuple[int, str]] = field(default_factory=list)  # (offset, name) of pointers in the data


@dataclass
class Parameter:
    name: str
    type: str
    bytes: int
    offset: int


@dataclass
class Function:
    name: str
    is_kernel: bool
    parameters: list[Parameter] = field(default_factory=list)
    results: list[Parameter] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)  # name to type
    statements: list[Statement] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    shared: list[Variable] = field(default_factory=list)
    local: list[Variable] = field(default_factory=list)
    call_parameters: list[Variable] = field(default_factory=list)  # .param of a call
    max_threads: int = 1024

    @property
    def parameter_bytes(self) -> int:
        return self.parameters[-1].offset + self.parameters[-1].bytes if self.parameters else 0


@dataclass
class Module:
    text: str
    target: str = ""
    functions: dict[str, Function] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)  # .global
    constants: list[Variable] = field(default_factory=list)  # .const
    shared: list[Variable] = field(default_factory=list)  # of all its functions
    dynamic_shared: list[str] = field(default_factory=list)  # .extern .shared arrays
    declared: set[str] = field(default_factory=set)  # functions without a body

    @property
    def all_variables(self) -> list[Variable]:
        return self.variables + self.constants


def parse(text: str) -> Module:
    return _Parser(text).module


@dataclass
class _Token:
    text: str
    line: int


_COMMENT = re.compile(r'((?:[^"/]|"[^"]*"|/(?!/))*)//')  # what stands before one; a path in quotes may hold //
_DIRECTIVE_TO_END_OF_LINE = ("version", "target", "address_size", "file", "loc", "section", "pragma")


class _Parser:
    def __init__(self, text: str):
        self.module = Module(text)
        self.files: dict[int, str] = {}
        self.source = (0, 0)  # index of the file, line
        self.in_asm = False  # Triton's inline assembly has line numbers of its own text: the first of them counts
        self.function: Function | None = None
        self.depth = 0
        self.scopes: list[dict[str, str]] = []  # names of registers and parameters declared in inner blocks
        self.scope_count = 0
        self._run(text)
        for function in self.module.functions.values():  # .file stands at the end of the text
            for statement in function.statements:
                index, at = statement.source
                statement.source = (self.files.get(index, ""), at)

    # ---- text to statements

    def _run(self, text: str) -> None:
        pending, pending_line = "", 0
        in_comment = False
        for number, raw in enumerate(text.split("\n"), 1):
            line = raw
            if in_comment:
                end = line.find("*/")
                if end < 0:
                    continue
                line, in_comment = line[end + 2 :], False
            comment = _COMMENT.match(line) if "//" in line else None
            if comment is not None:
                note = line[comment.end(1) :]
                if "begin inline asm" in note:
                    self.in_asm = True
                elif "end inline asm" in note:
                    self.in_asm = False
                line = comment[1]
            line = re.sub(r"/\*.*?\*/", " ", line) if "/*" in line else line
            if "/*" in line:
                line, in_comment = line[: line.index("/*")], True
            stripped = line.strip()
            if not stripped:
                continue
            if not pending and self._directive_line(stripped, number):
                continue
            # A statement ends at ';', a block at '{' or '}' that stands for itself.
            for piece in re.split(r"(;|(?<![\w,{}\s])\{|\{|\})", stripped):
                if not piece or piece.isspace():
                    continue
                if not pending.strip():
                    pending_line = number
                if piece == ";":
                    self._statement(pending.strip(), pending_line)
                    pending = ""
                elif piece == "{" and self._opens_block(pending):
                    self._open(pending.strip(), pending_line)
                    pending = ""
                elif piece == "}" and not self._in_braces(pending):
                    self._close(number)
                    pending = ""
                else:
                    pending += piece
                    # A label, and a directive that has no ';'.
                    if self.function is not None and re.fullmatch(r"\s*[\w$]+:\s*", pending):
                        self._label(pending.strip()[:-1])
                        pending = ""
            pending += " "
            if not pending.strip():
                pending = ""
        if self.function is not None or self.depth:
            raise PtxError("the text ends within a function")

    def _opens_block(self, pending: str) -> bool:
        head = pending.strip()
        if head == "":
            return True
        return self.function is None and re.search(r"\.(entry|func)\b", head) is not None and head.count("(") == head.count(")")

    @staticmethod
    def _in_braces(pending: str) -> bool:
        return pending.count("{") > pending.count("}")

    def _directive_line(self, line: str, number: int) -> bool:
        match = re.match(r"\.(\w+)\b", line)
        if match is None or match[1] not in _DIRECTIVE_TO_END_OF_LINE:
            return False
        if match[1] == "target":
            self.module.target = line.split()[1].rstrip(",")
        elif match[1] == "file":
            index, name = re.match(r'\.file\s+(\d+)\s+"([^"]*)"(?:\s+"([^"]*)")?', line).group(1, 2)
            second = re.match(r'\.file\s+\d+\s+"[^"]*"\s+"([^"]*)"', line)
            self.files[int(index)] = second[1] if second else name
        elif match[1] == "loc" and not (self.in_asm and self.asm_seen):
            # Of a function that was inlined, the line that calls it.
            file, at = re.search(r"(?:inlined_at|\.loc)\s+(\d+)\s+(\d+)(?!.*inlined_at)", line).group(1, 2)
            if int(at) > 0:
                self.source = (int(file), int(at))
            self.asm_seen = self.in_asm
        if match[1] == "section":
            self.in_section = True
        return True

    asm_seen = False
    in_section = False

    # ---- blocks

    def _open(self, head: str, line: int) -> None:
        if self.function is None:
            if self.in_section:  # debug information
                self.depth += 1
                return
            self.function = self._header(head, line)
            self.module.functions[self.function.name] = self.function
            self.scopes = [{}]
            return
        self.scopes.append({})
        self.scope_count += 1

    def _close(self, line: int) -> None:
        if self.function is None:
            if self.depth == 0:
                raise PtxError(f"PTX line {line}: a '}}' too many")
            self.depth -= 1
            self.in_section = self.depth > 0
            return
        self.scopes.pop()
        if not self.scopes:
            self.function = None

    def _header(self, head: str, line: int) -> Function:
        match = re.match(
            r"(?:\.(?:visible|extern|weak)\s+)*\.(entry|func)\s*(?:\(([^)]*)\)\s*)?([\w$]+)\s*(?:\((.*?)\))?\s*(.*)$", head, re.S
        )
        if match is None:
            raise PtxError(f"PTX line {line}: no function header: {head!r}")
        kind, results, name, parameters, tail = match.groups()
        function = Function(name, kind == "entry")
        function.parameters = _parameters(parameters or "", line)
        function.results = _parameters(results or "", line)
        limits = re.search(r"\.(?:max|req)ntid\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?", tail)
        if limits:
            function.max_threads = 1
            for size in limits.groups():
                function.max_threads *= int(size or 1)
        return function

    # ---- statements

    def _statement(self, text: str, line: int) -> None:
        if not text or self.in_section:
            return
        if text.startswith("."):
            self._declaration(text, line)
            return
        if self.function is None:
            raise PtxError(f"PTX line {line}: a statement outside a function: {text!r}")
        while (label := re.match(r"([\w$]+):\s*", text)) is not None:
            self._label(label[1])
            text = text[label.end() :]
        match = re.match(r"(?:@(!?%?[\w$]+)\s+)?([\w.:]+)\s*(.*)$", text, re.S)
        if match is None:
            raise PtxError(f"PTX line {line}: not understood: {text!r}")
        guard, opcode, rest = match.groups()
        operands = split_operands(rest)
        if any(self.scopes):
            operands = [self._renamed(operand) for operand in operands]
            guard = self._renamed(guard) if guard else guard
        guard = guard or ""
        self.function.statements.append(Statement(opcode, operands, guard, line, self.source))

    def _label(self, name: str) -> None:
        self.function.labels[name] = len(self.function.statements)

    def _renamed(self, operand: str) -> str:
        """The operand with the registers of inner blocks under names of their own."""

        def replace(match):
            for scope in reversed(self.scopes):
                if match[0] in scope:
                    return scope[match[0]]
            return match[0]

        return re.sub(r"%?[A-Za-z_$][\w$]*", replace, operand)

    def _declaration(self, text: str, line: int) -> None:
        register = re.match(r"\.reg\s+\.(\w+)\s+(.*)$", text, re.S)
        if register:
            for name in register[2].split(","):
                name = name.strip()
                counted = re.fullmatch(r"(%?[\w$]+)<(\d+)>", name)
                names = [f"{counted[1]}{n}" for n in range(int(counted[2]))] if counted else [name]
                for one in names:
                    if len(self.scopes) > 1:
                        self.scopes[-1][one] = f"%scope{self.scope_count}_{one.lstrip('%')}"
                        one = self.scopes[-1][one]
                    self.function.registers[one] = register[1]
            return
        if re.match(r"\.(extern\s+)?\.?func|\.extern\s+\.func", text):
            self.module.declared.add(re.search(r"(?:\)\s*|\.func\s+)([\w$]+)\s*\(", text + "(")[1])
            return
        variable = re.match(
            r"(?:\.(?:visible|extern|weak|common)\s+)*\.(shared|global|const|local|param)\s+(?:\.attribute\([^)]*\)\s*)?"
            r"(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)\s*((?:\[\d*\])*)\s*(?:=\s*(.*))?$",
            text, re.S,
        )  # fmt: skip
        if variable:
            self._variable(text, line, *variable.groups())
        elif not text.startswith((".callprototype", ".branchtargets", ".alias", ".pragma")):
            raise PtxError(f"PTX line {line}: not understood: {text!r}")

    def _variable(self, text, line, space, align, type_, name, dimensions, initial) -> None:
        size = TYPE_BYTES.get(type_)
        if size is None:
            raise PtxError(f"PTX line {line}: type .{type_} of {name}")
        lengths = re.findall(r"\[(\d*)\]", dimensions)
        if space == "shared" and ".extern" in text:
            self.module.dynamic_shared.append(name)
            return
        count = 1
        for length in lengths:
            count *= int(length or 0)
        if space == "param" and len(self.scopes) > 1:
            self.scopes[-1][name] = name = f"scope{self.scope_count}_{name}"
        variable = Variable(name, size * count, int(align or size))
        if initial is not None:
            variable.data, variable.addresses = _initial(initial, type_, size)
        target = {
            "global": self.module.variables, "const": self.module.constants,
            "shared": self.module.shared if self.function is None else self.function and self.function.shared,
            "local": self.function and self.function.local, "param": self.function and self.function.call_parameters,
        }[space]  # fmt: skip
        target.append(variable)


_OPENING = re.compile(r"[{\[(]")


def split_operands(text: str) -> list[str]:
    """At the commas that are not within brackets."""
    if not _OPENING.search(text):
        return [operand.strip() for operand in text.split(",")] if text.strip() else []
    operands, depth, start = [], 0, 0
    for place, character in enumerate(text):
        if character in "{[(":
            depth += 1
        elif character in "}])":
            depth -= 1
        elif character == "," and depth == 0:
            operands.append(text[start:place].strip())
            start = place + 1
    last = text[start:].strip()
    return operands + [last] if last else operands


def _parameters(text: str, line: int) -> list[Parameter]:
    parameters, offset = [], 0
    for part in text.split(","):
        part = part.strip()
        if not part:
            continue
        match = re.match(
            r"\.(?:param|reg)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(?:\.ptr\s+(?:\.\w+\s+)?(?:\.align\s+\d+\s+)?)?([\w$%]+)(?:\[(\d+)\])?$",
            part,
        )
        if match is None:
            raise PtxError(f"PTX line {line}: parameter not understood: {part!r}")
        align, type_, name, length = match.groups()
        size = TYPE_BYTES[type_]
        bound = int(align or size)
        offset = -(-offset // bound) * bound
        parameters.append(Parameter(name, f"{type_}[]" if length else type_, size * int(length or 1), offset))
        offset += parameters[-1].bytes
    return parameters


def _initial(text: str, type_: str, size: int) -> tuple[bytes, list[tuple[int, str]]]:
    data, addresses = b"", []
    for item in re.split(r"[,{}\s]+", text):
        if not item:
            continue
        if re.fullmatch(r"0[fFdD][0-9a-fA-F]+", item):
            data += int(item[2:], 16).to_bytes(size, "little")
        elif re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", item):
            data += (int(item.rstrip("U"), 0) & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        else:
            addresses.append((len(data), re.sub(r"generic\(|\)", "", item)))
            data += bytes(size)
    return data, addresses
