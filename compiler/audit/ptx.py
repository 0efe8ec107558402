"""Symbolic execution of PTX: what a kernel stores, as expressions of what it loads.

Addresses, predicates and control flow are computed; floats are expressions. All threads of a program
run, up to the next barrier each; what `cp.async` copies arrives as early or as late as it may, by
choice, so that a copy into memory still being read shows as a wrong expression. An instruction that
is not known here stops the proof.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ree.compiler.audit.gpu import CompiledKernel
from ree.compiler.ptx.source import PtxError
from ree.kernels.gpu.launch import Ptr
from ree.kernels.numerics import SEGMENT

Expr = tuple[Any, ...]  # (operation, *operands), ("in", pointer, element) or ("const", bits)
Value = int | bool | Expr

POINTER = 1 << 40  # distance between the parameters' memories
SHARED = 1 << 30
LIMIT = 20_000_000  # instructions of one program


@dataclass
class _Thread:
    tid: int
    at: int = 0
    registers: dict[str, Value] = field(default_factory=dict)
    copies: list[list[tuple[int, int, int, int]]] = field(default_factory=lambda: [[]])
    done: bool = False


@dataclass(frozen=True)
class _Instruction:
    guard: str  # "%p1", "!%p1" or ""
    op: str
    args: tuple[str, ...]


class Kernel:
    """The instructions of one entry point."""

    def __init__(self, text: str) -> None:
        m = re.search(r"\.visible \.entry (\w+)\((.*?)\)(.*?)^\{(.*?)^\}", text, re.S | re.M)
        if m is None:
            raise PtxError("PTX: expected one entry point")
        self.name, parameters, directives, body = m.groups()
        self.parameters = re.findall(r"(\w+)(?:,|\s*$)", parameters, re.M)
        threads = re.search(r"\.reqntid (\d+)", directives)
        self.threads = int(threads[1]) if threads else 1
        self.code: list[_Instruction] = []
        self.labels: dict[str, int] = {}
        body = re.sub(r"//.*", "", body)
        for statement in re.split(r";|(?<=:)\s*\n", body):
            statement = " ".join(statement.split())
            label = re.fullmatch(r"(\$\w+):", statement)
            if label:
                self.labels[label[1]] = len(self.code)
                continue
            m = re.fullmatch(r"(?:\.loc [^.]*?(?=[@a-z]))?(?:@(!?%p\d+) )?([a-z][\w.:]*)(?: (.*))?",
                             re.sub(r"\.loc \d+ \d+ \d+(?:, function_name \S+, inlined_at \d+ \d+ \d+)?",
                                    "", statement).strip())  # fmt: skip
            if m:
                self.code.append(_Instruction(m[1] or "", m[2], _arguments(m[3] or "")))
            elif statement and not statement.startswith("."):
                raise PtxError(f"PTX: not understood: {statement[:80]}")


def _arguments(text: str) -> tuple[str, ...]:
    """Operands; a {group} is one."""
    return tuple(a.strip() for a in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*", text))


def run(
    kernel: Kernel,
    grid: Sequence[int],
    params: Sequence[int],
    stored: Mapping[int, Value],
    late: bool,
) -> dict[int, Value]:
    """Global memory by address after all programs of the grid ran on `stored`.

    params: integers; for pointers, multiples of POINTER. late: copies arrive when they are waited for.
    """
    memory = dict(stored)
    for z in range(grid[2]):
        for y in range(grid[1]):
            for x in range(grid[0]):
                _Program(kernel, (x, y, z), grid, params, memory, late).run()
    return memory


class _Program:
    def __init__(
        self, kernel: Kernel, place: tuple[int, int, int], grid: Sequence[int],
        params: Sequence[int], memory: dict[int, Value], late: bool,
    ) -> None:  # fmt: skip
        self.kernel, self.memory, self.late = kernel, memory, late
        self.params = dict(zip(kernel.parameters, params, strict=False))
        self.shared: dict[int, Value] = {}
        self.special = {f"%ctaid.{a}": i for a, i in zip("xyz", place, strict=True)}
        self.special |= {f"%nctaid.{a}": i for a, i in zip("xyz", grid, strict=True)}
        self.left = LIMIT

    def run(self) -> None:
        threads = [_Thread(i) for i in range(self.kernel.threads)]
        while not all(t.done for t in threads):
            for t in threads:
                self._until_barrier(t)

    def _until_barrier(self, t: _Thread) -> None:
        code = self.kernel.code
        while not t.done:
            i = code[t.at]
            t.at += 1
            self.left -= 1
            if self.left < 0:
                raise PtxError(f"PTX: {self.kernel.name} runs too long")
            if i.guard and self._value(t, i.guard.removeprefix("!")) is i.guard.startswith("!"):
                continue
            if i.op.startswith("bra"):
                t.at = self.kernel.labels[i.args[0]]
            elif i.op == "ret":
                self._arrive(t, 0)
                t.done = True
            elif i.op == "bar.sync":
                return
            else:
                self._step(t, i)

    def _value(self, t: _Thread, x: str) -> Value:
        if x.startswith("%"):
            if x.startswith("%tid"):
                return t.tid if x == "%tid.x" else 0
            if x in self.special:
                return self.special[x]
            if x not in t.registers:
                raise PtxError(f"PTX: {x} is read before it is set")
            return t.registers[x]
        if x == "global_smem":
            return SHARED
        if x.startswith("0f"):
            return int(x[2:], 16)
        return int(x, 0)

    def _address(self, t: _Thread, x: str) -> int:
        base, _, offset = x.strip("[] ").partition("+")
        at = self._value(t, base.strip())
        if not isinstance(at, int):
            raise PtxError("PTX: an address depends on data")
        return at + int(offset or 0)

    def _load(self, at: int) -> Value:
        if SHARED <= at < POINTER:
            if at not in self.shared:
                raise PtxError(f"PTX: shared memory is read at {at - SHARED} before it is written")
            return self.shared[at]
        return self.memory.get(at, ("in", at // POINTER, at % POINTER // 4))

    def _arrive(self, t: _Thread, groups: int) -> None:
        """Finish copies of all but the newest `groups` committed groups."""
        while len(t.copies) - 1 > groups:
            for to, source, size, given in t.copies.pop(0):
                for b in range(0, size, 4):
                    self.shared[to + b] = self._load(source + b) if b < given else 0

    def _step(self, t: _Thread, i: _Instruction) -> None:
        op, a = i.op, i.args
        kind = op.split(".")[0]
        if kind == "ld" and ".param" in op:
            t.registers[a[0]] = self.params[a[1].strip("[]")]
        elif kind == "ld":
            at, wide = self._address(t, a[1]), op.endswith("64")
            for n, r in enumerate(_group(a[0])):
                where = at + (8 if wide else 4) * n
                low = self._load(where)
                high = self._load(where + 4) if wide else 0
                # a narrow load may fill a wide register with zeros
                t.registers[r] = pair(low, high) if r.startswith("%rd") else low
        elif kind == "st":
            at = self._address(t, a[0])
            target = self.shared if SHARED <= at < POINTER else self.memory
            words = [self._value(t, r) for r in _group(a[1])]
            if op.endswith("64"):
                words = [w for x in words for w in halves(x)]
            target.update({at + 4 * n: w for n, w in enumerate(words)})
        elif op == "mov.b64" and a[1].startswith("{"):
            low, high = (self._value(t, r) for r in _group(a[1]))
            t.registers[a[0]] = pair(low, high)
        elif op == "mov.b64" and a[0].startswith("{"):
            t.registers.update(zip(_group(a[0]), halves(self._value(t, a[1])), strict=True))
        elif op.startswith("cp.async.c") and "shared" in op:
            size = int(a[2], 0)
            given = self._value(t, a[3]) if len(a) > 3 else size
            t.copies[-1].append((self._address(t, a[0]), self._address(t, a[1]), size, int(given)))  # type: ignore[arg-type]
            if not self.late:
                to, source, size, given = t.copies[-1].pop()
                t.copies[-1].append((to, source, 0, 0))
                for b in range(0, size, 4):
                    self.shared[to + b] = self._load(source + b) if b < given else 0
        elif op == "cp.async.commit_group":
            t.copies.append([])
        elif op == "cp.async.wait_group":
            self._arrive(t, int(a[0]))
        else:
            values = [self._value(t, x) for x in a[1:]]
            t.registers[a[0]] = compute(op, values)


def _group(text: str) -> list[str]:
    """Registers of a {group}, or the one."""
    return [r.strip() for r in text.strip("{} ").split(",")]


def pair(low: Value, high: Value) -> Value:
    """64 bits of two words."""
    if isinstance(low, int) and isinstance(high, int):
        return low | high << 32
    return ("pair", low, high)


def halves(x: Value) -> tuple[Value, Value]:
    """The two words of 64 bits."""
    if isinstance(x, int):
        return x & 0xFFFFFFFF, x >> 32
    if x[0] != "pair":
        raise PtxError(f"PTX: {x[0]} is taken apart")
    return x[1], x[2]


def _signed(x: int, bits: int) -> int:
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x


def _divide(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


_INTEGER: dict[str, Callable[..., int]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "mad": lambda a, b, c: a * b + c, "div": _divide, "rem": lambda a, b: a - _divide(a, b) * b,
    "min": min, "max": max, "neg": lambda a: -a, "not": lambda a: ~a, "abs": abs,
    "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b,
    "shl": lambda a, b: a << b, "shr": lambda a, b: a >> b,
    "bfe": lambda a, at, n: (a >> at) & ((1 << n) - 1),
    "mov": lambda a: a, "cvt": lambda a: a, "cvta": lambda a: a,
}  # fmt: skip
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
}  # fmt: skip


def compute(op: str, v: Sequence[Value]) -> Value:
    """One instruction without memory: integers are computed, what depends on data is an expression."""
    kind, *rest = op.split(".")
    if kind == "selp" and isinstance(v[2], bool):
        return v[0] if v[2] else v[1]
    if kind == "mov" and len(v) == 1:
        return v[0]
    if rest[-1] == "f32x2":
        one = op.removesuffix("x2")
        low, high = zip(*map(halves, v), strict=True)
        return pair(compute(one, low), compute(one, high))
    if any(isinstance(x, tuple) for x in v) and (moved := _move(op, v)) is not None:
        return moved
    if rest[-1] == "f32" or any(isinstance(x, tuple) for x in v):
        return (op, *(x if isinstance(x, tuple) else ("const", x) for x in v))
    if rest[-1] == "pred":
        return bool(_INTEGER[kind](*v) & 1)
    if not re.fullmatch(r"[subp]\d+|pred", rest[-1]) or kind not in (*_INTEGER, "setp"):
        raise PtxError(f"PTX: unknown instruction {op}")
    bits = int(rest[-1][1:])
    source = bits
    if kind == "cvt":
        source, bits = bits, int(rest[-2][1:])
    sign = rest[-1][0] == "s"
    wide = "wide" in rest

    def read(x: Value, n: int) -> int:
        return _signed(int(x), n) if sign else int(x) & ((1 << n) - 1)  # type: ignore[arg-type]

    ints = [read(x, 2 * source if wide and n == 2 else source) for n, x in enumerate(v)]
    if kind == "setp":
        return _COMPARE[rest[0]](*ints[:2])
    out = _INTEGER[kind](*ints) >> (bits if "hi" in rest else 0)
    return out & ((1 << (2 * bits if wide else bits)) - 1)


def _move(op: str, v: Sequence[Value]) -> Value | None:
    """Words put into 64 bits and taken out again; None if that is not what the instruction does."""
    if op == "cvt.u64.u32":
        return pair(v[0], 0)
    if op == "cvt.u32.u64":
        return halves(v[0])[0]
    if op == "shl.b64" and v[1] == 32:
        return pair(0, halves(v[0])[0])
    if op in ("shr.u64", "shr.b64") and v[1] == 32:
        return pair(halves(v[0])[1], 0)
    if op == "or.b64":
        words = [(x, y) if y != 0 else (y, x) for x, y in zip(*map(halves, v), strict=True)]
        if all(x == 0 for x, _ in words):
            return pair(words[0][1], words[1][1])
    return None


# the contract


def contraction(a: Sequence[Value], b: Sequence[Value]) -> Expr:
    """The contract's chain over k: segments of 128 from +0, added in order to a total from +0."""
    zero: Expr = ("const", 0)
    total = zero
    for at in range(0, len(a), SEGMENT):
        acc = zero
        for x, y in zip(a[at : at + SEGMENT], b[at : at + SEGMENT], strict=True):
            acc = ("fma.rn.f32", x, y, acc)
        total = ("add.rn.f32", total, acc)
    return total


def without_canonical(x: Value) -> Value:
    """What is stored, before its NaNs became canonical."""
    if isinstance(x, tuple) and x[0] == "selp.b32" and x[1] == ("const", 0x7FC00000):
        _, _, value, is_nan = x
        limit = ("const", 0x7F800000)
        for magnitude in (("and.b32", value, ("const", 0x7FFFFFFF)), ("abs.f32", value)):
            if is_nan == ("setp.gt.u32", magnitude, limit):
                return value  # type: ignore[no-any-return]
    return x


def stored(launches: Sequence[CompiledKernel], late: bool) -> dict[tuple[int, int], Value]:
    """What compiled launches, one after the other, leave in global memory, by (slot, element)."""
    slots: dict[int, int] = {}
    memory: dict[int, Value] = {}
    for c in launches:
        # Triton leaves out integers that are 1, and adds two pointers of its own
        params = [
            POINTER * slots.setdefault(a.slot, len(slots) + 1) + a.offset
            if isinstance(a, Ptr)
            else a
            for a in c.launch.args
            if not (isinstance(a, int) and a == 1)
        ]
        memory = run(Kernel(c.text), c.launch.grid, [*params, 0, 0], memory, late)
    at = {n: slot for slot, n in slots.items()}

    def name(x: Value) -> Value:
        if not isinstance(x, tuple) or x[0] == "const":
            return x
        return ("in", at[x[1]], x[2]) if x[0] == "in" else (x[0], *map(name, x[1:]))

    return {(at[k // POINTER], k % POINTER // 4): name(v) for k, v in memory.items()}
