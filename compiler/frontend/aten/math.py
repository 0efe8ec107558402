"""Importers of further arithmetic: each a composition of the registry's operators, in the order given here."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ree.compiler.frontend.aten.division import divisor
from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall, Scalar, Value, aten
from ree.compiler.gradients import calls
from ree.compiler.ir import Ref
from ree.kernels.types import DType

F32, I64, BF16, BOOL = DType.F32, DType.I64, DType.BF16, DType.BOOL


def binary(m: Importer, op: str, x: Value, y: Value) -> Ref:
    """op after torch's promotion."""
    (a, b), _ = m.promote(x, y)
    return m.add(op, a, b)


# rounding and signs


def _rounding(op: str) -> Callable[..., Ref]:
    def f(m: Importer, x: Ref) -> Ref:
        return m.add(op, x) if m.type(x).dtype is F32 else x

    return f


for _name in ("floor", "ceil", "trunc", "round"):
    IMPORTERS[_name] = _rounding(_name)


@aten("round.decimals")
def _round_decimals(m: Importer, x: Ref, *, decimals: int) -> Ref:
    """Rounded as a multiple of 10^-decimals, scaled there and back."""
    if m.type(x).dtype is not F32 or decimals == 0:
        return IMPORTERS["round"](m, x)  # type: ignore[no-any-return]
    ten = m.scalar(10.0 ** abs(decimals), F32)
    there, back = ("mul", "div") if decimals > 0 else ("div", "mul")
    return m.add(back, m.add("round", m.add(there, x, ten)), ten)


@aten("sign", "sgn")
def _sign(m: Importer, x: Ref) -> Ref:
    return x if m.type(x).dtype is BOOL else m.add("sign", x)


@aten("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
def _remainder(m: Importer, x: Value, y: Value) -> Ref:
    (a, b), _ = m.promote(x, y)
    return m.add("remainder", a, divisor(m, a, b))


@aten("floor_divide", "floor_divide.Scalar")
def _floor_divide(m: Importer, x: Value, y: Value) -> Ref:
    (a, b), _ = m.promote(x, y)
    return m.add("floor_divide", a, divisor(m, a, b))


@aten("fmod.Tensor", "fmod.Scalar")
def _fmod(m: Importer, x: Ref, y: Value) -> Ref:
    """The remainder of magnitudes, with the sign of x."""
    (a, b), dtype = m.promote(x, y)
    b = divisor(m, a, b)
    zero = m.scalar(0, dtype)
    negative = m.add("lt", a, zero)
    if dtype is F32:
        size = m.add("abs", b)
        y = m.add("remainder", a, m.add("where", negative, m.add("neg", size), size))
        return m.rule(y, (a, b), calls.FMOD)
    r = m.add("remainder", a, b)  # a magnitude of the least integer would not be one
    across = m.add("ne", negative, m.add("lt", b, zero))
    across = m.add("logical_and", across, m.add("ne", r, zero))
    return m.add("where", across, m.add("sub", r, b), r)


@aten("div.Tensor_mode", "div.Scalar_mode")
def _div_mode(m: Importer, x: Value, y: Value, *, rounding_mode: str | None = None) -> Ref:
    (a, b), dtype = m.promote(x, y)
    if rounding_mode is None:
        return m.add("div", m.as_float(a), m.as_float(b))
    b = divisor(m, a, b)
    if rounding_mode == "floor":
        return m.add("floor_divide", a, b)
    if dtype is F32:
        half = m.half(x, y) if isinstance(y, Ref) and m.type(y).rank else None
        return m.add("trunc", m.rounded(m.add("div", a, b), half))
    q, r = m.add("floor_divide", a, b), m.add("remainder", a, b)
    zero = m.scalar(0, dtype)
    across = m.add("ne", m.add("lt", a, zero), m.add("lt", b, zero))
    below = m.add("logical_and", across, m.add("ne", r, zero))
    return m.add("add", q, m.cast(below, dtype))


# powers and logarithms


@aten("pow.Tensor_Tensor", "pow.Scalar", "pow.Tensor_Scalar")
def _pow(m: Importer, x: Value, e: Value) -> Ref:
    """Small powers by multiplication, the square root and its reciprocal by those, others by pow."""
    if isinstance(x, Ref) and isinstance(e, int | float):
        half = m.half(x)
        if m.type(x).dtype is DType.BOOL and isinstance(e, int):
            x = m.cast(x, I64)
        if e == 0:
            whole = m.type(x).dtype is I64 and isinstance(e, int)
            return m.add(
                "full",
                shape=m.type(x).shape,
                value=1 if whole else 1.0,
                dtype=I64 if whole else F32,
            )
        if isinstance(e, int) or e.is_integer():
            if m.type(x).dtype is I64 and isinstance(e, int) and e > 0:
                return _by_squares(m, x, e, None)
            if m.type(x).dtype is F32 and 1 <= e <= 8:
                return _by_squares(m, x, int(e), BF16 if half is BF16 and e == 3 else None)
            if e in (-1, -2):
                z = x = m.as_float(x)
                if e == -2:
                    z = m.rounded(m.add("mul", x, x), BF16 if half is BF16 else None)
                y = m.add("div", m.scalar(1.0, F32), z)
                return y if e == -1 else m.rule(y, (x,), calls.INVERSE_SQUARE)
        elif e in (0.5, -0.5) and half is not DType.F16:  # there torch takes a power
            x = m.as_float(x)
            if e > 0:
                return m.add("sqrt", x)
            return m.rule(m.add("rsqrt", x), (x,), calls.INVERSE_ROOT)
    (a, b), dtype = m.promote(x, e)
    if dtype is F32:
        return m.add("pow", a, b)
    return m.cast(whole_power(m, m.cast(a, I64), m.cast(b, I64)), dtype)


def whole_power(m: Importer, x: Ref, e: Ref, bits: int = 63) -> Ref:
    """x^e modulo 2^64, bit by bit of e, whose magnitude is below 2^bits. A negative power of 1 or -1 is what
    it is of its magnitude; of another number it is 0, as torch has it."""
    one, zero = m.scalar(1, I64), m.scalar(0, I64)
    y: Ref = one
    square = x
    for bit in range(bits):
        odd = m.add("bitwise_and", m.add("bitwise_right_shift", e, m.scalar(bit, I64)), one)
        y = m.add("where", m.add("ne", odd, zero), m.add("mul", y, square), y)
        square = m.add("mul", square, square)
    unit = m.add("eq", m.add("abs", x), one)
    return m.add("where", m.add("logical_or", unit, m.add("ge", e, zero)), y, zero)


def _by_squares(m: Importer, x: Ref, e: int, half: DType | None) -> Ref:
    """x^e from the highest bit of e: square, then multiply by x where the bit is set."""
    y = x
    for bit in bin(e)[3:]:
        y = m.rounded(m.add("mul", y, y), half)
        if bit == "1":
            y = m.add("mul", y, x)
    return y


@aten("log10")
def _log10(m: Importer, x: Ref) -> Ref:
    return m.add("mul", m.add("log", m.as_float(x)), m.scalar(1 / math.log(10), F32))


# predicates


@aten("isnan")
def _isnan(m: Importer, x: Ref) -> Ref:
    return m.add("ne", x, x)


@aten("isinf")
def _isinf(m: Importer, x: Ref) -> Ref:
    x = m.as_float(x)
    return m.add("eq", m.add("abs", x), m.scalar(math.inf, F32))


@aten("isfinite")
def _isfinite(m: Importer, x: Ref) -> Ref:
    x = m.as_float(x)
    return m.add("lt", m.add("abs", x), m.scalar(math.inf, F32))


def _bitwise(op: str) -> Callable[..., Ref]:
    def f(m: Importer, x: Value, y: Value) -> Ref:
        (a, b), dtype = m.promote(x, y)
        if dtype is F32:
            raise RefusedCall("a bitwise operation on floats")
        return m.add(f"{'logical' if dtype is BOOL else 'bitwise'}_{op}", a, b)

    return f


for _name in ("and", "or", "xor"):
    for _suffix in ("Tensor", "Scalar", "Scalar_Tensor"):
        IMPORTERS[f"bitwise_{_name}.{_suffix}"] = _bitwise(_name)


@aten("bitwise_not")
def _bitwise_not(m: Importer, x: Ref) -> Ref:
    return m.add("logical_not" if m.type(x).dtype is BOOL else "bitwise_not", x)


# activations


@aten("hardtanh")
def _hardtanh(m: Importer, x: Ref, low: Scalar = -1.0, high: Scalar = 1.0) -> Ref:
    if m.type(x).dtype is I64:
        low, high = int(low), int(high)
    y = binary(m, "minimum", binary(m, "maximum", x, low), high)
    if m.type(x).dtype is not F32:
        return y
    return m.rule(y, (x,), calls.inside(float(low), float(high)))


@aten("relu6")
def _relu6(m: Importer, x: Ref) -> Ref:
    return _hardtanh(m, x, 0.0, 6.0)  # type: ignore[no-any-return]


@aten("hardsigmoid")
def _hardsigmoid(m: Importer, x: Ref) -> Ref:
    y = binary(m, "div", _relu6(m, binary(m, "add", x, 3.0)), 6.0)
    return m.rule(y, (x,), calls.inside(-3.0, 3.0, 6.0))


@aten("hardswish")
def _hardswish(m: Importer, x: Ref) -> Ref:
    y = binary(m, "div", binary(m, "mul", x, _relu6(m, binary(m, "add", x, 3.0))), 6.0)
    return m.rule(y, (x,), calls.HARDSWISH)


@aten("leaky_relu")
def _leaky_relu(m: Importer, x: Ref, slope: Scalar = 0.01) -> Ref:
    x = m.as_float(x)
    return m.add("where", binary(m, "gt", x, 0.0), x, binary(m, "mul", x, float(slope)))


@aten("elu")
def _elu(
    m: Importer, x: Ref, alpha: Scalar = 1.0, scale: Scalar = 1.0, input_scale: Scalar = 1.0
) -> Ref:
    x = m.as_float(x)
    low = m.add("expm1", binary(m, "mul", x, float(input_scale)))
    low = binary(m, "mul", low, float(np.float32(alpha) * np.float32(scale)))
    above = binary(m, "ge", x, 0.0)  # at 0 an infinite alpha does not count
    y = m.add("where", above, binary(m, "mul", x, float(scale)), low)
    return m.rule(y, (x,), calls.elu(float(alpha), float(scale), float(input_scale)))


@aten("celu")
def _celu(m: Importer, x: Ref, alpha: Scalar = 1.0) -> Ref:
    return _elu(m, x, alpha, 1.0, 1 / alpha)  # type: ignore[no-any-return]


@aten("log_sigmoid_forward")
def _log_sigmoid(m: Importer, x: Ref) -> tuple[Ref, Ref]:
    """(min(x, 0) - log1p(z), z), z = exp(-|x|)."""
    x = m.as_float(x)
    z = m.add("exp", m.add("neg", m.add("abs", x)))
    y = m.add("sub", m.add("minimum", x, m.scalar(0.0, F32)), m.add("log1p", z))
    return m.rule(y, (x,), calls.LOG_SIGMOID), z


@aten("_prelu_kernel")
def _prelu(m: Importer, x: Ref, w: Ref) -> Ref:
    y = m.add("where", binary(m, "gt", x, 0.0), x, m.add("mul", w, x))
    return m.rule(y, (x, w), calls.PRELU)


@aten("sinc")
def _sinc(m: Importer, x: Ref) -> Ref:
    """sin(pi x) / (pi x), 1 at 0."""
    x = m.as_float(x)
    t = m.add("mul", m.scalar(math.pi, F32), x)
    y = m.add("div", m.add("sin", t), t)
    y = m.add("where", binary(m, "eq", x, 0.0), m.scalar(1.0, F32), y)
    return m.rule(y, (x,), calls.SINC)


@aten("xlogy.Tensor", "xlogy.Scalar_Self", "xlogy.Scalar_Other")
def _xlogy(m: Importer, x: Value, y: Value) -> Ref:
    """x * log(y); +0 where x is 0, NaN where y is."""
    (a, b), _ = m.promote(x, y)
    a, b = m.as_float(a), m.as_float(b)
    z = m.add("mul", a, m.rounded(m.add("log", b), m.half(x, y)))
    z = m.add("where", binary(m, "eq", a, 0.0), m.scalar(0.0, F32), z)
    z = m.add("where", m.add("ne", b, b), m.scalar(math.nan, F32), z)
    return m.rule(z, (a, b), calls.XLOGY)


@aten("logit")
def _logit(m: Importer, x: Ref, eps: float | None = None) -> Ref:
    """log(x / (1 - x)), x moved inside [eps, 1 - eps] first."""
    x = m.as_float(x)
    eps = None if eps is None or eps < 0 else eps
    z = x
    if eps is not None:
        top = m.add("sub", m.scalar(1.0, F32), m.scalar(eps, F32))
        z = m.add("minimum", m.add("maximum", x, m.scalar(eps, F32)), top)
    y = m.add("log", m.add("div", z, m.add("sub", m.scalar(1.0, F32), z)))
    return m.rule(y, (x,), calls.logit(eps))


@aten("threshold")
def _threshold(m: Importer, x: Ref, threshold: Scalar, value: Scalar) -> Ref:
    dtype = m.type(x).dtype
    if dtype is I64:
        threshold, value = int(threshold), int(value)
    return m.add("where", binary(m, "le", x, threshold), m.scalar(value, dtype), x)


# sums of products, each rounded as torch's vectors do: the last product and the sum at once


@aten("lerp.Scalar", "lerp.Tensor")
def _lerp(m: Importer, x: Ref, y: Ref, weight: Value) -> Ref:
    """x + w (y - x), or y + (w - 1) (y - x) from |w| = 1/2."""
    x, y, w = m.as_float(x), m.as_float(y), m.promote(weight, 1.0)[0][0]
    small = m.add("lt", m.add("abs", w), m.scalar(0.5, F32))
    factor = m.add("where", small, w, m.add("sub", w, m.scalar(1.0, F32)))
    return m.add("fma", factor, m.add("sub", y, x), m.add("where", small, x, y))


@aten("addcmul")
def _addcmul(m: Importer, x: Ref, y: Ref, z: Ref, *, value: Scalar = 1) -> Ref:
    (a, b, c), dtype = m.promote(x, y, z)
    if value != 1:
        b = m.add("mul", b, m.scalar(value, dtype))
    return m.add("fma", b, c, a) if dtype is F32 else m.add("add", a, m.add("mul", b, c))


@aten("addcdiv")
def _addcdiv(m: Importer, x: Ref, y: Ref, z: Ref, *, value: Scalar = 1) -> Ref:
    a, b, c = m.as_float(x), m.as_float(y), m.as_float(z)
    if value != 1:
        b = binary(m, "mul", b, float(value))
    return m.add("add", a, m.add("div", b, c))


@aten("square")
def _square(m: Importer, x: Ref) -> Ref:
    return m.add("mul", x, x)
