"""The mathematical functions, as float32 programs in the scalar language.

Each is the contract: these operations in this order. Bounds over all 2^32 inputs are measured by
benchmarks/exhaustive_scalar.py; polynomials are fitted by benchmarks/fit_polynomials.py.
"""

from __future__ import annotations

from ree.kernels.scalar import (
    F32,
    I32,
    U32,
    Expr,
    Function,
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
    maximum,
    mul_hi,
    select,
    sqrt,
)

NAN = bits(0x7FC00000)
INF = bits(0x7F800000)
ONE = const(1.0, F32)
ZERO = const(0.0, F32)
MAGIC = const(12582912.0, F32)  # 1.5 * 2^23: adding it rounds to an integer in the low bits
LOG2E = bits(0x3FB8AA3B)
LN2_HI, LN2_LO = bits(0x3F317218), bits(0xB102E308)

EXP = (0x3F000000, 0x3E2AAA48, 0x3D2AAA63, 0x3C091D6C, 0x3AB6B9D1)
LOG = (0x3EAAAAA3, 0xBE7FFFF7, 0x3E4CD2A1, 0xBE2AB170, 0x3E119983, 0xBDFDA1EF, 0x3DF326B8,
       0xBDF17241, 0x3D8DA1BA)  # fmt: skip
TANH = (0xBEAAAAA9, 0x3E08881D, 0xBD5CFB2A, 0x3CB25D08, 0xBC0C5C3E, 0x3B475DE6, 0xBA56226D,
        0x38F11E7B)  # fmt: skip
ERF_SMALL = (0x3E0375D4, 0xBEC093A0, 0x3DE716B0, 0xBCDC003F, 0x3BAA211C, 0xBA52DB95, 0x38A71A37)
ERF_LARGE = (0x3E038C18, 0x3F22D79F, 0x3DD54BCD, 0xBCADD468, 0x3AE7E252, 0x3A0AF7DD, 0xB969218C,
             0x3812DB32, 0xB612B3A4)  # fmt: skip
SIN = (0xBE2AAAAB, 0x3C0888BB, 0xB9502DD4, 0x363E678B)
COS = (0x3D2AAAAB, 0xBAB60BB1, 0x37D03AEB, 0xB49B8DCE)


def horner(x: Expr, coefficients: tuple[int, ...]) -> Expr:
    """c0 + x (c1 + x (...)) by fma, highest coefficient first."""
    r = bits(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        r = fma(r, x, bits(c))
    return r


def with_sign(magnitude: Expr, x: Expr) -> Expr:
    """magnitude (non-negative) with the sign bit of x."""
    sign = bitcast(x, U32) & 0x80000000
    return bitcast(bitcast(magnitude, U32) | sign, F32)


def exp_core(x: Expr) -> tuple[Expr, Expr]:
    """(y, n) with exp(x) = y * 2^n, y about 1, n an i32; for x in [-150, 150].

    The last addition is compensated: 1 + r is split exactly, so the error is 0.5 ulp of the sum plus
    that of the reduction.
    """
    t = fma(x, LOG2E, MAGIC)
    n = t - MAGIC
    r = fma(n, -LN2_HI, x)
    r = fma(n, -LN2_LO, r)
    s = ONE + r
    low = r - (s - ONE)
    y = s + fma(r * r, horner(r, EXP), low)
    return y, bitcast(t, I32) - bitcast(MAGIC, I32)


def scale(y: Expr, n: Expr) -> Expr:
    """y * 2^n in two exact-then-rounded steps: the first cannot leave the normal range."""
    half = n >> 1
    first = bitcast((half + 127) << 23, F32)
    second = bitcast((n - half + 127) << 23, F32)
    return (y * first) * second


@function("exp", F32)
def exp(x: Expr) -> Expr:
    low, high = const(-104.0, F32), const(89.0, F32)
    clamped = select(x < low, low, select(x > high, high, x))  # NaN passes
    y, n = exp_core(clamped)
    return scale(y, n)


@function("log", F32)
def log(x: Expr) -> Expr:
    tiny = x < bits(0x00800000)
    scaled = select(tiny, x * const(8388608.0, F32), x)
    i = bitcast(scaled, I32)
    e = (i - 0x3F3504F3) >> 23  # m in [sqrt(1/2), sqrt(2))
    m = bitcast(i - (e << 23), F32)
    e = e - select(tiny, const(23, I32), const(0, I32))
    k = convert(e, F32)
    f = m - ONE
    t = f * 0.5
    high = fma(-t, f, f)  # f - f*f/2 as high + low
    low = fma(-t, f, f - high)
    tail = fma(f * f * f, horner(f, LOG), low)
    tail = fma(k, bits(0x35BFBE8E), tail)
    a = k * bits(0x3F317200)  # exact: 16 bits times at most 8
    s = a + high
    err = high - (s - a)
    y = s + (err + tail)
    y = select(eq(x, INF), INF, y)
    y = select(eq(x, ZERO), -INF, y)
    return select((x < ZERO) | is_nan(x), NAN, y)


@function("tanh", F32)
def tanh(x: Expr) -> Expr:
    a = absolute(x)
    u = a * a
    small = fma(a * u, horner(u, TANH), a)
    b = select(a > const(10.0, F32), const(10.0, F32), a)
    y, n = exp_core(b + b)
    e = y * bitcast((n + 127) << 23, F32)
    large = ONE - const(2.0, F32) / (e + ONE)
    return with_sign(select(a < ONE, small, select(is_nan(a), a, large)), x)


@function("erf", F32)
def erf(x: Expr) -> Expr:
    a = absolute(x)
    u = a * a
    small = fma(a, horner(u, ERF_SMALL), a)
    t = select(a > const(4.0, F32), const(4.0, F32), a)
    y, n = exp_core(fma(t, -horner(t, ERF_LARGE), -t))
    large = ONE - y * bitcast((n + 127) << 23, F32)
    result = select(a < bits(0x3F6D7DBF), small, select(is_nan(a), a, large))  # 0.9277
    return with_sign(result, x)


# 2/pi as 32-bit words, from 2^-1 down; enough for the largest float32 and 96 bits more
TWO_OVER_PI = (0, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599, 0x3C439041, 0xFE5163AB)
PIO2_1, PIO2_2, PIO2_3 = bits(0x3FC90FDB), bits(0xB33BBD2E), bits(0xA6F72CED)


def _reduce_medium(a: Expr) -> tuple[Expr, Expr, Expr]:
    """(quadrant, r, tail) of a in [0, 65536) by Cody and Waite; r + tail is a - q*pi/2."""
    t = fma(a, bits(0x3F22F983), MAGIC)
    n = t - MAGIC
    r1 = fma(n, -PIO2_1, a)  # exact: both lie on a grid of 2^-24 and the result is below 1
    p = n * -PIO2_2
    r = r1 + p
    b = r - r1
    error = (r1 - (r - b)) + (p - b)  # of the sum, exactly
    tail = fma(n, -PIO2_3, error + fma(n, -PIO2_2, -p))
    return bitcast(t, U32), r, tail


def _reduce_large(a: Expr) -> tuple[Expr, Expr, Expr]:
    """The same for finite a >= 65536 by Payne and Hanek: integer product with the bits of 2/pi."""
    i = bitcast(a, U32)
    m = (i & 0x007FFFFF) | 0x00800000
    # a = m * 2^(e - 150): bits of 2/pi before the one worth 2^1 there only add multiples of 4
    at = (i >> 23) - 120  # in 23..134 for a >= 65536; the table begins with a word of zeros
    at = select(at < const(135, U32), at, const(0, U32))
    word, shift = at >> 5, at & 31
    w = [lookup(TWO_OVER_PI[j:] + (0,) * j, word) for j in range(4)]

    def window(j: int) -> Expr:
        joined = (w[j] << shift) | ((w[j + 1] >> 1) >> (const(31, U32) - shift))
        return joined

    w0, w1, w2 = window(0), window(1), window(2)
    # 96-bit product modulo 2^96, of which the upper 64 bits are kept
    lo1, hi1 = m * w1, mul_hi(m, w1)
    mid = lo1 + mul_hi(m, w2)
    carry = select(mid < lo1, const(1, U32), const(0, U32))
    top = m * w0 + hi1 + carry
    # top:mid is the fraction of a*2/pi / 4: two bits of quadrant, then the fraction
    quadrant = top >> 30
    high = (top << 2) | (mid >> 30)
    low = mid << 2
    over = high >= const(0x80000000, U32)  # above one half: next quadrant, negative remainder
    quadrant = quadrant + select(over, const(1, U32), const(0, U32))
    flip = select(over, const(0xFFFFFFFF, U32), const(0, U32))
    high, low = high ^ flip, low ^ flip  # off by one in the last of 64 bits: far below rounding
    f0 = convert(bitcast(high >> 16, I32), F32) * bits(0x37800000)  # 2^-16
    f1 = convert(bitcast(high & 0xFFFF, I32), F32) * bits(0x2F800000)  # 2^-32
    f2 = convert(bitcast(low >> 16, I32), F32) * bits(0x27800000)  # 2^-48
    f3 = convert(bitcast(low & 0xFFFF, I32), F32) * bits(0x1F800000)  # 2^-64
    s = f0 + f1
    t = (f1 - (s - f0)) + (f2 + f3)
    h = s + t
    g = t - (h - s)
    r = h * PIO2_1
    tail = fma(h, PIO2_1, -r) + fma(g, PIO2_1, h * PIO2_2)
    sign = select(over, const(0x80000000, U32), const(0, U32))
    return quadrant, bitcast(bitcast(r, U32) ^ sign, F32), bitcast(bitcast(tail, U32) ^ sign, F32)


def _sin_cos(a: Expr) -> tuple[Expr, Expr, Expr]:
    """(quadrant, sin r, cos r) for a >= 0."""
    big = a >= const(65536.0, F32)
    q1, r1, t1 = _reduce_medium(select(big, ZERO, a))
    q2, r2, t2 = _reduce_large(a)
    q, r, tail = select(big, q2, q1), select(big, r2, r1), select(big, t2, t1)
    u = r * r
    s = r + fma(u * r, horner(u, SIN), tail)
    # cos: 1 - u/2 split exactly, then the rest
    half = u * 0.5
    h = ONE - half
    low = (ONE - h) - half
    c = h + fma(u * u, horner(u, COS), fma(-r, tail, low))
    return q, s, c


def _quarter(q: Expr, s: Expr, c: Expr) -> Expr:
    """sin of the quadrant: s, c, -s, -c."""
    y = select(eq(q & 1, 0), s, c)
    return bitcast(bitcast(y, U32) ^ ((q & 2) << 30), F32)


@function("sin", F32)
def sin(x: Expr) -> Expr:
    a = absolute(x)
    q, s, c = _sin_cos(a)
    y = bitcast(bitcast(_quarter(q, s, c), U32) ^ (bitcast(x, U32) & 0x80000000), F32)
    return select(a < INF, y, NAN)


@function("cos", F32)
def cos(x: Expr) -> Expr:
    a = absolute(x)
    q, s, c = _sin_cos(a)
    return select(a < INF, _quarter(q + 1, s, c), NAN)


@function("rsqrt", F32)
def rsqrt(x: Expr) -> Expr:
    return ONE / sqrt(x)


@function("sigmoid", F32)
def sigmoid(x: Expr) -> Expr:
    z = exp(-absolute(x))
    return select(is_nan(x), x, select(x < ZERO, z, ONE) / (ONE + z))


@function("silu", F32)
def silu(x: Expr) -> Expr:
    return x * sigmoid(x)


@function("gelu", F32)
def gelu(x: Expr) -> Expr:
    return (x * 0.5) * (ONE + erf(x * bits(0x3F3504F3)))


@function("gelu_tanh", F32)
def gelu_tanh(x: Expr) -> Expr:
    cube = (x * x) * x
    inner = bits(0x3F4C422A) * (x + bits(0x3D372713) * cube)
    return (x * 0.5) * (ONE + tanh(inner))


@function("relu", F32)
def relu(x: Expr) -> Expr:
    return maximum(x, ZERO)


FUNCTIONS: dict[str, Function] = {
    f.name: f
    for f in (exp, log, tanh, erf, sin, cos, rsqrt, sigmoid, silu, gelu, gelu_tanh, relu)
}
MEASURED = ("exp", "log", "tanh", "erf", "sin", "cos", "rsqrt", "sigmoid")  # over all 2^32 inputs
