"""The inverse of erf, and the gamma function's logarithm and its derivative."""

from __future__ import annotations

from ree.kernels.scalar.common import HALF, INF, NAN, ONE, ZERO, horner, with_sign
from ree.kernels.scalar.explog import log_head, log_split, normal
from ree.kernels.scalar.language import (
    F32,
    Expr,
    absolute,
    bits,
    const,
    convert,
    eq,
    fma,
    function,
    rint,
    select,
    sqrt,
)
from ree.kernels.scalar.trig import near_parts

# 1 - erfinv(a) / a in a^2 below 1/2, 1 - erfinv(a) / s in s - 5/4 and s - 3 with s = sqrt(-log(1 - a^2))
ERFINV_SMALL = (0xBDE901DB, 0x3E6D94A4, 0x3E02AFE4, 0x3DAEA31C, 0x3D9BFBBA, 0x3B7D250D, 0x3E07CB3D)
ERFINV_MIDDLE = (0x3DC97282, 0xBCBB972B, 0xBBC51180, 0x3B3D43F8, 0x3A34062E, 0xB96DDBAD, 0xB934D9AF,
                 0x3717DE89, 0x37FCC269)  # fmt: skip
ERFINV_LARGE = (0x3D6447F1, 0xBC9F74F0, 0x3B89DC2C, 0xB985C5CA, 0xB99B6ED4, 0x393970DF, 0xB83ADAF1, 0xB72AB8F6,
                0x37125694)  # fmt: skip
# digamma(x) / (x - root) in x - root from 1 to 3, root = head + tail
DIGAMMA = (0x3F77B95E, 0xBEE2B1DB, 0x3E845A34, 0xBE27E129, 0x3DDCD053, 0xBD93C507, 0x3D478367, 0xBD086E4E,
           0x3CBFC976, 0xBC8589B5, 0x3C20B925, 0xBB8C89F1, 0x3A951BF8, 0xB90CBF71)  # fmt: skip
ROOT, ROOT_LESS_ONE, ROOT_LOW = bits(0x3FBB16C3), bits(0x3EEC5B0C), bits(0x3255AF90)
DIGAMMA_FAR = (0x3DAAAAA5, 0xBC08784E, 0x3B7CAA91, 0xBB36171E)
# lgamma(1 + t) / t in [-1/2, 1/2], lgamma(2 + t) / t in [-1/2, 1], less their values at 0, over t
LGAMMA_ONE = (0x3F528D33, 0xBECD268B, 0x3E8A8A7F, 0xBE546913, 0x3E2D4F91, 0xBE128660, 0x3E05529C, 0xBDF7A0B9,
              0x3D8C5546, 0xBD2F50C6, 0x3E33A892, 0xBE40A467)  # fmt: skip
LGAMMA_TWO = (0x3EA51A66, 0xBD89EFE0, 0x3CA89929, 0xBBF208B0, 0x3B3D5AD6, 0xBA9D053F, 0x3A0A387B, 0xB96201F6,
              0x3852BDB1)  # fmt: skip
STIRLING_HEAD, STIRLING_TAIL = bits(0x3ED67F1D), bits(0xB273682A)  # log(2 pi) / 2 - 1/2
STIRLING = (0x3DAAAAA2, 0xBB35B801, 0x3A36C669)
MINUS_EULER, ONE_MINUS_EULER = const(-0.57721566490153286, F32), const(0.42278433509846714, F32)
PI, INVERSE_PI = const(3.14159265358979324, F32), const(0.31830988618379067, F32)
PI_LOW = bits(0xB3BBBD2E)
THREE = const(3.0, F32)


def _either(c: Expr, x: Expr, a: tuple[int, ...], b: tuple[int, ...]) -> Expr:
    """The polynomial with coefficients c ? a : b at x."""
    n = max(len(a), len(b))
    pairs = list(zip(a + (0,) * (n - len(a)), b + (0,) * (n - len(b)), strict=True))
    r = select(c, bits(pairs[-1][0]), bits(pairs[-1][1]))
    for p, q in reversed(pairs[:-1]):
        r = fma(r, x, select(c, bits(p), bits(q)))
    return r


def _log(x: Expr) -> tuple[Expr, Expr]:
    """log(x) as head and tail, for x > 0."""
    e, f = log_split(*normal(x))
    high, low = log_head(f)
    k = convert(e, F32)
    a = k * bits(0x3F317200)
    s = a + high
    rest = (high - (s - a)) + fma(k, bits(0x35BFBE8E), low)
    y = s + rest
    return y, rest - (y - s)


@function("erfinv", F32)
def erfinv(x: Expr) -> Expr:
    """a - a P(a^2) below 1/2, else s - s Q(s) with s = sqrt(-log((1 - a)(1 + a)))."""
    a = absolute(x)
    small = fma(a, horner(a * a, ERFINV_SMALL), a)
    b = select(a > HALF, select(a < ONE, a, HALF), HALF)
    rest, one_more = ONE - b, ONE + b  # the first exact
    p = rest * one_more
    p_low = fma(rest, one_more, -p) + rest * (b - (one_more - ONE))
    log, low = _log(p)
    w = -log
    s = sqrt(w)
    s_low = (fma(-s, s, w) - (low + p_low / p)) / (s + s)
    middle = s < const(2.0, F32)
    q = _either(middle, s - select(middle, const(1.25, F32), THREE), ERFINV_MIDDLE, ERFINV_LARGE)
    y = select(a < HALF, small, s + fma(-s, q, s_low))
    return with_sign(select(eq(a, ONE), INF, select(a <= ONE, y, NAN)), x)


def _turn(x: Expr) -> tuple[Expr, Expr, Expr]:
    """(r, sin, cos) of pi |r|, with r = x less the nearest integer."""
    r = x - rint(x)
    a = absolute(r)
    swap = const(0.25, F32) < a
    b = select(swap, HALF - a, a)  # exact
    t = b * PI
    t, t_low, h, w = near_parts(t, fma(b, PI, -t) + b * PI_LOW)
    s, c = t + t_low, h + w
    return r, select(swap, c, s), select(swap, s, c)


@function("digamma", F32)
def digamma(x: Expr) -> Expr:
    """(x - root) P(x - root) from 1 to 3, the asymptotic series from there, digamma(1 + x) - 1 / x below 1;
    digamma(1 - x) - pi / tan(pi x) for negative x."""
    reflected = x < ZERO
    z = select(reflected, ONE - x, x)
    far, below = z >= THREE, z < ONE
    b = select(far, z, THREE)
    log, log_low = _log(b)
    v = ONE / b
    u = v * v
    large = log + (log_low - fma(u, horner(u, DIGAMMA_FAR), v * HALF))
    t = (z - select(below, ROOT_LESS_ONE, ROOT)) - ROOT_LOW
    near = t * horner(t, DIGAMMA)
    y = select(far, large, near)
    r, s, c = _turn(x)
    q = select(reflected, c / s * with_sign(PI, r), ONE / select(below, z, ONE))
    y = select(reflected | below, y - q, y)
    y = select(eq(x, INF), INF, select(reflected & eq(r, ZERO), NAN, y))
    return select(eq(x, ZERO), -with_sign(INF, x), select(eq(x, -INF), NAN, y))


@function("lgamma", F32)
def lgamma(x: Expr) -> Expr:
    """About 1 and 2 below 3, Stirling's series from there, lgamma(1 + x) - log |x| below 1/2 on either side;
    -log(|x sin(pi x)| / pi) - lgamma(-x) for x below that."""
    z = absolute(x)
    small, far = z < HALF, z >= THREE
    log, log_low = _log(select(small, select(eq(z, ZERO), ONE, z), select(far, z, THREE)))
    one = z < const(1.5, F32)
    t = select(small, x, z - select(one, ONE, const(2.0, F32)))
    p = _either(one, t, LGAMMA_ONE, LGAMMA_TWO)
    near = fma(t, select(one, MINUS_EULER, ONE_MINUS_EULER), (t * t) * p)
    # (z - 1/2) (log z - 1) + (log(2 pi) - 1) / 2 + S(1 / z)
    b = select(far, z, THREE)
    m = b - HALF
    a = log - ONE
    a_low = ((log - a) - ONE) + log_low
    h = m * a
    h_low = fma(m, a, -h) + fma(m, a_low, ((b - m) - HALF) * a)
    v = ONE / b
    head = h + STIRLING_HEAD
    swap = h < STIRLING_HEAD
    lost = select(swap, h - (head - STIRLING_HEAD), STIRLING_HEAD - (head - h))
    large = head + (lost + (h_low + fma(v, horner(v * v, STIRLING), STIRLING_TAIL)))
    large = select(eq(h, INF), INF, large)
    y = select(small, near - log_low - log, select(far, large, near))
    r, s, _ = _turn(x)
    left = x <= -HALF
    v = select(left & (s > ZERO), select(z < bits(0x4B000000), z, ONE) * s * INVERSE_PI, ONE)
    other, other_low = _log(v)
    y = select(left, -other - (y + other_low), y)
    return select(eq(x, ZERO) | (left & eq(r, ZERO)) | eq(z, INF), INF, y)
