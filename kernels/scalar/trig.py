"""Sine and cosine of any float32, by integer reduction modulo pi/2."""

from __future__ import annotations

from ree.kernels.scalar.common import HALF, INF, NAN, ONE, ZERO, horner
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
    lookup,
    mul_hi,
    select,
)

SIN = (0xBE2AAAAB, 0x3C0888BB, 0xB9502DD4, 0x363E678B)
COS = (0x3D2AAAAB, 0xBAB60BB1, 0x37D03AEB, 0xB49B8DCE)
# 2/pi as 32-bit words, from 2^-1 down; enough for the largest float32 and 96 bits more
TWO_OVER_PI = (0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041,
               0xFE5163AB)  # fmt: skip
PIO2_HI, PIO2_LO = bits(0x3FC90FDB), bits(0xB33BBD2E)
QUARTER_PI = bits(0x3F490FDB)


def _reduce(a: Expr) -> tuple[Expr, Expr, Expr]:
    """(quadrant, r, tail) of finite a >= 1/2 with r + tail = a - quadrant * pi/2.

    By Payne and Hanek: an integer product with the bits of 2/pi that matter. Infinity and NaN
    give some finite r."""
    i = bitcast(a, U32)
    m = (i & 0x007FFFFF) | 0x00800000
    # a = m * 2^(e - 150): bits of 2/pi before the one worth 2^1 there only add multiples of 4
    at = (i >> 23) - 120  # 6 to 134; the table begins with a word of zeros
    word, shift = at >> 5, at & 31
    w = [lookup(TWO_OVER_PI[j:] + (0,) * j, word) for j in range(4)]
    rest = shift ^ 31  # 31 - shift
    w0, w1, w2 = ((w[j] << shift) | ((w[j + 1] >> 1) >> rest) for j in range(3))
    # the upper 64 bits of the product modulo 2^96: two bits of quadrant, then a fraction of pi/2
    low1 = m * w1
    mid = low1 + mul_hi(m, w2)
    carry = convert(mid < low1, U32)
    top = m * w0 + mul_hi(m, w1) + carry
    quadrant = (top + 0x20000000) >> 30
    # the fraction is signed, in [-1/2, 1/2): 24 bits, 24 bits and 16 bits, each exact as a float
    high, low = (top << 2) | (mid >> 30), mid << 2
    f0 = convert(bitcast(high, I32) >> 8, F32) * bits(0x33800000)  # 2^-24
    f1 = convert(bitcast(((high << 24) >> 8) | (low >> 16), I32), F32) * bits(0x27800000)  # 2^-48
    f2 = convert(bitcast(low & 0xFFFF, I32), F32) * bits(0x1F800000)  # 2^-64
    s = f0 + f1
    t = (f1 - (s - f0)) + f2
    h = s + t
    g = t - (h - s)
    r = h * PIO2_HI
    tail = fma(h, PIO2_HI, -r) + fma(g, PIO2_HI, h * PIO2_LO)
    return quadrant, r, tail


def near_parts(r: Expr, tail: Expr) -> tuple[Expr, Expr, Expr, Expr]:
    """(r, s, h, w) with sin(r + tail) = r + s and cos(r + tail) = h + w, for |r| up to pi/4."""
    u = r * r
    # h = 1 - u/2, split exactly; tail enters by the derivatives: cos r, about h, and -sin r
    half = u * 0.5
    h = ONE - half
    low = (ONE - h) - half
    s = fma(u * r, horner(u, SIN), h * tail)
    return r, s, h, fma(u * u, horner(u, COS), fma(-(r + s), tail, low))


def _parts(a: Expr) -> tuple[Expr, Expr, Expr, Expr, Expr]:
    """(quadrant, r, s, h, w) with sin r = r + s and cos r = h + w, the second of each a tail, for a >= 0."""
    small = a < QUARTER_PI
    q, r, tail = _reduce(select(a < HALF, HALF, a))
    q, r, tail = select(small, const(0, U32), q), select(small, a, r), select(small, ZERO, tail)
    return q, *near_parts(r, tail)


def _sin_cos(a: Expr) -> tuple[Expr, Expr, Expr]:
    """(quadrant, sin r, cos r) for a >= 0."""
    q, r, s, h, w = _parts(a)
    return q, r + s, h + w


def _quarter(q: Expr, s: Expr, c: Expr, sign: Expr) -> Expr:
    """sin of the quadrant: s, c, -s, -c; negated if the top bit of `sign` is set."""
    y = select(eq(q & 1, 0), s, c)
    return bitcast(bitcast(y, U32) ^ ((((q & 2) << 30) ^ sign) & 0x80000000), F32)


@function("sin", F32)
def sin(x: Expr) -> Expr:
    a = absolute(x)
    q, s, c = _sin_cos(a)
    return select(a < INF, _quarter(q, s, c, bitcast(x, U32)), NAN)


@function("cos", F32)
def cos(x: Expr) -> Expr:
    a = absolute(x)
    q, s, c = _sin_cos(a)
    return select(a < INF, _quarter(q + 1, s, c, const(0, U32)), NAN)


@function("tan", F32)
def tan(x: Expr) -> Expr:
    """sin / cos of the reduced argument, or -cos / sin, with the tails of both."""
    a = absolute(x)
    q, r, t, h, w = _parts(a)
    s, c = r + t, h + w
    s_low, c_low = t - (s - r), w - (c - h)
    odd = eq(q & 1, 1)
    n, n_low = select(odd, -c, s), select(odd, -c_low, s_low)
    d, d_low = select(odd, s, c), select(odd, s_low, c_low)
    y = n / d
    low = (fma(-y, d, n) + fma(-y, d_low, n_low)) / d
    y = bitcast(bitcast(y + low, U32) ^ (bitcast(x, U32) & 0x80000000), F32)
    return select(a < INF, select(eq(x, ZERO), x, y), NAN)
