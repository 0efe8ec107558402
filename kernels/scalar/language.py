"""The scalar language: typed expression DAGs of exact or correctly rounded operations.

A function written here is emitted to NumPy, LLVM, C++ and single steps; since every operation is
exact or correctly rounded, all of them give the same bits. Standard library only: it also runs at
build time.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


class T(enum.Enum):
    """Scalar types; `code` is the byte used in microcode."""

    F32 = ("f32", 0)
    I32 = ("i32", 1)
    U32 = ("u32", 2)
    I64 = ("i64", 3)
    BOOL = ("bool", 4)

    def __init__(self, text: str, code: int) -> None:
        self.text = text
        self.code = code


F32, I32, U32, I64, BOOL = T.F32, T.I32, T.U32, T.I64, T.BOOL
INTS = (I32, U32, I64)
NUMBERS = (F32, *INTS)


@dataclass(frozen=True)
class OpInfo:
    """One operation of the language: code (microcode), arity, operand types, result, meaning."""

    code: int
    arity: int
    types: tuple[T, ...]
    result: str  # "same", "bool", or decided by the constructor ("given")
    meaning: str


OPS: dict[str, OpInfo] = {
    "param": OpInfo(0, 0, (), "given", "argument i"),
    "const": OpInfo(1, 0, (), "given", "the constant with these bits"),
    "add": OpInfo(2, 2, NUMBERS, "same", "a + b; f32 rounded to nearest even, integers wrap"),
    "sub": OpInfo(3, 2, NUMBERS, "same", "a - b; f32 rounded to nearest even, integers wrap"),
    "mul": OpInfo(4, 2, NUMBERS, "same", "a * b; f32 rounded to nearest even, integers wrap"),
    "fma": OpInfo(5, 3, (F32,), "same", "a * b + c rounded once"),
    "div": OpInfo(6, 2, (F32,), "same", "a / b rounded once"),
    "sqrt": OpInfo(7, 1, (F32,), "same", "square root rounded once"),
    "neg": OpInfo(8, 1, (F32, I32, I64), "same", "f32: sign bit flipped; integers: 0 - a, wraps"),
    "abs": OpInfo(9, 1, (F32, I32, I64), "same", "f32: sign bit cleared; integers: wraps"),
    "rint": OpInfo(10, 1, (F32,), "same", "to an integral value, half to even, sign of zero kept"),
    "lt": OpInfo(11, 2, NUMBERS, "bool", "a < b; false when unordered"),
    "le": OpInfo(12, 2, NUMBERS, "bool", "a <= b; false when unordered"),
    "eq": OpInfo(13, 2, (*NUMBERS, BOOL), "bool", "a == b; false when unordered"),
    "ne": OpInfo(14, 2, (*NUMBERS, BOOL), "bool", "a != b; true when unordered"),
    "select": OpInfo(15, 3, (*NUMBERS, BOOL), "given", "c ? a : b"),
    "convert": OpInfo(16, 1, (*NUMBERS, BOOL), "given",
                      "integer to f32 to nearest even; f32 to signed integer toward zero, "
                      "saturating, NaN to 0; between integers by wrapping; to bool: != 0; "
                      "from bool: 0 or 1"),
    "bitcast": OpInfo(17, 1, (F32, I32, U32), "given",
                      "the same 32 bits; no function may depend on the bits of a NaN"),
    "and": OpInfo(18, 2, (*INTS, BOOL), "same", "bitwise"),
    "or": OpInfo(19, 2, (*INTS, BOOL), "same", "bitwise"),
    "xor": OpInfo(20, 2, (*INTS, BOOL), "same", "bitwise"),
    "not": OpInfo(21, 1, (*INTS, BOOL), "same", "bitwise"),
    "shl": OpInfo(22, 2, INTS, "same", "a << b, 0 <= b < width"),
    "shr": OpInfo(23, 2, INTS, "same", "a >> b, 0 <= b < width; arithmetic for signed types"),
    "mul_hi": OpInfo(24, 2, (U32,), "same", "upper 32 bits of the 64-bit product"),
    "table": OpInfo(25, 1, (U32,), "given", "entry a of a constant table of u32, a in range"),
    "floordiv": OpInfo(26, 2, (I32, I64), "same",
                       "quotient toward minus infinity, wraps; 0 if b is 0"),
    "mod": OpInfo(27, 2, (I32, I64), "same", "a - floordiv(a, b) * b; 0 if b is 0"),
}  # fmt: skip
_NAME_OF_CODE = {info.code: name for name, info in OPS.items()}


class Expr:
    """A node of the DAG. Equal expressions are one object, so `is` and hashing are structural."""

    __slots__ = ("args", "op", "type", "value")
    op: str
    args: tuple[Expr, ...]
    type: T
    value: int | tuple[int, ...] | None  # bits of a const, index of a param, entries of a table

    def __add__(self, o: Operand) -> Expr:
        return make("add", self, _lift(o, self.type))

    def __radd__(self, o: Operand) -> Expr:
        return make("add", _lift(o, self.type), self)

    def __sub__(self, o: Operand) -> Expr:
        return make("sub", self, _lift(o, self.type))

    def __rsub__(self, o: Operand) -> Expr:
        return make("sub", _lift(o, self.type), self)

    def __mul__(self, o: Operand) -> Expr:
        return make("mul", self, _lift(o, self.type))

    def __rmul__(self, o: Operand) -> Expr:
        return make("mul", _lift(o, self.type), self)

    def __truediv__(self, o: Operand) -> Expr:
        return make("div", self, _lift(o, self.type))

    def __rtruediv__(self, o: Operand) -> Expr:
        return make("div", _lift(o, self.type), self)

    def __neg__(self) -> Expr:
        return make("neg", self)

    def __and__(self, o: Operand) -> Expr:
        return make("and", self, _lift(o, self.type))

    def __or__(self, o: Operand) -> Expr:
        return make("or", self, _lift(o, self.type))

    def __xor__(self, o: Operand) -> Expr:
        return make("xor", self, _lift(o, self.type))

    def __invert__(self) -> Expr:
        return make("not", self)

    def __lshift__(self, o: Operand) -> Expr:
        return make("shl", self, _lift(o, self.type))

    def __rshift__(self, o: Operand) -> Expr:
        return make("shr", self, _lift(o, self.type))

    def __lt__(self, o: Operand) -> Expr:
        return make("lt", self, _lift(o, self.type))

    def __le__(self, o: Operand) -> Expr:
        return make("le", self, _lift(o, self.type))

    def __gt__(self, o: Operand) -> Expr:
        return make("lt", _lift(o, self.type), self)

    def __ge__(self, o: Operand) -> Expr:
        return make("le", _lift(o, self.type), self)


Operand = Expr | int | float | bool
_interned: dict[tuple[object, ...], Expr] = {}


def _intern(op: str, args: tuple[Expr, ...], t: T, value: int | tuple[int, ...] | None) -> Expr:
    key = (op, tuple(map(id, args)), t, value)
    found = _interned.get(key)
    if found is None:
        found = object.__new__(Expr)
        found.op, found.args, found.type, found.value = op, args, t, value
        _interned[key] = found
    return found


def _lift(x: Operand, t: T) -> Expr:
    return x if isinstance(x, Expr) else const(x, t)


def f32_bits(x: float) -> int:
    """Bits of x rounded to float32."""
    return int.from_bytes(struct.pack(">f", x), "big")


def const(x: int | float | bool, t: T) -> Expr:
    """A constant; f32 from a Python float (rounded once), integers modulo their width."""
    if t is F32:
        return _intern("const", (), t, f32_bits(float(x)))
    width = {I32: 32, U32: 32, I64: 64, BOOL: 1}[t]
    return _intern("const", (), t, int(x) & ((1 << width) - 1))


def bits(pattern: int) -> Expr:
    """The f32 constant with this bit pattern."""
    return _intern("const", (), F32, pattern & 0xFFFFFFFF)


def param(index: int, t: T) -> Expr:
    return _intern("param", (), t, index)


def make(op: str, *args: Expr) -> Expr:
    """An operation whose result type follows from its operands; TypeError if they do not fit."""
    info = OPS[op]
    kind = args[0].type
    if len(args) != info.arity or any(a.type is not kind for a in args) or kind not in info.types:
        raise TypeError(f"{op}({', '.join(a.type.text for a in args)})")
    if info.result == "given":
        raise TypeError(f"{op} needs its own constructor")
    return _intern(op, args, BOOL if info.result == "bool" else kind, None)


def fma(a: Expr, b: Expr, c: Operand) -> Expr:
    return make("fma", a, b, _lift(c, F32))


def sqrt(a: Expr) -> Expr:
    return make("sqrt", a)


def absolute(a: Expr) -> Expr:
    return make("abs", a)


def rint(a: Expr) -> Expr:
    return make("rint", a)


def eq(a: Expr, b: Operand) -> Expr:
    return make("eq", a, _lift(b, a.type))


def ne(a: Expr, b: Operand) -> Expr:
    return make("ne", a, _lift(b, a.type))


def select(c: Expr, a: Operand, b: Operand) -> Expr:
    """c ? a : b; at least one of a, b an Expr, of one type."""
    t = a.type if isinstance(a, Expr) else b.type if isinstance(b, Expr) else None
    if t is None or c.type is not BOOL:
        raise TypeError("select: expected a bool and at least one expression")
    x, y = _lift(a, t), _lift(b, t)
    if x.type is not y.type:
        raise TypeError(f"select: {x.type.text} and {y.type.text}")
    return _intern("select", (c, x, y), t, None)


def convert(a: Expr, t: T) -> Expr:
    if a.type is t:
        return a
    if a.type is F32 and t is U32:
        raise TypeError("convert: f32 to u32 is not part of the language")
    return _intern("convert", (a,), t, None)


def bitcast(a: Expr, t: T) -> Expr:
    if a.type is t:
        return a
    if a.type not in OPS["bitcast"].types or t not in OPS["bitcast"].types:
        raise TypeError(f"bitcast: {a.type.text} to {t.text}")
    return _intern("bitcast", (a,), t, None)


def mul_hi(a: Expr, b: Operand) -> Expr:
    return make("mul_hi", a, _lift(b, U32))


def floordiv(a: Expr, b: Operand) -> Expr:
    return make("floordiv", a, _lift(b, a.type))


def mod(a: Expr, b: Operand) -> Expr:
    return make("mod", a, _lift(b, a.type))


def lookup(entries: Sequence[int], index: Expr) -> Expr:
    """Entry `index` (u32, in range) of a constant table of u32."""
    if index.type is not U32:
        raise TypeError("lookup: expected a u32 index")
    return _intern("table", (index,), U32, tuple(e & 0xFFFFFFFF for e in entries))


def is_nan(x: Expr) -> Expr:
    return ne(x, x)


def minimum(a: Expr, b: Expr) -> Expr:
    """NaN if either is NaN; -0 < +0. Integers as usual."""
    if a.type is not F32:
        return select(a < b, a, b)
    # equal values differ at most in the sign of zero: or-ing the bits gives -0 if either is
    both = bitcast(bitcast(a, U32) | bitcast(b, U32), F32)
    return select(is_nan(a), a, select(is_nan(b), b, select(eq(a, b), both, select(a < b, a, b))))


def maximum(a: Expr, b: Expr) -> Expr:
    """NaN if either is NaN; -0 < +0. Integers as usual."""
    if a.type is not F32:
        return select(a < b, b, a)
    both = bitcast(bitcast(a, U32) & bitcast(b, U32), F32)
    return select(is_nan(a), a, select(is_nan(b), b, select(eq(a, b), both, select(a < b, b, a))))


@dataclass(frozen=True)
class Function:
    """A named scalar function; calling it on expressions inlines it."""

    name: str
    params: tuple[T, ...]
    body: Expr

    def __call__(self, *args: Expr) -> Expr:
        if tuple(a.type for a in args) != self.params:
            raise TypeError(f"{self.name}: expected {[t.text for t in self.params]}")
        done: dict[Expr, Expr] = {}
        for e in walk(self.body):
            if e.op == "param":
                assert isinstance(e.value, int)
                done[e] = args[e.value]
            else:
                done[e] = _intern(e.op, tuple(done[a] for a in e.args), e.type, e.value)
        return done[self.body]

    @property
    def result(self) -> T:
        return self.body.type


def walk(body: Expr) -> Iterator[Expr]:
    """Every expression under body once, operands first, in a fixed order."""
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(body, False)]
    while stack:
        e, ready = stack.pop()
        if e in seen:
            continue
        if ready:
            seen.add(e)
            yield e
        else:
            stack.append((e, True))
            stack.extend((a, False) for a in reversed(e.args))


def replaced(body: Expr, by: Mapping[Expr, Expr]) -> Expr:
    """body with others, which are under them, in the place of some expressions."""
    new: dict[Expr, Expr] = {}
    for e in walk(body):
        if e in by:
            new[e] = new[by[e]]
        else:
            args = tuple(new[a] for a in e.args)
            new[e] = e if args == e.args else _intern(e.op, args, e.type, e.value)
    return new[body]


def function(name: str, *params: T) -> _Definer:
    """Decorator: a Python function over expressions becomes a Function."""
    return _Definer(name, params)


class _Definer:
    def __init__(self, name: str, params: tuple[T, ...]) -> None:
        self.name, self.params = name, params

    def __call__(self, f: object) -> Function:
        assert callable(f)
        body = f(*(param(i, t) for i, t in enumerate(self.params)))
        assert isinstance(body, Expr)
        return Function(self.name, self.params, body)
