"""PTX text -> kernels: parameters, shared variables, instructions with their source lines."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache

from .operands import TYPES, Operand, parse_operand, split_top

_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)([^{]*)\{")
_LOC = re.compile(r"\.loc\s+(\d+)\s+(\d+)\s+\d+(?:.*inlined_at\s+(\d+)\s+(\d+))?")
_VARIABLE = re.compile(
    r"\.(shared|local)\s+\.align\s+(\d+)\s+\.[busf](\d+)\s+([\w$]+)(?:\[(\d+)\])?\s*;"
)


@dataclass(frozen=True)
class Line:
    """A line of a source file."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


@dataclass(frozen=True)
class Instruction:
    """One instruction: `opcode` is its first word, `modifiers` those after dots."""

    index: int
    opcode: str
    modifiers: tuple[str, ...]
    arguments: str
    guard: str | None
    guard_negated: bool
    lines: tuple[Line, ...]  # the line itself, then that of the call it was inlined at
    text: str

    @cached_property  # most instructions of a kernel are never run
    def operands(self) -> tuple[Operand, ...]:
        """The operands, as values."""
        return tuple(parse_operand(part) for part in split_top(self.arguments))

    @cached_property
    def types(self) -> tuple[str, ...]:
        """Modifiers that are types."""
        return tuple(m for m in self.modifiers if m in TYPES)

    def __str__(self) -> str:
        return f"{self.text}" + (f"  ({self.lines[0]})" if self.lines else "")


@dataclass(frozen=True)
class Parameter:
    """A kernel's parameter, in bytes from the start of all parameters."""

    name: str
    offset: int
    size: int


@dataclass
class Kernel:
    """A decoded kernel."""

    name: str
    parameters: list[Parameter] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)  # prefix or whole name -> type
    shared: dict[str, int] = field(default_factory=dict)  # variable -> offset
    local: dict[str, int] = field(default_factory=dict)
    shared_bytes: int = 0  # static; what is dynamic follows
    local_bytes: int = 0
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all parameters."""
        return max((p.offset + p.size for p in self.parameters), default=0)

    def register_type(self, name: str) -> str | None:
        """Return a register's type, or None where the name is no register."""
        if name in self.registers:
            return self.registers[name]
        return self.registers.get(name.rstrip("0123456789"))


class Module:
    """The kernels of one PTX text, decoded when they are asked for."""

    def __init__(self, text: str):
        self._text = text
        names = re.findall(r'\.file\s+(\d+)\s+"([^"]*)"', text)
        self._files = {number: path.rsplit("/", 1)[-1] for number, path in names}
        self._entries = {m[1]: m for m in _ENTRY.finditer(text)}
        self._dynamic = re.findall(
            r"\.extern\s+\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[\]", text
        )
        self.kernel = lru_cache(maxsize=None)(self._decode)

    @property
    def names(self) -> list[str]:
        """Mangled names of the kernels."""
        return list(self._entries)

    def _decode(self, name: str) -> Kernel:
        entry = self._entries[name]
        # Inline assembly has lines that are a brace too: the kernel's is the last before the next.
        later = [m.start() for m in self._entries.values() if m.start() > entry.start()]
        end = self._text.rindex("\n}", entry.end(), min(later, default=len(self._text)))
        kernel = Kernel(name)
        _decode_parameters(kernel, entry[2])
        body = self._text[entry.end() : end]
        _decode_variables(kernel, body)
        _decode_dynamic(kernel, self._dynamic, body)
        _decode_body(kernel, body, self._files)
        return kernel


def _decode_parameters(kernel: Kernel, text: str) -> None:
    offset = 0
    for declaration in split_top(text):
        words = declaration.split()
        kind = next(w[1:] for w in words if w[1:] in TYPES)
        array = re.fullmatch(r"([\w$]+)\[(\d+)\]", words[-1])
        size = int(array[2]) if array else int(kind[1:]) // 8
        align = int(words[words.index(".align") + 1]) if ".align" in words else size
        offset = -(-offset // align) * align
        kernel.parameters.append(Parameter(array[1] if array else words[-1], offset, size))
        offset += size


def _decode_variables(kernel: Kernel, body: str) -> None:
    for space, align, bits, name, count in _VARIABLE.findall(body):
        used = kernel.shared_bytes if space == "shared" else kernel.local_bytes
        at = -(-used // int(align)) * int(align)
        end = at + int(bits) // 8 * int(count or 1)
        if space == "shared":
            kernel.shared[name], kernel.shared_bytes = at, end
        else:
            kernel.local[name], kernel.local_bytes = at, end


def _decode_dynamic(kernel: Kernel, variables: list[tuple[str, str]], body: str) -> None:
    """Place the variables that dynamic shared memory is behind the static ones."""
    for align, name in variables:
        if re.search(rf"\b{re.escape(name)}\b", body):
            kernel.shared_bytes = -(-kernel.shared_bytes // int(align)) * int(align)
            kernel.shared[name] = kernel.shared_bytes


def _statements(body: str) -> list[str]:
    """Return statements, and "{" and "}" where a scope of names begins and ends."""
    body = re.sub(r"//[^\n]*", "", body)
    body = re.sub(r"(?m)^(\s*\.loc\b[^\n]*)$", r"\1;", body)
    found, held = [], ""
    for token in re.split(r"([;{}])", body):
        if token == ";":
            found.append(" ".join(held.split()))
            held = ""
        elif token in ("{", "}") and not held.strip():
            found.append(token)
        else:
            held += token
        while ":" in held and (label := re.match(r"\s*([\w$]+):(?!:)\s*", held)):
            found.append(label[1] + ":")
            held = held[label.end() :]
    return found


def _decode_body(kernel: Kernel, body: str, files: dict[str, str]) -> None:
    lines_of = cache(lambda statement: _lines(statement, files))
    scopes: list[dict[str, str]] = []
    count = 0
    lines: tuple[Line, ...] = ()
    for statement in _statements(body):
        if statement == "{":
            scopes.append({})
        elif statement == "}":
            scopes.pop()
        elif statement.endswith(":"):
            kernel.labels[statement[:-1]] = len(kernel.code)
        elif statement.startswith(".loc "):
            lines = lines_of(statement)
        elif statement.startswith(".reg "):
            _, kind, rest = statement.split(None, 2)
            for name in (part.strip() for part in rest.split(",")):
                if not scopes:
                    kernel.registers[re.sub(r"<\d+>$", "", name)] = kind[1:]
                    continue
                for own in _names(name):
                    count += 1
                    scopes[-1][own] = f"%scoped{count}_{kind[1:]}_"
                    kernel.registers[scopes[-1][own]] = kind[1:]
        elif statement and not statement.startswith("."):
            for name, unique in (item for scope in scopes for item in scope.items()):
                statement = re.sub(rf"(?<![\w%$.]){re.escape(name)}(?![\w.:])", unique, statement)
            kernel.code.append(_instruction(len(kernel.code), statement, lines))


def _names(declared: str) -> list[str]:
    """Return the registers of a declaration: `r<4>` are r0 to r3."""
    found = re.fullmatch(r"(.+)<(\d+)>", declared)
    return [f"{found[1]}{i}" for i in range(int(found[2]))] if found else [declared]


def _lines(statement: str, files: dict[str, str]) -> tuple[Line, ...]:
    found = _LOC.match(statement)
    assert found is not None, statement
    pairs = [(found[1], found[2]), (found[3], found[4])]
    return tuple(Line(files[f], int(n)) for f, n in pairs if f is not None and int(n) > 0)


def _instruction(index: int, statement: str, lines: tuple[Line, ...]) -> Instruction:
    found = re.match(r"(?:@(!?)([%\w]+)\s+)?(\S+)\s*(.*)$", statement)
    assert found is not None, statement
    opcode, *modifiers = found[3].split(".")
    return Instruction(
        index, opcode, tuple(modifiers), found[4], found[2], bool(found[1]), lines, statement
    )
