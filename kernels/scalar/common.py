"""Constants and small forms that the math functions share."""

from __future__ import annotations

from ree.kernels.scalar.language import F32, U32, Expr, bitcast, bits, const, fma

NAN = bits(0x7FC00000)
INF = bits(0x7F800000)
ZERO = const(0.0, F32)
HALF = const(0.5, F32)
ONE = const(1.0, F32)


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
