"""LLVM text over a warp: a value is one for all lanes, or a vector of 32."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ree import _core

LANES = 32
PLACES = dict(_core.ptx_layout())
BITS = {"%p": 1, "%rs": 16, "%r": 32, "%rd": 64}
NAN = 0x7FFFFFFF  # the NaN that float32 arithmetic gives (PTX ISA, floating point instructions)


def bits_of(register: str) -> int:
    """Width of a register by its name."""
    return BITS[register.rstrip("0123456789")]


@dataclass(frozen=True)
class Value:
    """An LLVM operand: `text`, its integer width, and whether it is one for all lanes."""

    text: str
    bits: int
    uniform: bool = False

    @property
    def type(self) -> str:
        return type_of(self.bits, self.uniform)

    @property
    def constant(self) -> int | None:
        """The number, if it is one."""
        if self.text in ("true", "false"):
            return int(self.text == "true")
        return int(self.text) if self.uniform and re.fullmatch(r"-?\d+", self.text) else None


def type_of(bits: int, uniform: bool) -> str:
    return f"i{bits}" if uniform else f"<{LANES} x i{bits}>"


def number(x: int, bits: int) -> Value:
    """A constant, wrapped to its width."""
    x &= (1 << bits) - 1
    if bits == 1:
        return Value("true" if x else "false", 1, True)
    return Value(str(x - (1 << bits) if x >> (bits - 1) else x), bits, True)


class LlvmText:
    """LLVM statements of one function, with fresh names."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.declared: dict[str, str] = {}
        self.count = 0

    def say(self, line: str) -> None:
        self.lines.append(line)

    def name(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    def set(self, text: str) -> str:
        """A fresh name for what `text` computes."""
        name = self.name()
        self.say(f"{name} = {text}")
        return name

    def intrinsic(self, name: str, result: str, types: Sequence[str]) -> None:
        self.declared[name] = f"declare {result} @{name}({', '.join(types)})"

    def call(self, name: str, result: str, args: Sequence[tuple[str, str]]) -> str:
        """The result of an external function; args are (type, operand)."""
        self.intrinsic(name, result, [t for t, _ in args])
        text = f"call {result} @{name}({', '.join(f'{t} {x}' for t, x in args)})"
        if result == "void":
            self.say(text)
            return ""
        return self.set(text)

    # widths and lanes

    def vector(self, v: Value) -> Value:
        """The value in all lanes."""
        if not v.uniform:
            return v
        if v.constant is not None:
            return Value(f"splat (i{v.bits} {v.text})", v.bits)
        t = type_of(v.bits, False)
        one = self.set(f"insertelement {t} poison, i{v.bits} {v.text}, i32 0")
        return Value(
            self.set(f"shufflevector {t} {one}, {t} poison, <{LANES} x i32> zeroinitializer"),
            v.bits,
        )

    def alike(self, values: Sequence[Value]) -> list[Value]:
        """All uniform, or all vectors."""
        if all(v.uniform for v in values):
            return list(values)
        return [self.vector(v) for v in values]

    def width(self, v: Value, bits: int, signed: bool = False) -> Value:
        """Cut, or filled with zeros or the sign."""
        if v.bits == bits:
            return v
        c = v.constant
        if c is not None:
            c &= (1 << v.bits) - 1
            if signed and c >> (v.bits - 1):
                c -= 1 << v.bits
            return number(c, bits)
        op = "trunc" if bits < v.bits else "sext" if signed else "zext"
        return Value(
            self.set(f"{op} {v.type} {v.text} to {type_of(bits, v.uniform)}"), bits, v.uniform
        )

    # operations

    def op(self, name: str, *values: Value, bits: int | None = None) -> Value:
        """An LLVM operation of two operands alike."""
        a, b = self.alike(values)
        return Value(self.set(f"{name} {a.type} {a.text}, {b.text}"), bits or a.bits, a.uniform)

    def apply(self, name: str, *values: Value) -> Value:
        """An integer intrinsic of LLVM whose operands and result are of one type."""
        args = self.alike(values)
        v = args[0]
        suffix = f"i{v.bits}" if v.uniform else f"v{LANES}i{v.bits}"
        return Value(
            self.call(f"llvm.{name}.{suffix}", v.type, [(a.type, a.text) for a in args]),
            v.bits,
            v.uniform,
        )

    def compare(self, how: str, a: Value, b: Value) -> Value:
        return self.op(f"icmp {how}", a, b, bits=1)

    def select(self, p: Value, a: Value, b: Value) -> Value:
        p, a, b = self.alike((p, a, b))
        return Value(
            self.set(f"select {p.type} {p.text}, {a.type} {a.text}, {b.type} {b.text}"),
            a.bits,
            a.uniform,
        )

    # float32, whose bits are the values

    def floats(self, values: Sequence[Value]) -> list[str]:
        """Operands as floats, which must be alike."""
        return [self.set(f"bitcast {v.type} {v.text} to {self.float_type(v)}") for v in values]

    @staticmethod
    def float_type(v: Value) -> str:
        return "float" if v.uniform else f"<{LANES} x float>"

    def from_float(self, text: str, uniform: bool, canonical: bool = True) -> Value:
        """The bits of a float32 result; a NaN is the one that arithmetic gives."""
        like = Value("", 32, uniform)
        bits = Value(
            self.set(f"bitcast {self.float_type(like)} {text} to {like.type}"), 32, uniform
        )
        if not canonical:
            return bits
        nan = Value(self.set(f"fcmp uno {self.float_type(like)} {text}, {text}"), 1, uniform)
        return self.select(nan, number(NAN, 32), bits)

    def float_op(self, name: str, *values: Value) -> Value:
        """fadd, fsub, ... or an intrinsic as `llvm.fma`."""
        args = self.alike(values)
        texts, uniform = self.floats(args), args[0].uniform
        kind = self.float_type(args[0])
        if name.startswith("llvm."):
            full = f"{name}.{'f32' if uniform else f'v{LANES}f32'}"
            out = self.call(full, kind, [(kind, x) for x in texts])
        else:
            out = self.set(f"{name} {kind} {', '.join(texts)}")
        return self.from_float(out, uniform)

    def float_compare(self, how: str, a: Value, b: Value) -> Value:
        a, b = self.alike((a, b))
        x, y = self.floats((a, b))
        return Value(self.set(f"fcmp {how} {self.float_type(a)} {x}, {y}"), 1, a.uniform)

    # memory of a warp

    def place(self, base: str, offset: int) -> str:
        return self.set(f"getelementptr i8, ptr {base}, i64 {offset}") if offset else base

    def field(self, name: str, offset: int = 0) -> str:
        """Address of a field of the warp."""
        return self.place("%warp", PLACES[name] + offset)

    def word(self, name: str, offset: int = 0) -> Value:
        """A 32-bit field of the warp."""
        return Value(self.set(f"load i32, ptr {self.field(name, offset)}, align 4"), 32, True)

    def put(self, v: Value, operand: int, slot: int | None = None) -> None:
        """A vector into the warp's data, as operand number `operand` of its width."""
        v = self.vector(v)
        offset = slot if slot is not None else operand * LANES * v.bits // 8
        self.say(f"store {v.type} {v.text}, ptr {self.field('data', offset)}, align 32")

    def take(self, operand: int, bits: int) -> Value:
        """A result from the warp's data."""
        t = type_of(bits, False)
        at = self.field("data", operand * LANES * bits // 8)
        return Value(self.set(f"load {t}, ptr {at}, align 32"), bits)

    def put_address(self, v: Value) -> None:
        v = self.vector(self.width(v, 64))
        self.say(f"store {v.type} {v.text}, ptr {self.field('address')}, align 64")
