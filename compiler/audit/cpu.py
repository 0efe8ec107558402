"""Which float instructions CPU code contains: the compiled kernels of ree._core and tile functions.

Every instruction that touches a vector, mask, x87 or matrix register must be known: integer code, a
move of bits, or arithmetic that its target allows. All else is a finding, so that an instruction
nobody thought of fails. Code is read in AT&T syntax.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ree import _core
from ree.compiler.audit.report import Finding, KernelReport
from ree.compiler.emit.jit import TARGETS, assembly
from ree.compiler.emit.tile import module_text
from ree.errors import PlatformError
from ree.kernels.tilespec import TileSpec

# Arithmetic that each target allows: one IEEE rounding or none, to nearest even.
_ALLOWED = {
    "portable": (
        r"(add|sub|mul|div|sqrt|min|max)[ps]s",
        r"u?comis[sd]|cmp\w*[ps][sd]",
        r"cvtdq2ps|cvtsi2ss[lq]?|cvttps2dq|cvttss2si[lq]?",
        # fma without hardware: to double and back, with a sum rounded to odd between
        r"(add|sub|mul)[ps]d|cvtps2pd|cvtss2sd|cvtpd2ps|cvtsd2ss",
        # how a contraction is divided among threads
        r"cvtsi2sd[lq]?|cvttsd2si[lq]?",
    ),
    "avx512": (
        r"v(add|sub|mul|div|sqrt|min|max)[ps]s",
        # the source's own fma: -ffp-contract=off and LLVM's default make none from mul and add
        r"vfn?m(add|sub)(132|213|231)[ps]s",
        r"vu?comiss|vcmp\w*[ps]s",
        r"vcvtu?(dq|qq)2ps|vcvtu?si2ss[lq]?|vcvttps2[dq]q|vcvttss2si[lq]?",
        r"vcvtph2ps",  # a widening, exact in every float mode
        r"vpdpbusd",  # bytes, modulo 2^32; behind a test of the processor (csrc/dispatch.cpp)
        r"vrange[ps]s|vrndscale[ps]s",  # one of two operands; rint, immediate checked below
        # x[0] + x[1], the last step of a sum over lanes: every lane of the result is one addition
        r"vhaddps",
        # how a contraction is divided among threads
        r"vmulsd|vu?comisd|vcvtsi2sd[lq]?|vcvttsd2si[lq]?",
    ),
    "avx2": (
        r"v(add|sub|mul|div|sqrt|min|max)[ps]s",
        r"vfn?m(add|sub)(132|213|231)[ps]s",
        r"vu?comiss|vcmp\w*[ps]s",
        r"vcvtdq2ps|vcvtsi2ss[lq]?|vcvttps2dq|vcvttss2si[lq]?",
        r"vcvtph2ps",  # as above
        r"vround[ps]s",  # rint, immediate checked below
        r"vhaddps",  # as above
        r"vmulsd|vu?comisd|vcvtsi2sd[lq]?|vcvttsd2si[lq]?",
    ),
}  # fmt: skip
# Instructions that compute no float; 3DNow!, the one float extension spelled p.., is left out.
_MOVES = (
    # integers, permutations and masks; products of bytes are not known to every processor, or saturate
    r"v?p(?!f|i2f|dp|maddubs|4dp)\w+|k\w+",
    r"v?mov\w+|v?lddqu|vmaskmovp[sd]",
    r"v?(and|andn|or|xor|shuf|unpck[hl])p[sd]|v?blendv?p[sd]|vblendmp[sd]|vtestp[sd]",
    r"v?insertps|v?extractps|vbroadcast\w+|v(insert|extract)[fi]\d+(x\d)?|vshuf[fi]\d+x\d",
    r"sha256(rnds2|msg[12])",
    r"valign[dq]|v(gather|scatter)[dq]p[sd]|v(compress|expand)p[sd]",
)
_REASONS = (
    (r"v?rcp\w+|v?rsqrt\w+|pf\w+|vexp2\w+", "an approximation: its bits depend on the processor"),
    (r"v?ldmxcsr", "changes the float mode inside a kernel"),
    (r"f\w+", "x87: rounds to a precision of its own"),
    (r"vpdp\w+s|vp4dp\w+|v?pmaddubsw", "saturates: its total depends on the order"),
    (r"vpdp\w+", "assumes a processor feature that the target may lack"),
    (r"v?dpp[sd]|v\d\w+", "adds several products in an order of its own"),
    (r"v?h(add|sub)p[sd]", "adds neighbouring lanes: not the order of the source"),
    (r"v?fn?m(add|sub)\w*", "fuses a product and a sum where the target states no such rounding"),
    (r"v\w*bf16\w*|v\w+[ps]h\w*|vcvtne2?ps\w*", "half precision"),
    (r"t\w+|ldtilecfg|sttilecfg", "matrix unit: order and rounding of its own"),
    (r"\(bad\)|\.byte", "not an instruction that the disassembler knows"),
    (r"cvt\w+", "a conversion outside the contract"),
    (r"\w+[ps]d", "double precision: a second rounding"),
)
_OTHER = "not on the target's list of allowed instructions"
_WIDER = "assumes a processor feature that the portable target may lack"
_ROUNDING = "rounds in a direction other than to nearest"

# What kernels may call outside themselves: memory, and the C++ runtime; no mathematics.
_CALLS = re.compile(r"mem(cpy|move|set|cmp)|bcmp|str(len|cmp)|snprintf|malloc|free|aligned_alloc|abort|"
                    r"sched_yield|pthread_\w+|_Unwind_\w+|__(cxa|gxx)_\w+|__stack_chk_fail|"
                    r"__tls_get_addr|_Z(S|N[KV]*S|d[la]|n[wa])\w*")  # fmt: skip
_CALLS_REASON = "a function of the platform whose arithmetic is not known"

_PREFIXES = {"rep", "repz", "repnz", "lock", "bnd", "notrack", "data16", "addr32", "cs", "ds", "ss",
             "es", "fs", "gs", "rex.W", "{evex}", "{vex}", "{vex3}"}  # fmt: skip
_REGISTER = re.compile(r"%(?:[xyzt]?mm\d|st\b|k[0-7])")
_X87 = re.compile(r"f(?!s$)[a-z]\w*")
_ADDRESS = re.compile(r"\s*([0-9a-f]+):\s+")
_LABEL = re.compile(r"(?:[0-9a-f]+ )?<?([^\s<>][^<>]*)>?:")
# code before the first symbol is shown as an offset from the last entry of the linkage table: not outside
_OUTSIDE = re.compile(r"<([^<>@+]+)@(?!@Base)[^<>+]*>|(?<![.\w])([A-Za-z_]\w*)@(?:GOT(?!OFF)|PLT)")


def _any(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{p})" for p in patterns))


_ALLOWED_RE = {target: _any(patterns) for target, patterns in _ALLOWED.items()}
_MOVES_RE = _any(_MOVES)
_REASONS_RE = [(re.compile(p), reason) for p, reason in _REASONS]


def audit_text(
    name: str, target: str, lines: Iterable[str], operators: Sequence[str] = ()
) -> KernelReport:
    """The report of one kernel from its assembly or disassembly, for a target of `jit.TARGETS`."""
    allowed = _ALLOWED_RE[target]
    floats: Counter[str] = Counter()
    findings: list[Finding] = []
    function = name
    for number, line in enumerate(lines, 1):
        address = _ADDRESS.match(line)
        text = (line[address.end():] if address else line).strip()  # fmt: skip
        if not address and (label := _LABEL.fullmatch(text)):
            if not text.startswith("."):
                function = label[1]
            continue
        if not text or text[0] == "#" or (text[0] == "." and not text.startswith(".byte")):
            continue
        code, _, comment = text.partition("#")
        words = code.split()
        while len(words) > 1 and words[0] in _PREFIXES:
            words.pop(0)
        if not words:
            continue
        mnemonic, operands = words[0], " ".join(words[1:])
        reason = _outside(mnemonic, operands, comment)
        if _is_vector(mnemonic, operands) and not _MOVES_RE.fullmatch(mnemonic):
            floats[mnemonic] += 1
            reason = _judge(mnemonic, operands, target, allowed)
        elif mnemonic in ("(bad)", ".byte") and address:
            reason = _reason(mnemonic, target)
        if reason:
            where = f"{function}, 0x{address[1]}" if address else f"{function}, line {number}"
            findings.append(Finding(f"{mnemonic} {operands}".strip(), where, reason))
    return KernelReport(name, target, dict(sorted(floats.items())), tuple(findings),
                        operators=tuple(operators))  # fmt: skip


def _is_vector(mnemonic: str, operands: str) -> bool:
    """Whether an instruction may compute floats or set how they are computed."""
    return (bool(_REGISTER.search(operands)) or mnemonic.endswith("ldmxcsr")
            or bool(_X87.fullmatch(mnemonic)))  # fmt: skip


def _judge(mnemonic: str, operands: str, target: str, allowed: re.Pattern[str]) -> str:
    """What is wrong with an arithmetic instruction; empty if it is allowed."""
    if not allowed.fullmatch(mnemonic):
        return _reason(mnemonic, target)
    if re.search(r"\{r[duz]-sae\}", operands):
        return _ROUNDING
    if mnemonic.startswith(("vrndscale", "vround")):
        immediate = re.match(r"\$(\w+)", operands)
        mode = int(immediate[1], 0) if immediate else -1
        # bits 4 to 7: digits kept; bit 2: the mode of the thread, which is to nearest; 0: to nearest
        if mode & 0xF0 or not (mode & 4 or mode & 3 == 0):
            return _ROUNDING
    return ""


def _reason(mnemonic: str, target: str) -> str:
    for pattern, reason in _REASONS_RE:
        if pattern.fullmatch(mnemonic):
            return reason
    return _WIDER if target == "portable" and mnemonic.startswith("v") else _OTHER


def _outside(mnemonic: str, operands: str, comment: str) -> str:
    """What is wrong with a call of, or a reference to, a function outside; empty if nothing."""
    names: list[str] = []
    if mnemonic.startswith(("call", "jmp")):
        names += re.findall(r"^[A-Za-z_]\w*$", operands)
        operands += comment  # the slot of an indirect call is named there
    if "@" in operands:
        names += [found[1] or found[2] for found in _OUTSIDE.finditer(operands)]
    if any(n != "_GLOBAL_OFFSET_TABLE_" and not _CALLS.fullmatch(n) for n in names):
        return _CALLS_REASON
    return ""


# tile functions


def audit_tiles(specs: Sequence[TileSpec], isa: str) -> list[KernelReport]:
    """One report a tile function, tile0, tile1, ..., from the assembly LLVM makes for `isa`."""
    unique = list(dict.fromkeys(specs))
    names = [f"tile{i}" for i in range(len(unique))]
    bodies: dict[str, list[str]] = {n: [] for n in names}
    current: list[str] = []  # before the first function: directives and constants
    text = assembly(module_text(unique, names, isa), TARGETS[isa]) if unique else ""
    for line in text.splitlines():
        label = line.split(":")[0]
        if label in bodies:
            current = bodies[label]
        current.append(line)
    place = {spec: i for i, spec in enumerate(unique)}
    reports = []
    for i, spec in enumerate(specs):
        body = bodies[names[place[spec]]]
        assert body, f"no assembly of tile {i}"
        operators = tuple(dict.fromkeys(s.function.name for s in spec.steps))
        reports.append(audit_text(f"tile{i}", isa, body, operators))
    return reports


# the compiled kernels


def audit_core() -> list[KernelReport]:
    """One report an instruction set, from the machine code of the installed ree._core.

    The library has no symbols. A function belongs to the instruction set from whose kernel table it
    can be reached; code that no table reaches is the runtime's, unless it looks like a kernel's.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise PlatformError(f"cannot audit machine code of {platform.machine()}")
    for tool in ("objdump", "readelf"):
        if shutil.which(tool) is None:
            raise PlatformError(f"{tool} not found", "install binutils")
    library = _Library(_core.__file__)
    tables = library.kernel_tables(TARGETS)
    if "portable" not in tables or any(
        f not in library.functions for t in tables.values() for f in t
    ):
        raise PlatformError(f"no kernel table found in {library.path}")
    reached = {isa: library.reach(kernels) for isa, kernels in tables.items()}
    seen = {f for functions in reached.values() for f in functions}
    for f, kind in library.kinds.items():  # not found by reference: better in a report than in none
        if f not in seen and kind in reached:
            reached[kind][f] = "unreached code"
    return [audit_text("ree._core", isa, library.listing(reached[isa]), sorted(tables[isa].values()))
            for isa in tables]  # fmt: skip


ENTRY = 32  # bytes of `KernelEntry` of csrc/kernel.hpp: a string_view, two pointers
_TARGET = re.compile(r"(?:call|j\w+)\s+([0-9a-f]+)\b")
_POINTED = re.compile(r"# ([0-9a-f]+)\b")
_WIDE = re.compile(r"%zmm|%k[0-7]|%[xy]mm(?:1[6-9]|2\d|3[01])")  # AVX-512 alone has these
_PACKED = re.compile(r"(?:add|sub|mul|div|sqrt|min|max)p[sd]")


class _Library:
    """A shared object without symbols: its functions, and who refers to whom."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self.sections = {
            m[1]: (int(m[2], 16), int(m[3], 16))
            for m in re.finditer(r"\] (\.\S+)\s+\S+\s+([0-9a-f]{16}) [0-9a-f]+ ([0-9a-f]+)",
                                 "\n".join(_output("readelf", "-SW", path)))
        }  # fmt: skip
        self.relocations = dict(self._relocations())
        # functions, and their cold parts as functions of their own, from the unwind table
        found = {int(m[1], 16) for line in _output("objdump", "--dwarf=frames", path)
                 if (m := re.search(r"FDE .* pc=([0-9a-f]+)\.\.", line))}  # fmt: skip
        self.starts = sorted(found)
        self.functions: dict[int, list[str]] = {s: [] for s in self.starts}  # lines of each
        self.kinds: dict[int, str] = {}
        self.references: dict[int, set[int]] = defaultdict(set)
        self._read()

    def _relocations(self) -> Iterator[tuple[int, int]]:
        """Where the loader puts an address of this library, and which."""
        for line in _output("readelf", "-rW", self.path):
            words = line.split()
            # the value of a symbol is 0 where it is of another library
            if len(words) > 3 and words[2].startswith("R_X86_64_") and int(words[3], 16):
                yield int(words[0], 16), int(words[3], 16)

    def _read(self) -> None:
        text_start, text_size = self.sections[".text"]
        for line in _output("objdump", "-d", "--no-show-raw-insn", "-j", ".text", self.path):
            address = _ADDRESS.match(line)
            if not address:
                continue
            at = int(address[1], 16)
            # code before the first function, if any, belongs to that function
            home = self.starts[max(bisect_right(self.starts, at) - 1, 0)]
            self.functions[home].append(line)
            code = line[address.end():]  # fmt: skip
            mnemonic = code.split(None, 1)[0] if code.strip() else ""
            if _REGISTER.search(code):
                if _WIDE.search(code):
                    self.kinds[home] = "avx512"
                elif mnemonic.startswith("v"):
                    self.kinds.setdefault(home, "avx2")
                elif _PACKED.fullmatch(mnemonic):
                    self.kinds.setdefault(home, "portable")
            refers = _TARGET.match(code) or _POINTED.search(code)
            if refers is None:
                continue
            to = int(refers[1], 16)
            if text_start <= to < text_start + text_size:
                other = self.starts[max(bisect_right(self.starts, to) - 1, 0)]
                self.references[home].add(other)
                if to != other and not mnemonic.startswith("call"):
                    self.references[other].add(home)  # into its middle: two parts of one function
            else:
                while to in self.relocations:
                    self.references[home].add(self.relocations[to])
                    if mnemonic != "lea":
                        break
                    to += 8  # a table has no end that could be seen: take all that follows directly

    def reach(self, kernels: Mapping[int, str]) -> dict[int, str]:
        """Functions that kernels call or point to, each with a kernel it is reached from."""
        found = dict(kernels)
        todo = list(found)
        while todo:
            f = todo.pop()
            for other in self.references[f]:
                if other in self.functions and other not in found:
                    found[other] = found[f]
                    todo.append(other)
        return found

    def listing(self, functions: Mapping[int, str]) -> Iterator[str]:
        """The code of functions, each under the name of its kernel."""
        for f in sorted(functions):
            yield f"<{functions[f]}>:"
            yield from self.functions[f]

    def kernel_tables(self, isas: Iterable[str]) -> dict[str, dict[int, str]]:
        """Address and name of every kernel, by instruction set, from the loaded library's memory.

        The tables are `KernelTable` of csrc/kernel.hpp; their entries are filled in at load.
        """
        base = self._base()
        loaded = [(start, size) for start, size in self.sections.values() if start]
        end = max(start + size for start, size in loaded)

        def word(at: int) -> int:
            return ctypes.c_uint64.from_address(base + at).value

        def text(at: int) -> str:
            """The std::string_view at an address."""
            size, place = word(at), word(at + 8) - base
            if not 0 < size < 64 or not any(a <= place < a + n for a, n in loaded):
                return ""
            return ctypes.string_at(base + place, size).decode("ascii", "replace")

        tables = {}
        wanted = set(isas)
        for section in (".data.rel.ro", ".data"):
            start, size = self.sections.get(section, (0, 0))
            for at in range(start, start + size - 32, 8):
                isa = text(at)
                if isa not in wanted:
                    continue
                entries, count = word(at + 16) - base, word(at + 24) & 0xFFFFFFFF
                if 0 < entries < end and 0 < count < 4096 and entries + ENTRY * count <= end:
                    tables[isa] = {word(e + 16) - base: text(e)
                                   for e in range(entries, entries + ENTRY * count, ENTRY)}  # fmt: skip
        return tables

    def _base(self) -> int:
        with open("/proc/self/maps") as f:
            for line in f:
                if line.rstrip().endswith(self.path):
                    return int(line.split("-")[0], 16)
        raise PlatformError(f"{self.path} is not loaded")


def _output(*command: str) -> list[str]:
    """Lines a tool prints."""
    done = subprocess.run(command, capture_output=True, text=True,
                          env={**os.environ, "LC_ALL": "C"})  # fmt: skip
    if done.returncode:
        raise PlatformError(f"{command[0]}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.splitlines()
