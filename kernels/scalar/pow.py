"""x to the power y: the logarithm in two float32, by a table of 16 reciprocals.

log2|x| = k + log2(c) + log2(1 + r), with c one of 16 in [0.72, 1.44) and |r| <= 1/16, kept as head and tail, so
that y * log2|x| has an error far below half a unit of the result.
"""

from __future__ import annotations

import struct
from fractions import Fraction

from ree.kernels.scalar.common import HALF, INF, NAN, ONE, ZERO, horner
from ree.kernels.scalar.explog import EXP2_TAIL, LN2_HI, LN2_LO, LOG2E, LOG2E_LO
from ree.kernels.scalar.language import (
    F32,
    I32,
    U32,
    Expr,
    absolute,
    bitcast,
    bits,
    const,
    convert,
    eq,
    fma,
    function,
    is_nan,
    lookup,
    ne,
    rint,
    select,
)

START = 0x3F380000  # 0.71875: the first significand


def _reciprocal(i: int) -> Fraction:
    """1/c of interval i, a multiple of 1/128; 1 on both sides of 1, so that there r is exact."""
    if i in (8, 9):
        return Fraction(1)
    centre = (
        Fraction(23, 32) + Fraction(2 * i + 1, 64) if i < 9 else 1 + Fraction(2 * (i - 9) + 1, 32)
    )
    return Fraction(round(128 / centre), 128)


def _f32(x: float) -> float:
    return float(struct.unpack(">f", struct.pack(">f", x))[0])


def _word(x: float) -> int:
    return int.from_bytes(struct.pack(">f", x), "big")


def _log2(x: Fraction) -> Fraction:
    """log2 to 80 bits, by squaring."""
    out, bit = Fraction(0), Fraction(1)
    while x >= 2:
        x, out = x / 2, out + 1
    while x < 1:
        x, out = x * 2, out - 1
    for _ in range(80):
        x, bit = x * x, bit / 2
        x = Fraction(int(x * 2**120), 2**120)
        if x >= 2:
            x, out = x / 2, out + bit
    return out


def _tables() -> list[tuple[int, ...]]:
    """For 16 intervals: 1/c, and log2(c) as two float32, the first short so that k + it is exact."""
    rows = []
    for i in range(16):
        value = -_log2(_reciprocal(i))
        high = Fraction(round(value * 2**14), 2**14)
        rows.append((_reciprocal(i), high, value - high))
    return [tuple(_word(_f32(float(x))) for x in column) for column in zip(*rows, strict=True)]


RECIPROCAL, LOG2_HIGH, LOG2_LOW = _tables()
# log(1 + r) - r + r^2/2 over r^3
LOG = (0x3EAAAAAB, 0xBE800000, 0x3E4CCCCD, 0xBE2AAAAB, 0x3E124925, 0xBE000000, 0x3DE38E39)


def two_sum(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """(s, e) with s = a + b rounded and s + e = a + b exactly, for |a| >= |b| or a = 0."""
    s = a + b
    return s, b - (s - a)


def two_product(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    p = a * b
    return p, fma(a, b, -p)


def log2_pair(x: Expr) -> tuple[Expr, Expr]:
    """log2 of a positive finite x as head and tail."""
    tiny = x < bits(0x00800000)
    i = bitcast(select(tiny, x * const(16777216.0, F32), x), I32)
    e = (i - START) >> 23
    m = i - (e << 23)
    index = bitcast((m - START) >> 19, U32)
    k = convert(e - select(tiny, const(24, I32), const(0, I32)), F32)
    c = bitcast(lookup(RECIPROCAL, index), F32)
    # m / c - 1 as two float32
    p, low = two_product(bitcast(m, F32), c)
    r, rest = two_sum(p - ONE, low)
    square, square_low = two_product(r, r)
    square_low = fma(r + r, rest, square_low)
    h, h_low = two_sum(r, -(square * HALF))
    tail = fma(square * r, horner(r, LOG), h_low + (rest - square_low * HALF))
    h, h_low = two_sum(h, tail)
    # to base 2
    g, g_low = two_product(h, LOG2E)
    g_low = fma(h, LOG2E_LO, fma(h_low, LOG2E, g_low))
    head, head_low = two_sum(k + bitcast(lookup(LOG2_HIGH, index), F32), g)
    return two_sum(head, head_low + (bitcast(lookup(LOG2_LOW, index), F32) + g_low))


def exp2_pair(high: Expr, low: Expr) -> Expr:
    """2^(high + low)."""
    t = select(high < const(-160.0, F32), const(-160.0, F32), high)
    t = select(const(135.0, F32) < t, const(135.0, F32), t)
    low = select(eq(t, high), low, ZERO)
    n = rint(t)
    f, f_low = two_sum(t - n, low)
    p, p_low = two_product(f, LN2_HI)
    p_low = fma(f, LN2_LO, fma(f_low, LN2_HI, p_low))
    s = ONE + p
    y = s + ((p - (s - ONE)) + fma(f * f, horner(f, EXP2_TAIL), p_low))
    # in two steps: each power is a normal number, and only the last multiplication rounds
    i = convert(n, I32)
    half = i >> 1
    return (y * _power(half)) * _power(i - half)


def _power(n: Expr) -> Expr:
    return bitcast((n + 127) << 23, F32)


@function("pow", F32, F32)
def pow_(x: Expr, y: Expr) -> Expr:
    a = absolute(x)
    head, tail = log2_pair(a)
    p, p_low = two_product(head, y)
    p_low = fma(tail, y, p_low)
    # where the product is huge its error is not a number
    p_low = select(absolute(p) < const(1024.0, F32), p_low, ZERO)
    z = exp2_pair(p, p_low)
    # zero and infinity
    up = y > ZERO
    z = select(eq(a, ZERO), select(up, ZERO, INF), z)
    z = select(eq(a, INF), select(up, INF, ZERO), z)
    grows = eq(a > ONE, up)
    z = select(eq(absolute(y), INF), select(eq(a, ONE), ONE, select(grows, INF, ZERO)), z)
    # a negative base: odd powers are negative, broken ones are not numbers
    size = absolute(y)
    whole = eq(rint(y), y)
    half = y * HALF
    odd = whole & ne(rint(half), half) & (size < const(16777216.0, F32))
    negative = ne(bitcast(x, U32) >> 31, const(0, U32))
    z = select(negative & odd, -z, z)
    broken = (x < ZERO) & ~whole & ne(a, INF) & ne(size, INF)
    z = select(broken | is_nan(x) | is_nan(y), NAN, z)
    return select(eq(y, ZERO) | eq(x, ONE), ONE, z)
