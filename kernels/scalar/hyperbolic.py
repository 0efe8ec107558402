"""Hyperbolic and inverse functions, and the tangent: heads and tails as in scalar_explog."""

from __future__ import annotations

from ree.kernels.scalar.common import HALF, INF, NAN, ONE, ZERO, horner, with_sign
from ree.kernels.scalar.explog import (
    EXPM1,
    LN2_HI,
    LN2_LO,
    LOG2E,
    TWO_64,
    TWO_MINUS_64,
    biased,
    clamp,
    log_head,
    log_split,
    log_sum,
)
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
    ne,
    select,
    sqrt,
)
from ree.kernels.scalar.trig import PIO2_HI, PIO2_LO

ATAN = (0xBEAAAAA9, 0x3E4CCBA3, 0xBE122836, 0x3DE03B96, 0xBDA410A5, 0x3D200899)
ASIN = (0x3E2AAAA6, 0x3D999C55, 0x3D3653EE, 0x3D026686, 0x3C6AC4FA, 0x3D1A4F23)
SINH = (0x3E2AAAAB, 0x3C088871, 0x395010AB, 0x363AD378)
ASINH = (0xBE2AAAAA, 0x3D99991D, 0xBD36BF5F, 0x3CF60915, 0xBCA43FA2, 0x3C17AB16)
ATANH = (0x3EAAAAAC, 0x3E4CCBD0, 0x3E1268AC, 0x3DDFDC06, 0x3DD75907, 0x3C8DAA0B, 0x3E3D2163)
# (1 + 2 a) exp(a^2) erfc(a) in (a - 2) / (a + 2), and erf(a) / a - 1 in a^2 below 1/2
ERFCX = (0x3FA37407, 0xBDBDFAF2, 0xBE2A03E7, 0x3E27FC78, 0xBD5E0ECC, 0xBC03278F, 0x3C0DF1B0, 0x3A954C62,
         0xBAA62A1B, 0xB9614E37)  # fmt: skip
ERF_HALF = (0x3E0375D4, 0xBEC09397, 0x3DE711B1, 0xBCDB1D4A, 0x3B99F679)
TWO = const(2.0, F32)
FAR = const(4096.0, F32)  # beyond it sqrt(x^2 +- 1) is x to the last place


def exp_pair(x: Expr, x_low: Expr, magic: Expr) -> tuple[Expr, Expr, Expr]:
    """(y, low, 2^(n + o)) with exp(x + x_low) = (y + low) 2^n; magic = biased(o) as in exp_core."""
    t = fma(x, LOG2E, magic)
    n = t - magic
    r1 = fma(n, -LN2_HI, x)
    r = fma(n, -LN2_LO, r1)
    r_low = fma(n, -LN2_LO, r1 - r) + x_low
    s = ONE + r
    low = fma(r * r, horner(r, EXPM1), r - (s - ONE))
    y = s + low
    return y, fma(r_low, y, low - (y - s)), bitcast(bitcast(t, U32) << 23, F32)


def log_pair(v: Expr, v_low: Expr, doubled: Expr) -> Expr:
    """log(v + v_low), plus log(2) where `doubled`; v normal and positive."""
    k, f = log_split(v, const(0, I32))
    high, low = log_head(f)
    k = k + select(doubled, const(1, I32), const(0, I32))
    return log_sum(convert(k, F32), high, low + v_low / v)


def odd(a: Expr, u: Expr, coefficients: tuple[int, ...]) -> Expr:
    """a + a u P(u), with u = a^2."""
    return fma(a * u, horner(u, coefficients), a)


def _root(square: Expr, square_low: Expr) -> tuple[Expr, Expr]:
    """The square root of a sum, as head and tail; 0 of 0."""
    s = sqrt(square)
    low = (fma(-s, s, square) + square_low) / (s + s)
    return s, select(eq(square, ZERO), ZERO, low)


def _halves(a: Expr, plus: bool) -> Expr:
    """(exp(a) +- exp(-a)) / 2 for a >= 0."""
    large = const(20.0, F32) < a  # there exp(-a) no longer counts
    s, low, power = exp_pair(clamp(a, 0.0, 90.0), ZERO, select(large, biased(-64), biased(0)))
    v = ONE / s
    v_low = -(fma(v, s, -ONE) + v * low) * v
    p, q = power * HALF, select(large, ZERO, HALF / power)
    x, y, y_low = p * s, q * v, q * v_low
    y, y_low = (y, y_low) if plus else (-y, -y_low)
    head = x + y
    tail = (y - (head - x)) + fma(p, low, y_low)
    return (head + tail) * select(large, TWO_64, ONE)


@function("sinh", F32)
def sinh(x: Expr) -> Expr:
    a = absolute(x)
    return with_sign(select(a < ONE, odd(a, a * a, SINH), _halves(a, False)), x)


@function("cosh", F32)
def cosh(x: Expr) -> Expr:
    return _halves(absolute(x), True)


@function("asinh", F32)
def asinh(x: Expr) -> Expr:
    """log(a + sqrt(a^2 + 1)) away from zero."""
    a = absolute(x)
    far = a > FAR
    b = select(far, ONE, a)
    square = b * b
    t = square + ONE
    big = square > ONE
    lost = select(big, ONE - (t - square), square - (t - ONE)) + fma(b, b, -square)
    s, s_low = _root(t, lost)
    v = s + b
    v_low = (b - (v - s)) + s_low
    y = log_pair(select(far, a, v), select(far, ZERO, v_low), far)
    y = select(a < HALF, odd(a, a * a, ASINH), y)
    return with_sign(select(eq(a, INF), a, y), x)


@function("acosh", F32)
def acosh(x: Expr) -> Expr:
    """log(1 + w) with w = t + sqrt(2 t + t^2) and t = x - 1 below 2, log(x + sqrt(x^2 - 1)) from there."""
    far, near = x > FAR, x < TWO
    b = select(far, TWO, x)
    t = b - ONE
    # near: 2 t + t^2; else x^2 - 1; either as two float32
    p = select(near, t + t, b * b)
    square = select(near, fma(t, t, p), p - ONE)
    lost = select(near, fma(t, t, p - square), (p - square) - ONE + fma(b, b, -p))
    s, s_low = _root(square, lost)
    first = select(near, t, b)
    w = select(near, s + first, first + s)
    w_low = select(near, first - (w - s), s - (w - first)) + s_low
    u = ONE + w
    u_low = select(w < ONE, w - (u - ONE), ONE - (u - w)) + w_low
    v, v_low = select(near, u, w), select(near, u_low, w_low)
    y = log_pair(select(far, x, v), select(far, ZERO, v_low), far)
    y = select(eq(x, INF), INF, y)
    return select(x >= ONE, y, NAN)


@function("atanh", F32)
def atanh(x: Expr) -> Expr:
    """log((1 + a) / (1 - a)) / 2 from 1/2 on."""
    a = absolute(x)
    b = select(a < HALF, HALF, a)
    d = ONE - b  # exact
    n = ONE + b
    q = n / d
    q_low = (fma(-q, d, n) + (b - (n - ONE))) / d
    y = log_pair(q, q_low, eq(ONE, ZERO)) * HALF
    y = select(a < HALF, odd(a, a * a, ATANH), y)
    return with_sign(select(eq(a, ONE), INF, select(a <= ONE, y, NAN)), x)


def _minus(c: Expr, c_low: Expr, s: Expr, rest: Expr) -> Expr:
    """c - s - rest, for s no larger than c."""
    head = c - s
    return head + (((c - head) - s) + (c_low - rest))


@function("atan", F32)
def atan(x: Expr) -> Expr:
    """atan of a, pi/4 + atan of (a - 1) / (a + 1), or pi/2 - atan(1 / a)."""
    a = absolute(x)
    b = clamp(a, 0.0, 2.0**60)
    middle, large = b >= HALF, const(2.5, F32) < b
    n = select(large, -ONE, select(middle, b - ONE, b))
    one_more = b + ONE
    d = select(large, b, select(middle, one_more, ONE))
    d_low = select(
        middle & ~large, select(b < ONE, b - (one_more - ONE), ONE - (one_more - b)), ZERO
    )
    z = n / d
    u = z * z
    z_low = (fma(-z, d, n) - z * d_low) / d
    rest = fma(z * u, horner(u, ATAN), z_low / (ONE + u))
    turn = select(large, ONE, select(middle, HALF, ZERO))
    return with_sign(_minus(PIO2_HI * turn, PIO2_LO * turn, -z, -rest), x)


def _arc(a: Expr) -> tuple[Expr, Expr, Expr]:
    """(small, s, rest): asin(a) = s + rest where small (below 1/2), else pi/2 - 2 (s + rest)."""
    small = a < HALF
    half = (ONE - a) * HALF  # exact from 1/2 on
    r, r_low = _root(half, ZERO)
    u = select(small, a * a, half)
    s = select(small, a, r)
    rest = fma(s * u, horner(u, ASIN), select(small, ZERO, r_low))
    return small, s, rest


@function("asin", F32)
def asin(x: Expr) -> Expr:
    small, s, rest = _arc(absolute(x))
    return with_sign(select(small, s + rest, _minus(PIO2_HI, PIO2_LO, s + s, rest + rest)), x)


@function("acos", F32)
def acos(x: Expr) -> Expr:
    small, s, rest = _arc(absolute(x))
    negative = x < ZERO
    s, rest = select(small, s, s + s), select(small, rest, rest + rest)
    flip = select(small, with_sign(ONE, x), ONE)
    s, rest = s * flip, rest * flip
    turn = select(small, ONE, TWO)
    away = _minus(PIO2_HI * turn, PIO2_LO * turn, s, rest)
    return select(small | negative, away, s + rest)


@function("erfc", F32)
def erfc(x: Expr) -> Expr:
    """1 - erf(x) for |x| < 1/2; else erfc(a) = exp(-a^2) R(a) / (1 + 2 a), from 2 where x < 0."""
    a = absolute(x)
    head = ONE - x
    near = head + ((ONE - head) - x - x * horner(x * x, ERF_HALF))
    b = clamp(a, 0.5, 10.5)
    square = b * b
    s, low, power = exp_pair(-square, -fma(b, b, -square), biased(64))
    q = (b - TWO) / (b + TWO)
    rest = q * horner(q, ERFCX[1:])
    centre = bits(ERFCX[0])
    r = centre + rest
    r_low = rest - (r - centre)
    d = fma(TWO, b, ONE)
    d_low = fma(TWO, b, ONE - d)
    y = r / d
    y_low = (fma(-y, d, r) + fma(-y, d_low, r_low)) / d
    p = y * s
    p_low = fma(y, s, -p) + fma(y, low, y_low * s)
    far = ((p + p_low) * power) * TWO_MINUS_64
    y = select(x < ZERO, TWO - far, far)
    return select(a < HALF, near, y)


def negative(x: Expr) -> Expr:
    """Whether the sign bit is set, of a NaN never."""
    return (bitcast(x, I32) < 0) & eq(x, x)


def atan2(y: Expr, x: Expr) -> Expr:
    """atan of the lesser over the greater magnitude, from pi/2 and pi as the octant asks."""
    a, b = absolute(y), absolute(x)
    steep = b < a
    n, d = select(steep, b, a), select(steep, a, b)
    t = select(eq(n, d), select(eq(n, ZERO), ZERO, ONE), n / d)
    r = atan(t)
    r = select(steep, PIO2_HI - (r - PIO2_LO), r)
    r = select(negative(x), TWO * PIO2_HI - (r - TWO * PIO2_LO), r)
    return select(ne(x, x) | ne(y, y), NAN, with_sign(r, y))


def hypot(x: Expr, y: Expr) -> Expr:
    """sqrt(x^2 + y^2), scaled by 2^100 or 2^-64 where a square would leave the range; infinite if either is."""
    a, b = absolute(x), absolute(y)
    high = select(a < b, b, a)
    up, down = high < bits(0x20000000), bits(0x5E000000) < high  # 2^-63, 2^61
    there = select(up, const(2.0**100, F32), select(down, TWO_MINUS_64, ONE))
    back = select(up, const(2.0**-100, F32), select(down, TWO_64, ONE))
    p, q = a * there, b * there
    return select(eq(a, INF) | eq(b, INF), INF, sqrt(fma(p, p, q * q)) * back)


def copysign(x: Expr, y: Expr) -> Expr:
    """The magnitude of x with the sign of y; a NaN counts as positive."""
    a = absolute(x)
    return select(negative(y), -a, a)


def shift_left(x: Expr, n: Expr) -> Expr:
    """x << n; 0 for counts outside [0, 63]."""
    fits = (n >= 0) & (n <= 63)
    return select(fits, x << select(fits, n, 0), 0)


def shift_right(x: Expr, n: Expr) -> Expr:
    """x >> n, arithmetic; by 63 for counts outside [0, 63]."""
    return x >> select((n >= 0) & (n <= 63), n, 63)
