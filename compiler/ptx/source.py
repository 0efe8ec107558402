"""PTX text as instructions: one entry point, its parameters, and what each statement says, with its line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from ree.errors import ReeError

SIZES = {"8": 1, "16": 2, "32": 4, "64": 8}
LABEL = re.compile(r"(\$?[A-Za-z_][\w$]*):")
STATEMENT = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)", re.S)
ENTRY = re.compile(r"\.visible\s+\.entry\s+(\w+)\s*\((.*?)\)([^{]*)\{", re.S)
PARAMETER = re.compile(r"\.param\s+\.[a-z](\d+)\b[^,]*?(\w+)\s*$")


class PtxError(ReeError):
    """PTX that is not executed here, or that did what it must not; with the kernel and the line."""


@dataclass(frozen=True)
class PtxInstruction:
    """A statement: `@guard op args`, at a line of the PTX that came of `where`."""

    line: int
    op: str
    args: tuple[str, ...]
    guard: str = ""
    negated: bool = False


@dataclass(frozen=True)
class PtxSource:
    """One entry point. parameters: name to (offset, bytes). threads: of a block. lines: line of PTX to the
    line of the kernel's own source that it came of."""

    name: str
    target: str
    parameters: dict[str, tuple[int, int]]
    parameter_bytes: int
    threads: int
    code: tuple[PtxInstruction | str, ...]  # a label is its name
    lines: dict[int, str]

    def refuse(self, line: int, what: str, hint: str = "") -> NoReturn:
        """PtxError that names the kernel and the line."""
        raise PtxError(f"{self.place(line)}: {what}", hint)

    def place(self, line: int) -> str:
        """Kernel, line of PTX, and line of source, in words."""
        before = [n for n in self.lines if n <= line]
        source = f" ({self.lines[max(before)]})" if before else ""
        return f"kernel '{self.name}', PTX line {line}{source}"


def arguments(text: str) -> tuple[str, ...]:
    """Operands; a {group} or an [address] is one."""
    return tuple(a.strip() for a in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s\[{][^,]*", text))


def group(text: str) -> list[str]:
    """Registers of a {group}, or the one."""
    return [r.strip() for r in text.strip("{} ").split(",")]


def read_ptx(text: str) -> PtxSource:
    """The one entry point of a module; PtxError for what this does not read."""
    target = re.search(r"^\.target\s+(\w+)", text, re.M)
    entries = list(ENTRY.finditer(text))
    if target is None or len(entries) != 1:
        raise PtxError(f"PTX: expected one entry point of one target, got {len(entries)}")
    entry = entries[0]
    parameters: dict[str, tuple[int, int]] = {}
    offset = 0
    for p in filter(None, (x.strip() for x in entry[2].split(","))):
        m = PARAMETER.match(p)
        if m is None or m[1] not in SIZES:
            raise PtxError(f"PTX: kernel '{entry[1]}': parameter not understood: {p[:60]}")
        size = SIZES[m[1]]
        offset = -(-offset // size) * size
        parameters[m[2]] = (offset, size)
        offset += size
    threads = re.search(r"\.reqntid\s+(\d+)\s*(,?)", entry[3])
    if threads is None or threads[2] or int(threads[1]) % 32:
        raise PtxError(
            f"PTX: kernel '{entry[1]}': expected .reqntid of one axis, a multiple of 32 threads"
        )
    files = dict(re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]+)"', text, re.M))
    code, lines = _body(text, entry, files)
    return PtxSource(
        entry[1], target[1], parameters, offset, int(threads[1]), tuple(code), lines
    )  # fmt: skip


def _body(
    text: str, entry: re.Match[str], files: dict[str, str]
) -> tuple[list[PtxInstruction | str], dict[int, str]]:
    code: list[PtxInstruction | str] = []
    lines: dict[int, str] = {}
    pending, started = "", 0
    first = text.count("\n", 0, entry.end()) + 1
    for number, raw in enumerate(text[entry.end() :].split("\n"), first):
        line = raw.partition("//")[0].strip()
        if line == "}":
            break
        loc = re.match(r"\.loc\s+(\d+)\s+(\d+)", line)
        if loc:
            lines[number] = f"{files.get(loc[1], '?').rpartition('/')[2]}:{loc[2]}"
            continue
        while line:
            label = LABEL.fullmatch(line)
            if label and not pending:
                code.append(label[1])
                break
            started = started if pending else number
            done, semicolon, line = line.partition(";")
            pending, line = f"{pending} {done}".strip(), line.strip()
            if semicolon:
                _statement(entry[1], pending, started, code)
                pending = ""
    else:
        raise PtxError(f"PTX: kernel '{entry[1]}' has no end")
    return code, lines


def _statement(name: str, text: str, line: int, code: list[PtxInstruction | str]) -> None:
    # a pragma tells the assembler which bytes of a load are used: all of them are loaded here; what lies in
    # local memory is refused where an instruction names it
    if not text or re.match(r"\.(?:reg|pragma|local)\b", text):
        return
    m = STATEMENT.fullmatch(text)
    if m is None:
        raise PtxError(f"kernel '{name}', PTX line {line}: not understood: {text[:60]}")
    code.append(PtxInstruction(line, m[3], arguments(m[4]), m[2] or "", m[1] == "!"))
