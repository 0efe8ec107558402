"""The operations of the scalar language on bit patterns, in exact integer arithmetic.

Slow and independent of any floating-point unit: the meaning a referee implements. A float32 is its
32 bits, an i64 its 64, a bool 0 or 1. Every NaN result is 0x7fc00000.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt

from ree.kernels.scalar.language import BOOL, F32, I64, U32, T

NAN, INF, SIGN = 0x7FC00000, 0x7F800000, 0x80000000
ONE = 0x3F800000


def execute(op: str, operand: T, result: T, args: Sequence[int]) -> int:
    """Bits of op(args); `operand` is the type of the last operand. ValueError if a shift is out of
    range."""
    if op == "select":
        return args[1] if args[0] else args[2]
    if op == "convert":
        return _convert(args[0], operand, result)
    if op == "bitcast":
        return _canonical(args[0]) if F32 in (operand, result) else args[0]
    if operand is F32:
        return _FLOAT[op](*args)
    return _integer(op, operand, args)


def is_nan(x: int) -> bool:
    return x & 0x7FFFFFFF > INF


def _canonical(x: int) -> int:
    return NAN if is_nan(x) else x


def _split(x: int) -> tuple[int, int]:
    """(n, e) with |x| = n * 2^e, for finite x."""
    exponent, fraction = x >> 23 & 0xFF, x & 0x7FFFFF
    return (fraction | 1 << 23, exponent - 150) if exponent else (fraction, -149)


def _signed(x: int) -> tuple[int, int]:
    n, e = _split(x)
    return (-n if x & SIGN else n), e


def pack(sign: int, n: int, e: int, sticky: bool = False) -> int:
    """n * 2^e (n >= 0), plus less than 2^e if sticky, rounded to nearest even; overflow gives
    infinity. `sign` is 0 or 1."""
    n, e = (n << 2 | sticky, e - 2)
    shift = max(n.bit_length() - 24, -149 - e)
    if shift > 0:
        kept, lost, half = n >> shift, n & (1 << shift) - 1, 1 << shift - 1
        n = kept + (lost > half or (lost == half and kept & 1))
        e += shift
    else:
        n, e = n << -shift, e + shift
    if n >> 24:
        n, e = n >> 1, e + 1
    # n < 2^23 only at the least exponent: a subnormal or zero, with exponent field 0
    field = e + 150 if n >> 23 else 0
    magnitude = INF if field >= 255 else field << 23 | n & 0x7FFFFF
    return sign << 31 | magnitude


def fma(a: int, b: int, c: int) -> int:
    sign = (a ^ b) >> 31
    if is_nan(a) or is_nan(b) or is_nan(c):
        return NAN
    infinite = [x & 0x7FFFFFFF == INF for x in (a, b, c)]
    if infinite[0] or infinite[1]:
        if not a & 0x7FFFFFFF or not b & 0x7FFFFFFF or (infinite[2] and c >> 31 != sign):
            return NAN
        return sign << 31 | INF
    if infinite[2]:
        return c
    (na, ea), (nb, eb), (nc, ec) = _signed(a), _signed(b), _signed(c)
    e = min(ea + eb, ec)
    total = (na * nb << ea + eb - e) + (nc << ec - e)
    if total == 0:  # two zeros of one sign keep it; everything else that cancels is +0
        return sign << 31 if sign == c >> 31 and not nc else 0
    return pack(int(total < 0), abs(total), e)


def mul(a: int, b: int) -> int:
    return fma(a, b, (a ^ b) & SIGN)  # a zero of the product's sign changes nothing


def add(a: int, b: int) -> int:
    return fma(a, ONE, b)


def neg(a: int) -> int:
    return _canonical(a ^ SIGN)


def div(a: int, b: int) -> int:
    sign = (a ^ b) >> 31
    if is_nan(a) or is_nan(b):
        return NAN
    ma, mb = a & 0x7FFFFFFF, b & 0x7FFFFFFF
    if (ma == INF and mb == INF) or (not ma and not mb):
        return NAN
    if ma == INF or not mb:
        return sign << 31 | INF
    if mb == INF or not ma:
        return sign << 31
    (na, ea), (nb, eb) = _split(a), _split(b)
    quotient, rest = divmod(na << 64, nb)
    return pack(sign, quotient, ea - eb - 64, rest != 0)


def sqrt(a: int) -> int:
    if is_nan(a) or (a & SIGN and a != SIGN):
        return NAN
    if a in (0, SIGN, INF):
        return a
    n, e = _split(a)
    n, e = n << 64 + (e & 1), e - 64 - (e & 1)
    root = isqrt(n)
    return pack(0, root, e // 2, root * root != n)


def rint(a: int) -> int:
    if is_nan(a):
        return NAN
    if a & 0x7FFFFFFF >= 0x4B000000:  # 2^23: integral already
        return a
    n, e = _split(a)
    kept, lost, half = n >> -e, n & (1 << -e) - 1, 1 << -e - 1
    return pack(a >> 31, kept + (lost > half or (lost == half and kept & 1)), 0)


def _key(x: int) -> int:
    """Orders like the value, zeros alike; x is not NaN."""
    return -(x & 0x7FFFFFFF) if x & SIGN else x


def _ordered(compare: Callable[[int, int], bool]) -> Callable[[int, int], int]:
    def op(a: int, b: int) -> int:
        return int(not is_nan(a) and not is_nan(b) and compare(_key(a), _key(b)))

    return op


_FLOAT: dict[str, Callable[..., int]] = {
    "add": add,
    "sub": lambda a, b: add(a, neg(b)),
    "mul": mul,
    "fma": fma,
    "div": div,
    "sqrt": sqrt,
    "neg": neg,
    "abs": lambda a: _canonical(a & 0x7FFFFFFF),
    "rint": rint,
    "lt": _ordered(lambda a, b: a < b),
    "le": _ordered(lambda a, b: a <= b),
    "eq": _ordered(lambda a, b: a == b),
    "ne": lambda a, b: int(is_nan(a) or is_nan(b) or _key(a) != _key(b)),
}


def _width(t: T) -> int:
    return 1 if t is BOOL else 64 if t is I64 else 32


def _value(x: int, t: T) -> int:
    """The integer that the bits x mean."""
    width = _width(t)
    return x - (1 << width) if t not in (U32, BOOL) and x >> width - 1 else x


def _convert(x: int, source: T, target: T) -> int:
    if source is F32:
        if target is BOOL:
            return int(x & 0x7FFFFFFF != 0)
        if is_nan(x):
            return 0
        limit = 1 << _width(target) - 1
        n, e = (limit, 0) if x & 0x7FFFFFFF == INF else _split(x)
        n = n << e if e > 0 else n >> -e
        value = max(-n, -limit) if x & SIGN else min(n, limit - 1)
        return value & (2 * limit - 1)
    value = _value(x, source)
    if target is F32:
        return pack(int(value < 0), abs(value), 0)
    return int(value != 0) if target is BOOL else value & (1 << _width(target)) - 1


def _floordiv(a: int, b: int) -> int:
    return a // b if b else 0


_INTEGER: dict[str, Callable[..., int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
    "abs": abs,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "not": lambda a: ~a,
    "shl": lambda a, b: a << b,
    "shr": lambda a, b: a >> b,  # of the signed value: arithmetic for signed types
    "mul_hi": lambda a, b: a * b >> 32,
    "floordiv": _floordiv,
    "mod": lambda a, b: a - _floordiv(a, b) * b if b else 0,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}


def _integer(op: str, operand: T, args: Sequence[int]) -> int:
    width = _width(operand)
    values = [_value(x, operand) for x in args]
    if op in ("shl", "shr") and not 0 <= values[1] < width:
        raise ValueError(f"shift by {values[1]}")
    return int(_INTEGER[op](*values)) & (1 << width) - 1
