"""Rounding to integral values, remainders, signs: exact, or rounded once."""

from __future__ import annotations

from ree.kernels.scalar.common import INF, NAN, ONE, ZERO, with_sign
from ree.kernels.scalar.language import (
    F32,
    I64,
    U32,
    Expr,
    absolute,
    bitcast,
    const,
    convert,
    eq,
    floordiv,
    is_nan,
    mod,
    ne,
    rint,
    select,
)


def floor(x: Expr) -> Expr:
    r = rint(x)
    return select(x < r, r - ONE, r)


def ceil(x: Expr) -> Expr:
    return -floor(-x)


def trunc(x: Expr) -> Expr:
    return with_sign(floor(absolute(x)), x)


def sign(x: Expr) -> Expr:
    """-1, 0 or 1; 0 for NaN, as torch has it."""
    zero = const(0, x.type)
    return convert(zero < x, x.type) - convert(x < zero, x.type)


def floor_divide(a: Expr, b: Expr) -> Expr:
    """The quotient that belongs to `remainder`, as torch rounds it; integers: 0 if b is 0."""
    if a.type is not F32:
        return floordiv(a, b)
    r = _fmod(a, b)
    q = (a - r) / b
    q = select(_across(r, b), q - ONE, q)
    low = floor(q)
    low = select(const(0.5, F32) < q - low, low + ONE, low)
    return select(eq(b, ZERO), a / b, select(eq(q, ZERO), with_sign(ZERO, a / b), low))


def remainder(a: Expr, b: Expr) -> Expr:
    """fmod(a, b), plus b where that has the other sign, rounded once; integers: 0 if b is 0."""
    if a.type is not F32:
        return mod(a, b)
    r = _fmod(a, b)
    return select(_across(r, b), r + b, r)


def _across(r: Expr, b: Expr) -> Expr:
    """Whether r is not zero and its sign is not b's."""
    return ((r < ZERO) & (b > ZERO)) | ((r > ZERO) & (b < ZERO))


def _fmod(a: Expr, b: Expr) -> Expr:
    """The exact remainder of magnitudes with the sign of a.

    Mantissas as integers: |a| = x * 2^i and |b| = y * 2^j, so it is x * (2^(i - j) mod y) mod y, in units
    of 2^j. The power of two is squared three times; nothing exceeds 2^49.
    """
    u, v = (bitcast(absolute(t), U32) for t in (a, b))
    i, j = (select(t < 0x800000, const(1, U32), t >> 23) for t in (u, v))
    x, y = (convert((t & 0x7FFFFF) | select(t < 0x800000, const(0, U32), const(0x800000, U32)), I64)
            for t in (u, v))  # fmt: skip
    far = v <= u  # otherwise a is its own remainder
    n = select(far, i - j, const(0, U32))
    two = const(2, I64)
    p = mod(convert(bitcast(((n >> 3) + 127) << 23, F32), I64), y)
    for bit in (2, 1, 0):
        odd = ne((n >> bit) & 1, const(0, U32))
        p = mod(p * p * select(odd, two, const(1, I64)), y)
    r = convert(mod(x * p, y), F32) * const(2.0**-23, F32) * bitcast(j << 23, F32)
    r = with_sign(select(far, r, absolute(a)), a)
    bad = eq(b, ZERO) | eq(absolute(a), INF) | is_nan(a) | is_nan(b)
    return select(bad, NAN, select(eq(absolute(b), INF), a, r))
