"""Importers of numbers at equal distances: arange, linspace, logspace."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

from ree.compiler.frontend.aten.math import whole_power
from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall, Value, aten
from ree.compiler.ir import Ref
from ree.kernels.types import Dim, DType

MAX_CONSTANT = 1 << 24  # numbers that a program may hold for want of an operator


def _float_arange(m: Importer, start: Any, end: Any, step: Any, dtype: DType) -> Ref:
    """start + i * step in float64, rounded; the numbers are a constant of the program."""
    if not all(isinstance(v, int | float) for v in (start, end, step)):
        raise RefusedCall("arange over floats: expected numbers")
    n = max(ceil((end - start) / step), 0)
    if n > MAX_CONSTANT:
        raise RefusedCall(f"arange of {n} floats: more than {MAX_CONSTANT}")
    values = start + np.arange(n, dtype=np.float64) * step
    return m.cast(m.builder.const(values.astype(np.float32)), dtype)


@aten("arange", "arange.start", "arange.start_step")
def _arange(
    m: Importer, start: Any, end: Any = None, step: Any = 1, *, dtype: DType | None = None,
    **ignored: Any,
) -> Ref:  # fmt: skip
    if end is None:
        start, end = 0, start
    start, end, step = (int(v) if isinstance(v, bool) else v for v in (start, end, step))
    if dtype is DType.I64 and all(isinstance(v, int | float) for v in (start, end, step)):
        start, end, step = (int(v) for v in (start, end, step))  # as torch cuts them
    if any(isinstance(v, float) for v in (start, end, step)):
        return _float_arange(m, start, end, step, dtype or DType.F32)
    if not isinstance(step, int) or step == 0:
        raise RefusedCall(f"arange step {step}")
    n: Dim = (end - start + step - (1 if step > 0 else -1)) // step
    n = max(n, 0) if isinstance(n, int) else n
    x = m.add("iota", n=n, start=start, step=step)
    return m.cast(x, dtype or DType.I64)


@aten("linspace.Tensor_Tensor", "linspace.Tensor_Scalar", "linspace.Scalar_Tensor")
def _linspace(
    m: Importer, start: Value, end: Value, steps: int, *, dtype: DType | None = None, **ignored: Any
) -> Ref:
    """Floats: from the nearer end, by (end - start) / (steps - 1). Integers: both ends cut, then without
    rounding and cut towards zero."""
    kind = DType.F32 if dtype is None or dtype is DType.F32 else DType.I64
    first, last = (
        m.cast(v, kind) if isinstance(v, Ref) else m.scalar(v, kind) for v in (start, end)
    )
    if steps < 2:
        return m.add("expand", first, shape=(steps,))
    at = m.add("iota", n=steps, start=0, step=1)
    back = m.add("iota", n=steps, start=steps - 1, step=-1)
    if kind is DType.I64:
        sides = m.add("add", m.add("mul", first, back), m.add("mul", last, at))
        return IMPORTERS["div.Tensor_mode"](  # type: ignore[no-any-return]
            m, sides, steps - 1, rounding_mode="trunc"
        )
    step = m.add("div", m.add("sub", last, first), m.scalar(float(steps - 1), kind))
    up = m.add("add", first, m.add("mul", step, m.as_float(at)))
    down = m.add("sub", last, m.add("mul", step, m.as_float(back)))
    return m.add("where", m.add("lt", at, m.scalar(steps // 2, DType.I64)), up, down)


@aten("logspace.Tensor_Tensor", "logspace.Tensor_Scalar", "logspace.Scalar_Tensor")
def _logspace(
    m: Importer, start: Value, end: Value, steps: int, base: float = 10.0, *,
    dtype: DType | None = None, **ignored: Any,
) -> Ref:  # fmt: skip
    """base^x for the x of linspace, in float32. Integers: of ends that are cut, and cut itself, but exact
    where x is whole and base too."""
    if dtype is None or dtype is DType.F32:
        x = _linspace(m, start, end, steps, dtype=DType.F32)
        return m.add("pow", m.scalar(base, DType.F32), x)
    if steps > 1:  # one number is of the first end as it is
        start, end = (
            m.as_float(
                m.cast(v, DType.I64)
                if isinstance(v, Ref)
                else m.scalar(int(v) if isinstance(v, float) else v, DType.I64)
            )
            for v in (start, end)
        )
    x = _linspace(m, start, end, steps, dtype=DType.F32)
    y = m.add("pow", m.scalar(base, DType.F32), x)
    near = m.cast(y, DType.I64)
    if not float(base).is_integer() or abs(base) < 2:
        return near
    whole = m.cast(x, DType.I64)
    exact = m.add("eq", m.as_float(whole), x)
    exact = m.add("logical_and", exact, m.add("ge", x, m.scalar(0.0, DType.F32)))
    small = m.add("lt", m.add("abs", y), m.scalar(2.0**62, DType.F32))
    exact = m.add("logical_and", exact, small)
    power = whole_power(m, m.scalar(int(base), DType.I64), whole, 6)
    return m.add("where", exact, power, near)
