"""Scalar functions as lists of single steps: what a dispute opens and a referee executes.

A program is a sequence of 8-byte big-endian records. Registers are numbered: the parameters, then
one per step; a step reads earlier registers only, and the last register is the result.

    header   f0, parameters u8, tables u16, steps u32
    param    opcode 0, type u8, six zero bytes
    step     opcode u8, types u8, a u16, b u16, c u16      unused operands are zero
    constant opcode 1, types u8, zero u16, immediate 32 bits (i64: sign-extended)
    table    sixteen entries u32, padded with zeros        (eight records)

The types byte is 16 * result + type of the last operand. A lookup has the index in a and the table
in b. Registers hold bit patterns; every NaN is 0x7fc00000. Opcodes are those of scalar.OPS.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ree.kernels.scalar.language import BOOL, F32, I32, I64, OPS, U32, Expr, Function, T, walk
from ree.kernels.scalar.softfloat import execute

RECORD = 8
TABLE_ENTRIES = 16
_HEADER = 0xF0
_NAMES = {info.code: name for name, info in OPS.items()}
_TYPE_OF_CODE = {t.code: t for t in T}
_ARITY = {name: info.arity for name, info in OPS.items()}


@dataclass(frozen=True)
class MicroStep:
    """One operation: operands are registers; `immediate` is a constant's bits or a table's index;
    `operand` is the type of the last operand (of the result, for a constant)."""

    op: str
    result: T
    operand: T
    args: tuple[int, ...]
    immediate: int = 0

    def encode(self) -> bytes:
        """The 8-byte record."""
        types = 16 * self.result.code + self.operand.code
        if self.op == "const":
            return struct.pack(">BBHI", OPS[self.op].code, types, 0, self.immediate)
        fields = [*self.args, *([self.immediate] if self.op == "table" else [])]
        fields += [0] * (3 - len(fields))
        return struct.pack(">BBHHH", OPS[self.op].code, types, *fields)


@dataclass(frozen=True)
class Microcode:
    """A function as steps; tables hold u32 entries."""

    params: tuple[T, ...]
    steps: tuple[MicroStep, ...]
    tables: tuple[tuple[int, ...], ...]

    def encode(self) -> bytes:
        """Canonical bytes, a whole number of records."""
        out = [struct.pack(">BBHI", _HEADER, len(self.params), len(self.tables), len(self.steps))]
        out += [struct.pack(">BB6x", OPS["param"].code, t.code) for t in self.params]
        out += [s.encode() for s in self.steps]
        out += [struct.pack(f">{TABLE_ENTRIES}I", *t) for t in self.tables]
        return b"".join(out)

    def run(self, inputs: Sequence[int]) -> list[int]:
        """Bit patterns of all registers for one element; inputs are bit patterns too. ValueError if
        their number is wrong, or a shift or table index is out of range."""
        if len(inputs) != len(self.params):
            raise ValueError(f"{len(self.params)} inputs expected, got {len(inputs)}")
        registers = list(inputs)
        for s in self.steps:
            registers.append(self.execute(s, [registers[a] for a in s.args]))
        return registers

    def execute(self, s: MicroStep, operands: Sequence[int]) -> int:
        """Bits of the result of one step; the whole of what a referee computes."""
        if s.op == "const":
            wide = s.result is I64 and s.immediate >> 31
            return s.immediate | (0xFFFFFFFF << 32 if wide else 0)
        if s.op == "table":
            (index,) = operands
            if index >= TABLE_ENTRIES:
                raise ValueError(f"table index {index}")
            return self.tables[s.immediate][index]
        return execute(s.op, s.operand, s.result, operands)


def assemble(function: Function) -> Microcode:
    """The steps of a function, in the order of `walk`; each shared expression once. ValueError if
    it needs more than 65,536 registers."""
    params = function.params
    number: dict[Expr, int] = {}
    steps: list[MicroStep] = []
    tables: dict[tuple[int, ...], int] = {}

    def add(op: str, result: T, operand: T, args: tuple[int, ...], immediate: int = 0) -> int:
        steps.append(MicroStep(op, result, operand, args, immediate))
        return len(params) + len(steps) - 1

    for e in walk(function.body):
        args = tuple(number[a] for a in e.args)
        if e.op == "param":
            assert isinstance(e.value, int)
            number[e] = e.value
        elif e.op == "const":
            assert isinstance(e.value, int)
            low = e.value & 0xFFFFFFFF
            number[e] = add("const", e.type, e.type, (), low)
            if e.type is I64 and _sign_extend(low) != e.value:
                high = add("const", I64, I64, (), e.value >> 32)
                amount = add("const", I64, I64, (), 32)
                high = add("shl", I64, I64, (high, amount))
                part = add("const", U32, U32, (), low)
                number[e] = add("or", I64, I64, (high, add("convert", I64, U32, (part,))))
        elif e.op == "table":
            assert isinstance(e.value, tuple)
            if len(e.value) > TABLE_ENTRIES:
                raise ValueError("table too large")
            entries = e.value + (0,) * (TABLE_ENTRIES - len(e.value))
            table = tables.setdefault(entries, len(tables))
            number[e] = add("table", U32, U32, args, table)
        else:
            number[e] = add(e.op, e.type, e.args[-1].type, args)
    if number[function.body] != len(params) + len(steps) - 1:  # a parameter: copy it
        add("bitcast", function.result, function.result, (number[function.body],))
    if len(params) + len(steps) > 1 << 16:
        raise ValueError(f"{function.name} needs more than 65,536 registers")
    return Microcode(params, tuple(steps), tuple(tables))


def microcode_bytes(function: Function) -> bytes:
    """Canonical bytes of a function's program, for hashing."""
    return assemble(function).encode()


def decode(data: bytes) -> Microcode:
    """The program with these bytes; ValueError unless encoding it again gives the same bytes and
    every step is well typed."""
    if len(data) < RECORD:
        raise ValueError("truncated program")
    tag, n_params, n_tables, n_steps = struct.unpack_from(">BBHI", data)
    if tag != _HEADER or len(data) != RECORD * (1 + n_params + n_steps + 8 * n_tables):
        raise ValueError("malformed program header")
    at = RECORD
    types: list[T] = []
    for _ in range(n_params):
        types.append(_type(data[at + 1]))
        at += RECORD
    params = tuple(types)
    steps = []
    for _ in range(n_steps):
        steps.append(_decode_step(data[at : at + RECORD], types, n_tables))
        types.append(steps[-1].result)
        at += RECORD
    tables = []
    for _ in range(n_tables):
        tables.append(struct.unpack_from(f">{TABLE_ENTRIES}I", data, at))
        at += 8 * RECORD
    program = Microcode(params, tuple(steps), tuple(tables))
    if program.encode() != data:
        raise ValueError("program is not canonical")
    return program


def _decode_step(record: bytes, types: list[T], n_tables: int) -> MicroStep:
    code, kinds, a, b, c = struct.unpack(">BBHHH", record)
    result, operand = _type(kinds >> 4), _type(kinds & 15)
    name = _NAMES.get(code, "")
    if name == "const":
        immediate = b << 16 | c
        if operand is not result or (result is BOOL and immediate > 1):
            raise ValueError("malformed constant")
        return MicroStep(name, result, operand, (), immediate)
    if name in ("", "param"):
        raise ValueError(f"unknown opcode {code}")
    args = (a, b, c)[: _ARITY[name]]
    if any(r >= len(types) for r in args):
        raise ValueError(f"{name} reads a register that is not written yet")
    step = MicroStep(name, result, operand, args, b if name == "table" else 0)
    if name == "table" and b >= n_tables:
        raise ValueError(f"no table {b}")
    if not _well_typed(step, [types[r] for r in args]):
        raise ValueError(f"{name}: operands have the wrong types")
    return step


def _well_typed(s: MicroStep, args: list[T]) -> bool:
    same = all(t is s.operand for t in (args[1:] if s.op == "select" else args))
    info = OPS[s.op]
    if not same or s.operand not in info.types:
        return False
    if s.op == "select":
        return args[0] is BOOL and s.result is s.operand
    if s.op == "table":
        return s.result is U32
    if s.op == "bitcast":
        return s.result is s.operand or {s.result, s.operand} <= {F32, I32, U32}
    if s.op == "convert":
        return s.result is not s.operand and (s.operand, s.result) != (F32, U32)
    return s.result is (BOOL if info.result == "bool" else s.operand)


def _type(code: int) -> T:
    if code not in _TYPE_OF_CODE:
        raise ValueError(f"unknown type {code}")
    return _TYPE_OF_CODE[code]


def _sign_extend(low: int) -> int:
    return low | (0xFFFFFFFF << 32 if low >> 31 else 0)
