"""Exponentials and logarithms.

Sums whose parts differ in size are kept as an exact head and a tail (high + low), so that only the
last addition rounds by half an ulp.
"""

from __future__ import annotations

from ree.kernels.scalar.common import INF, NAN, ONE, ZERO, horner
from ree.kernels.scalar.language import (
    F32,
    I32,
    U32,
    Expr,
    bitcast,
    bits,
    const,
    convert,
    eq,
    fma,
    function,
    is_nan,
    select,
)

LOG2E, LOG2E_LO = bits(0x3FB8AA3B), bits(0x32A57060)
LN2_HI, LN2_LO = bits(0x3F317218), bits(0xB102E308)
TWO_64, TWO_MINUS_64 = bits(0x5F800000), bits(0x1F800000)

EXP = (0x3F000000, 0x3E2AAA48, 0x3D2AAA63, 0x3C091D6C, 0x3AB6B9D1)
EXPM1 = (0x3F000000, 0x3E2AAAAA, 0x3D2AAA7C, 0x3C08896A, 0x3AB69D2F, 0x394F3E40)
EXP2_TAIL = (0x3E75FDEE, 0x3D6357C5, 0x3C1D96F5, 0x3AAF817F, 0x3920B014)
LOG = (0x3EAAAAA3, 0xBE7FFFF7, 0x3E4CD2A1, 0xBE2AB170, 0x3E119983, 0xBDFDA1EF, 0x3DF326B8,
       0xBDF17241, 0x3D8DA1BA)  # fmt: skip


def biased(offset: int) -> Expr:
    """`MAGIC` with a bias: the low bits of x + biased(o) are the exponent field of 2^(x + o)."""
    return const(12582912.0 + 127 + offset, F32)


UNDERFLOW = const(-104.0, F32)  # exp of this rounds to zero


def exp_core(x: Expr, magic: Expr) -> tuple[Expr, Expr]:
    """(y, 2^(n + o)) with exp(x) = y * 2^n and y about 1; for |x| <= 150, magic = biased(o) and
    n + o in [-126, 127].

    The last addition is compensated: 1 + r is split exactly, so the error is 0.5 ulp of the sum
    plus that of the reduction.
    """
    t = fma(x, LOG2E, magic)
    n = t - magic
    r = fma(n, -LN2_HI, x)
    r = fma(n, -LN2_LO, r)
    s = ONE + r
    low = r - (s - ONE)
    y = s + fma(r * r, horner(r, EXP), low)
    return y, bitcast(bitcast(t, U32) << 23, F32)


def clamp(x: Expr, low: float, high: float) -> Expr:
    """x within [low, high]; NaN passes."""
    x = select(const(high, F32) < x, const(high, F32), x)
    return select(x < const(low, F32), const(low, F32), x)


@function("exp", F32)
def exp(x: Expr) -> Expr:
    vanishes = x < UNDERFLOW
    x = clamp(x, -104.0, 89.0)
    # n may leave the range of exponents: 2^(n - offset) * y is exact, and only the second factor
    # rounds, once, to a subnormal or to infinity
    negative = x < ZERO
    y, power = exp_core(x, select(negative, biased(64), biased(-64)))
    y = select(vanishes, ZERO, y * power)  # a product that underflows to zero is slow on many CPUs
    return y * select(negative, TWO_MINUS_64, TWO_64)


def exp_nonpositive(x: Expr) -> Expr:
    """exp(x) for x <= 0, with the same bits in fewer operations."""
    vanishes = x < UNDERFLOW
    y, power = exp_core(select(vanishes, UNDERFLOW, x), biased(64))
    return select(vanishes, ZERO, y * power) * TWO_MINUS_64


@function("exp2", F32)
def exp2(x: Expr) -> Expr:
    x = clamp(x, -151.0, 129.0)
    negative = x < ZERO
    magic = select(negative, biased(64), biased(-64))
    t = x + magic
    f = x - (t - magic)  # exact
    p = f * LN2_HI
    low = fma(f, LN2_LO, fma(f, LN2_HI, -p))
    s = ONE + p
    y = s + ((p - (s - ONE)) + fma(f * f, horner(f, EXP2_TAIL), low))
    power = bitcast(bitcast(t, U32) << 23, F32)
    return (y * power) * select(negative, TWO_MINUS_64, TWO_64)


@function("expm1", F32)
def expm1(x: Expr) -> Expr:
    """(2^n - 1) + 2^n r + 2^n (exp(r) - 1 - r), all scaled by 2^-64 where 2^n may overflow."""
    a = clamp(x, -20.0, 89.0)
    large = const(40.0, F32) < a
    one = select(large, TWO_MINUS_64, ONE)
    magic = select(large, biased(-64), biased(0))
    t = fma(a, LOG2E, magic)
    n = t - magic
    r1 = fma(n, -LN2_HI, a)
    r = fma(n, -LN2_LO, r1)
    r_low = fma(n, -LN2_LO, r1 - r)
    power = bitcast(bitcast(t, U32) << 23, F32)
    head = power - one
    lost = select(power < one, power - (head + one), (power - head) - one)
    p = power * r
    s = head + p
    low = (p - (s - head)) + fma(power, fma(r * r, horner(r, EXPM1), r_low), lost)
    return select(eq(x, ZERO), x, (s + low) * select(large, TWO_64, ONE))


def log_split(x: Expr, shift: Expr) -> tuple[Expr, Expr]:
    """(k, f) with x = 2^(k + shift) * (1 + f) and 1 + f in [sqrt(1/2), sqrt(2)), for positive
    normal x; k is an i32, f exact."""
    i = bitcast(x, I32)
    e = (i - 0x3F3504F3) >> 23
    m = bitcast(i - (e << 23), F32)
    return e - shift, m - ONE


def log_head(f: Expr) -> tuple[Expr, Expr]:
    """(high, low) with log(1 + f) = high + low."""
    t = f * 0.5
    high = fma(-t, f, f)  # f - f*f/2
    low = fma(-t, f, f - high)
    return high, fma(f * f * f, horner(f, LOG), low)


def log_sum(k: Expr, high: Expr, low: Expr) -> Expr:
    """k * log(2) + high + low."""
    low = fma(k, bits(0x35BFBE8E), low)
    a = k * bits(0x3F317200)  # exact: 16 bits times at most 8
    s = a + high
    return s + ((high - (s - a)) + low)


def normal(x: Expr) -> tuple[Expr, Expr]:
    """(y, s) with x = y * 2^-s and y normal, for positive x; s an i32."""
    tiny = x < bits(0x00800000)
    scaled = select(tiny, x * const(8388608.0, F32), x)
    return scaled, select(tiny, const(23, I32), const(0, I32))


def log_limits(x: Expr, origin: Expr, y: Expr) -> Expr:
    """y, but -inf at x = origin, NaN below, and inf at inf."""
    y = select(eq(x, INF), INF, y)
    y = select(eq(x, origin), -INF, y)
    return select((x < origin) | is_nan(x), NAN, y)


@function("log", F32)
def log(x: Expr) -> Expr:
    k, f = log_split(*normal(x))
    high, low = log_head(f)
    return log_limits(x, ZERO, log_sum(convert(k, F32), high, low))


@function("log2", F32)
def log2(x: Expr) -> Expr:
    e, f = log_split(*normal(x))
    k = convert(e, F32)
    high, low = log_head(f)
    p = high * LOG2E
    low = fma(high, LOG2E_LO, fma(low, LOG2E, fma(high, LOG2E, -p)))
    s = k + p
    return log_limits(x, ZERO, s + ((p - (s - k)) + low))


@function("log1p", F32)
def log1p(x: Expr) -> Expr:
    """log(u) of u = 1 + x rounded, and what rounding lost, over u."""
    u = ONE + x
    lost = select(x < ONE, x - (u - ONE), ONE - (u - x))
    k, f = log_split(u, const(0, I32))
    high, low = log_head(f)
    # lost / (2^k (1 + f)); beyond 2^25 it no longer counts
    c = select(x < const(2.0**25, F32), lost * bitcast((const(127, I32) - k) << 23, F32), ZERO)
    low = fma(c, fma(f, f, ONE - f), low)
    y = log_sum(convert(k, F32), high, low)
    return select(eq(x, ZERO), x, log_limits(x, -ONE, y))
