"""LLVM IR for the scalar language: values are scalars, or vectors of `lanes` elements.

Only operations that LLVM defines exactly are used, and none that a backend turns into a call to the
C library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import llvmlite.ir as ll

from ree.compiler.emit.unseen import without_unseen
from ree.kernels.scalar.language import BOOL, F32, I32, I64, U32, Expr, Function, walk

_TYPES = {
    F32: ll.FloatType(), I32: ll.IntType(32), U32: ll.IntType(32), I64: ll.IntType(64),
    BOOL: ll.IntType(1),
}  # fmt: skip
_SIGN = 0x80000000


def emit(
    builder: ll.IRBuilder,
    body: Function | Expr,
    args: Sequence[ll.Value],
    lanes: int,
    hardware_fma: bool,
    cache: dict[object, ll.Value] | None = None,
) -> ll.Value:
    """The value of a function (or expression over parameters 0, 1, ...) applied to `args`.

    With lanes == 1 values are scalars, else <lanes x type>; bool is i1. Without `hardware_fma` the
    baseline of the architecture is assumed: fma and rint are spelled out. A `cache` kept by the
    caller for one block of code makes a function of the same arguments be emitted once.
    """
    root = without_unseen(root_of(body))
    cache = {} if cache is None else cache
    key = (root, lanes, tuple(args))
    if key not in cache:
        e = _Emitter(builder, lanes, hardware_fma)
        values: dict[Expr, ll.Value] = {}
        for node in walk(root):
            if node.op == "param":
                assert isinstance(node.value, int)
                values[node] = args[node.value]
            else:
                values[node] = _EMIT[node.op](e, node, [values[a] for a in node.args])
        cache[key] = values[root]
    return cache[key]


def root_of(body: Function | Expr) -> Expr:
    """The expression a function computes."""
    return body.body if isinstance(body, Function) else body


@dataclass(frozen=True)
class _Emitter:
    b: ll.IRBuilder
    lanes: int
    hardware_fma: bool

    def type(self, t: ll.Type) -> ll.Type:
        return t if self.lanes == 1 else ll.VectorType(t, self.lanes)

    def const(self, t: ll.Type, x: float) -> ll.Constant:
        return ll.Constant(self.type(t), x if self.lanes == 1 else [x] * self.lanes)

    def intrinsic(self, name: str, result: ll.Type, args: Sequence[ll.Value]) -> ll.Value:
        """A call of an overloaded intrinsic on values of this width."""
        overloads = [result] if name.startswith("fpto") else []
        suffix = "".join(f".{_mangle(t)}" for t in [*overloads, args[0].type])
        signature = ll.FunctionType(result, [a.type for a in args])
        name = f"llvm.{name}{suffix}"
        found = self.b.module.globals.get(name)
        return self.b.call(found or ll.Function(self.b.module, signature, name), args)

    def bits(self, x: ll.Value, size: int = 32) -> ll.Value:
        return self.b.bitcast(x, self.type(ll.IntType(size)))


def _mangle(t: ll.Type) -> str:
    if isinstance(t, ll.VectorType):
        return f"v{t.count}{_mangle(t.element)}"
    return "f32" if isinstance(t, ll.FloatType) else f"i{t.width}"


_Rule = Callable[[_Emitter, Expr, list[ll.Value]], ll.Value]


def _const(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
    assert isinstance(node.value, int)
    if node.type is F32:
        return e.b.bitcast(e.const(ll.IntType(32), node.value), e.type(ll.FloatType()))
    return e.const(_TYPES[node.type], node.value)


def _fma(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
    if e.hardware_fma:
        return e.intrinsic("fma", args[0].type, args)
    # The product is exact in double; the sum is rounded to odd there, so that rounding it to float
    # is the only rounding (Boldo and Melquiond, 2008). As `fma` of csrc/isa/portable.hpp.
    b, i64 = e.b, ll.IntType(64)
    a, m, c = (b.fpext(x, e.type(ll.DoubleType())) for x in args)
    p = b.fmul(a, m)
    s = b.fadd(p, c)
    t = b.fsub(s, p)
    error = b.fadd(b.fsub(p, b.fsub(s, t)), b.fsub(c, t))
    zero = e.const(ll.DoubleType(), 0.0)
    s_bits, e_bits = e.bits(s, 64), e.bits(error, 64)
    even = b.icmp_signed("==", b.and_(s_bits, e.const(i64, 1)), e.const(i64, 0))
    finite = b.fcmp_ordered("==", b.fsub(s, s), zero)
    fix = b.and_(b.and_(b.fcmp_ordered("!=", error, zero), finite), even)
    # one ulp away from zero if error and sum have one sign, else one toward it
    toward = b.or_(b.ashr(b.xor(s_bits, e_bits), e.const(i64, 63)), e.const(i64, 1))
    odd = b.add(s_bits, b.select(fix, toward, e.const(i64, 0)))
    return b.fptrunc(b.bitcast(odd, e.type(ll.DoubleType())), e.type(ll.FloatType()))


def _rint(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
    (x,) = args
    if e.hardware_fma:
        return e.intrinsic("roundeven", x.type, args)
    b, i32 = e.b, ll.IntType(32)
    sign = b.and_(e.bits(x), e.const(i32, _SIGN))
    magic = b.bitcast(b.or_(sign, e.const(i32, 0x4B000000)), x.type)  # 2^23 with the sign of x
    r = e.bits(b.fsub(b.fadd(x, magic), magic))
    r = b.bitcast(b.or_(b.and_(r, e.const(i32, _SIGN - 1)), sign), x.type)
    small = b.icmp_unsigned("<", b.and_(e.bits(x), e.const(i32, _SIGN - 1)),
                            e.const(i32, 0x4B000000))  # fmt: skip
    return b.select(small, r, x)


def _neg(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
    if node.type is not F32:
        return e.b.sub(e.const(_TYPES[node.type], 0), args[0])
    flipped = e.b.xor(e.bits(args[0]), e.const(ll.IntType(32), _SIGN))
    return e.b.bitcast(flipped, args[0].type)


def _abs(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
    (x,) = args
    if node.type is not F32:
        zero = e.const(_TYPES[node.type], 0)
        return e.b.select(e.b.icmp_signed("<", x, zero), e.b.sub(zero, x), x)
    return e.b.bitcast(e.b.and_(e.bits(x), e.const(ll.IntType(32), _SIGN - 1)), x.type)


def _compare(symbol: str) -> _Rule:
    def rule(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
        kind = node.args[0].type
        if kind is F32:
            compare = e.b.fcmp_unordered if symbol == "!=" else e.b.fcmp_ordered
        else:
            compare = e.b.icmp_signed if kind in (I32, I64) else e.b.icmp_unsigned
        return compare(symbol, *args)

    return rule


def _convert(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
    source, target, (x,), b = node.args[0].type, node.type, args, e.b
    to = e.type(_TYPES[target])
    if target is BOOL:
        zero = e.const(_TYPES[source], 0)
        if source is F32:
            return b.fcmp_unordered("!=", x, zero)
        return b.icmp_unsigned("!=", x, zero)
    if source is F32:
        return e.intrinsic("fptosi.sat", to, args)  # saturates, NaN gives 0
    if target is F32:
        return b.uitofp(x, to) if source in (BOOL, U32) else b.sitofp(x, to)
    if target is I64:
        return b.sext(x, to) if source is I32 else b.zext(x, to)
    if source is I64:
        return b.trunc(x, to)
    return b.zext(x, to) if source is BOOL else x


def _bitcast(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
    return e.b.bitcast(args[0], e.type(_TYPES[node.type]))


def _mul_hi(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
    wide = e.type(ll.IntType(64))
    product = e.b.mul(e.b.zext(args[0], wide), e.b.zext(args[1], wide))
    return e.b.trunc(e.b.lshr(product, e.const(ll.IntType(64), 32)), args[0].type)


def _floordiv(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
    (a, divisor), b, t = args, e.b, _TYPES[node.type]
    zero, minus_one = e.const(t, 0), e.const(t, -1)
    is_zero = b.icmp_signed("==", divisor, zero)
    # the machine traps on these two divisors: divide by one, then negate or discard
    opposite = b.icmp_signed("==", divisor, minus_one)
    d = b.select(b.or_(is_zero, opposite), e.const(t, 1), divisor)
    q = b.sdiv(a, d)
    rest = b.sub(a, b.mul(q, d))
    below = b.and_(b.icmp_signed("!=", rest, zero), b.icmp_signed("<", b.xor(rest, d), zero))
    q = b.select(below, b.add(q, minus_one), q)
    return b.select(is_zero, zero, b.select(opposite, b.sub(zero, a), q))


def _mod(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
    rest = e.b.sub(args[0], e.b.mul(_floordiv(e, node, args), args[1]))
    zero = e.const(_TYPES[node.type], 0)
    return e.b.select(e.b.icmp_signed("==", args[1], zero), zero, rest)


def _table(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
    """A tree of selects on the bits of the index: no memory, and equal halves cost nothing."""
    assert isinstance(node.value, tuple)
    i32, (index,) = ll.IntType(32), args
    width = max(len(node.value) - 1, 0).bit_length()
    entries = node.value + node.value[-1:] * ((1 << width) - len(node.value))
    bits = [
        e.b.icmp_unsigned("!=", e.b.and_(index, e.const(i32, 1 << k)), e.const(i32, 0))
        for k in range(width)
    ]

    def pick(part: tuple[int, ...], level: int) -> ll.Value:
        if len(set(part)) == 1:
            return e.const(i32, part[0])
        half = len(part) // 2
        low, high = pick(part[:half], level - 1), pick(part[half:], level - 1)
        return e.b.select(bits[level], high, low)

    return pick(entries, width - 1)


def _arithmetic(float_op: str, int_op: str) -> _Rule:
    def rule(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
        value: ll.Value = getattr(e.b, float_op if node.type is F32 else int_op)(*args)
        return value

    return rule


def _plain(name: str) -> _Rule:
    return _arithmetic(name, name)


def _sqrt(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
    return e.intrinsic("sqrt", args[0].type, args)


def _shr(e: _Emitter, node: Expr, args: list[ll.Value]) -> ll.Value:
    return e.b.lshr(*args) if node.type is U32 else e.b.ashr(*args)


_EMIT: dict[str, _Rule] = {
    "const": _const,
    "add": _arithmetic("fadd", "add"),
    "sub": _arithmetic("fsub", "sub"),
    "mul": _arithmetic("fmul", "mul"),
    "fma": _fma,
    "div": _plain("fdiv"),
    "sqrt": _sqrt,
    "neg": _neg,
    "abs": _abs,
    "rint": _rint,
    "lt": _compare("<"),
    "le": _compare("<="),
    "eq": _compare("=="),
    "ne": _compare("!="),
    "select": _plain("select"),
    "convert": _convert,
    "bitcast": _bitcast,
    "and": _plain("and_"),
    "or": _plain("or_"),
    "xor": _plain("xor"),
    "not": _plain("not_"),
    "shl": _plain("shl"),
    "shr": _shr,
    "mul_hi": _mul_hi,
    "floordiv": _floordiv,
    "mod": _mod,
    "table": _table,
}
