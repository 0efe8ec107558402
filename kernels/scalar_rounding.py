"""Rounding to integral values, remainders, signs: exact, or rounded once."""

from __future__ import annotations

from ree.kernels.scalar import (
    F32,
    Expr,
    absolute,
    const,
    convert,
    eq,
    floordiv,
    fma,
    is_nan,
    mod,
    ne,
    rint,
    select,
)
from ree.kernels.scalar_common import INF, NAN, ONE, ZERO, with_sign


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
    """The quotient that belongs to `remainder`; integers: 0 if b is 0."""
    if a.type is not F32:
        return floordiv(a, b)
    return select(eq(b, ZERO), a / b, _quotient(a, b)[0])


def remainder(a: Expr, b: Expr) -> Expr:
    """a - floor(a / b) * b with one rounding, with the sign of b; integers: 0 if b is 0."""
    if a.type is not F32:
        return mod(a, b)
    _, r = _quotient(a, b)
    # an infinite divisor leaves a, or is itself the answer across zero
    far = select(eq(a, ZERO), a, select(ne(convert(a < ZERO, F32), convert(b < ZERO, F32)), b, a))
    whole = select(eq(absolute(b), INF), far, r)
    bad = eq(b, ZERO) | eq(absolute(a), INF) | is_nan(a) | is_nan(b)
    return select(bad, NAN, whole)


def _quotient(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """(floor(a / b), remainder): the rounded quotient may be one off, which the remainder shows."""
    q = floor(a / b)
    r = fma(-q, b, a)
    negative = b < ZERO
    below = select(negative, r > ZERO, r < ZERO)
    above = select(negative, r <= b, b <= r)
    q = select(below, q - ONE, select(above, q + ONE, q))
    r = select(below, r + b, select(above, r - b, r))
    return q, r
