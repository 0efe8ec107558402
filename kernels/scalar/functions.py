"""The mathematical functions, as float32 programs in the scalar language.

Each is the contract: these operations in this order. Bounds over all 2^32 inputs are measured by
benchmarks/exhaustive_scalar.py; polynomials are fitted by benchmarks/fit_polynomials.py.
"""

from __future__ import annotations

from ree.kernels.scalar.common import HALF, ONE, ZERO, horner, with_sign
from ree.kernels.scalar.explog import (
    biased,
    exp,
    exp2,
    exp_core,
    exp_nonpositive,
    expm1,
    log,
    log1p,
    log2,
)
from ree.kernels.scalar.hyperbolic import acos, acosh, asin, asinh, atan, atanh, cosh, erfc, sinh
from ree.kernels.scalar.language import (
    F32,
    U32,
    Expr,
    Function,
    absolute,
    bitcast,
    bits,
    const,
    fma,
    function,
    maximum,
    select,
    sqrt,
)
from ree.kernels.scalar.special import digamma, erfinv, lgamma
from ree.kernels.scalar.trig import cos, sin, tan

__all__ = [
    "BOUNDS", "FUNCTIONS", "acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh",
    "digamma", "erf", "erfc", "erfinv",
    "exp", "exp2", "expm1", "gelu", "gelu_tanh", "lgamma", "log", "log1p", "log2", "relu", "rsqrt", "sigmoid",
    "silu", "sin", "sinh", "softplus", "tan", "tanh",
]  # fmt: skip

TANH = (0xBEAAAAA9, 0x3E08881D, 0xBD5CFB2A, 0x3CB25D08, 0xBC0C5C3E, 0x3B475DE6, 0xBA56226D,
        0x38F11E7B)  # fmt: skip
ERF_SMALL = (0x3E0375D4, 0xBEC093A0, 0x3DE716A8, 0xBCDBFF48, 0x3BAA1708, 0xBA528587, 0x38A61A27)
ERF_LARGE = (0xBFD069AD, 0xBF6AAD11, 0xBE1C1B42, 0x3D0873E7, 0xBB966A7B, 0x3951C1AC, 0x382C2F50,
             0xB6AC46CD)  # fmt: skip
EXP2 = (0x3F317218, 0x3E75FDF0, 0x3D6357BD, 0x3C1D9514, 0x3AAF84B0, 0x392223D7)


@function("tanh", F32)
def tanh(x: Expr) -> Expr:
    a = absolute(x)
    u = a * a
    small = fma(a * u, horner(u, TANH), a)
    b = select(const(10.0, F32) < a, const(10.0, F32), a)
    y, power = exp_core(b + b, biased(0))
    # 1 - 2 / (e + 1); the quotient q is corrected for what e + 1 lost
    e = y * power
    d = e + ONE
    q = const(2.0, F32) / d
    lost = e - (d - ONE)
    large = ONE - fma(-(lost * q), q * HALF, q)
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


@function("rsqrt", F32)
def rsqrt(x: Expr) -> Expr:
    return ONE / sqrt(x)


@function("sigmoid", F32)
def sigmoid(x: Expr) -> Expr:
    z = exp_nonpositive(-absolute(x))
    return select(x < ZERO, z, ONE) / (ONE + z)


@function("softplus", F32)
def softplus(x: Expr) -> Expr:
    z = exp_nonpositive(-absolute(x))
    return select(x < ZERO, ZERO, x) + log1p(z)


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
    for f in (
        exp, exp2, expm1, log, log2, log1p, tanh, erf, sin, cos, rsqrt, sigmoid, softplus, silu,
        gelu, gelu_tanh, relu, tan, asin, acos, atan, sinh, cosh, asinh, acosh, atanh, erfc,
        erfinv, lgamma, digamma,
    )
}  # fmt: skip
# Largest |y - f| / ulp(f), measured over all 2^32 inputs by benchmarks/exhaustive_scalar.py. For lgamma and
# digamma of negative numbers the unit is another one: pointwise.COMPOSED.
BOUNDS = {
    "exp": 1.0, "exp2": 1.0, "expm1": 1.0, "log": 1.0, "log2": 1.0, "log1p": 1.0, "tanh": 1.0,
    "erf": 1.0, "sin": 1.0, "cos": 1.0, "rsqrt": 1.5, "sigmoid": 2.5, "softplus": 2.5,
    "tan": 1.0, "asin": 1.0, "acos": 1.0, "atan": 1.0, "sinh": 1.0, "cosh": 1.0, "asinh": 1.0, "acosh": 1.0,
    "atanh": 1.0, "erfc": 1.0, "erfinv": 1.0, "lgamma": 4.0, "digamma": 5.0,
}  # fmt: skip
