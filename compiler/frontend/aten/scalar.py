"""Importers of further functions of one and two numbers, composed of the registry's operators."""

from __future__ import annotations

import math
from collections.abc import Callable

from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall, Value
from ree.compiler.ir import Ref
from ree.kernels.types import DType

F32, BOOL = DType.F32, DType.BOOL


def _floats(op: str) -> Callable[..., Ref]:
    """An operator on two float32; torch's promotion, and integers become float32."""

    def f(m: Importer, x: Value, y: Value) -> Ref:
        (a, b), _ = m.promote(x, y)
        return m.add(op, m.as_float(a), m.as_float(b))

    return f


IMPORTERS["atan2"] = _floats("atan2")
IMPORTERS["hypot"] = _floats("hypot")
for _name in ("copysign.Tensor", "copysign.Scalar"):
    IMPORTERS[_name] = _floats("copysign")


def _not_nan(order: str) -> Callable[..., Ref]:
    """The greater or lesser operand; a NaN only if both are. Of equals the first."""

    def f(m: Importer, x: Ref, y: Ref) -> Ref:
        (a, b), dtype = m.promote(x, y)
        if dtype is BOOL:
            return m.add("logical_or" if order == "ge" else "logical_and", a, b)
        first = m.add("logical_or", m.add(order, a, b), m.add("ne", b, b))
        return m.add("where", first, a, b)

    return f


IMPORTERS["fmax"] = _not_nan("ge")
IMPORTERS["fmin"] = _not_nan("le")


def _shift(op: str) -> Callable[..., Ref]:
    def f(m: Importer, x: Value, y: Value) -> Ref:
        (a, b), dtype = m.promote(x, y)
        if dtype in (F32, BOOL):
            raise RefusedCall("a shift of numbers that are not integers")
        return m.add(op, a, b)

    return f


for _name, _aliases in (
    ("bitwise_left_shift", ("__lshift__",)),
    ("bitwise_right_shift", ("__rshift__",)),
):
    for _spelling in (_name, *_aliases):
        for _suffix in ("Tensor", "Scalar", "Tensor_Scalar", "Scalar_Tensor"):
            IMPORTERS[f"{_spelling}.{_suffix}"] = _shift(_name)


def _logaddexp(base: int) -> Callable[..., Ref]:
    """The greater plus the logarithm of 1 + base^-distance; equal infinities are themselves. Of base 2 the
    logarithm is scaled and added by one fma, as torch's vectors have it."""
    inverse = 1 / math.log(2)

    def f(m: Importer, x: Ref, y: Ref) -> Ref:
        (a, b), _ = m.promote(x, y)
        first = m.add("ge", a, b)
        high, low = m.add("where", first, a, b), m.add("where", first, b, a)
        z = m.add("log1p", m.add("exp2" if base == 2 else "exp", m.add("sub", low, high)))
        total = (
            m.add("fma", z, m.scalar(inverse, F32), high) if base == 2 else m.add("add", high, z)
        )
        same = m.add("logical_and", m.add("eq", a, b), IMPORTERS["isinf"](m, a))
        return m.add("where", same, a, total)

    return f


IMPORTERS["logaddexp"], IMPORTERS["logaddexp2"] = _logaddexp(0), _logaddexp(2)
