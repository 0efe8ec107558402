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
HALF = const(0.5, F32)
MAGIC = const(12582912.0, F32)  # 1.5 * 2^23: adding it rounds to an integer in the low bits
LOG2E = bits(0x3FB8AA3B)
LN2_HI, LN2_LO = bits(0x3F317218), bits(0xB102E308)

EXP = (0x3F000000, 0x3E2AAA48, 0x3D2AAA63, 0x3C091D6C, 0x3AB6B9D1)
LOG = (0x3EAAAAA3, 0xBE7FFFF7, 0x3E4CD2A1, 0xBE2AB170, 0x3E119983, 0xBDFDA1EF, 0x3DF326B8,
       0xBDF17241, 0x3D8DA1BA)  # fmt: skip
TANH = (0xBEAAAAA9, 0x3E08881D, 0xBD5CFB2A, 0x3CB25D08, 0xBC0C5C3E, 0x3B475DE6, 0xBA56226D,
        0x38F11E7B)  # fmt: skip
ERF_SMALL = (0x3E0375D4, 0xBEC093A0, 0x3DE716A8, 0xBCDBFF48, 0x3BAA1708, 0xBA528587, 0x38A61A27)
ERF_LARGE = (0xBFD069AD, 0xBF6AAD11, 0xBE1C1B42, 0x3D0873E7, 0xBB966A7B, 0x3951C1AC, 0x382C2F51,
             0xB6AC46D3)  # fmt: skip
EXP2 = (0x3F317218, 0x3E75FDF0, 0x3D6357BD, 0x3C1D9514, 0x3AAF84B0, 0x392223DA)
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


def biased(offset: int) -> Expr:
    """`MAGIC` with a bias: the low bits of x + biased(o) are the exponent field of 2^(x + o)."""
    return const(12582912.0 + 127 + offset, F32)


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


@function("exp", F32)
def exp(x: Expr) -> Expr:
    low, high = const(-104.0, F32), const(89.0, F32)
    x = select(high < x, high, x)  # NaN passes
    x = select(x < low, low, x)
    # n may leave the range of exponents: 2^(n - offset) * y is exact, and only the second factor
    # rounds, once, to a subnormal or to infinity
    negative = x < ZERO
    y, power = exp_core(x, select(negative, biased(64), biased(-64)))
    return (y * power) * select(negative, bits(0x1F800000), bits(0x5F800000))


def exp_nonpositive(x: Expr) -> Expr:
    """exp(x) for x <= 0, with the same bits in fewer operations."""
    low = const(-104.0, F32)
    y, power = exp_core(select(x < low, low, x), biased(64))
    return (y * power) * bits(0x1F800000)


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
    b = select(const(10.0, F32) < a, const(10.0, F32), a)
    y, power = exp_core(b + b, biased(0))
    e = y * power
    large = ONE - const(2.0, F32) / (e + ONE)
    return with_sign(select(a < ONE, small, large), x)


@function("erf", F32)
def erf(x: Expr) -> Expr:
    a = absolute(x)
    u = a * a
    small = fma(a, horner(u, ERF_SMALL), a)
    # erfc(t) = 2^(t P(t)) below 2^-2.6: an error there counts little in 1 - erfc
    t = select(const(4.0, F32) < a, const(4.0, F32), a)
    p = horner(t, ERF_LARGE)
    v = fma(t, p, biased(0))
    f = fma(t, p, biased(0) - v)
    power = bitcast(bitcast(v, U32) << 23, F32)
    large = fma(-fma(f, horner(f, EXP2), ONE), power, ONE)
    return with_sign(select(a < ONE, small, large), x)


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


def _sin_cos(a: Expr) -> tuple[Expr, Expr, Expr]:
    """(quadrant, sin r, cos r) for a >= 0."""
    small = a < QUARTER_PI
    q, r, tail = _reduce(select(a < HALF, HALF, a))
    q, r, tail = select(small, const(0, U32), q), select(small, a, r), select(small, ZERO, tail)
    u = r * r
    # h = 1 - u/2, split exactly; tail enters by the derivatives: cos r, about h, and -sin r
    half = u * 0.5
    h = ONE - half
    low = (ONE - h) - half
    s = r + fma(u * r, horner(u, SIN), h * tail)
    c = h + fma(u * u, horner(u, COS), fma(-s, tail, low))
    return q, s, c


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


@function("rsqrt", F32)
def rsqrt(x: Expr) -> Expr:
    return ONE / sqrt(x)


@function("sigmoid", F32)
def sigmoid(x: Expr) -> Expr:
    z = exp_nonpositive(-absolute(x))
    return select(x < ZERO, z, ONE) / (ONE + z)


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
# Largest |y - f| / ulp(f) over all 2^32 inputs, as benchmarks/exhaustive_scalar.py verifies.
BOUNDS = {
    "exp": 1.0, "log": 1.0, "tanh": 1.0, "erf": 1.0, "sin": 1.0, "cos": 1.0, "rsqrt": 1.5,
    "sigmoid": 2.5,
}  # fmt: skip
