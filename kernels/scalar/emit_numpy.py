"""NumPy for the scalar language: the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ree.kernels.numerics import canonical_nan, fma32
from ree.kernels.scalar.language import BOOL, F32, I32, I64, U32, Expr, Function, T, walk

Array = npt.NDArray[Any]
DTYPES: dict[T, type[np.generic]] = {
    F32: np.float32, I32: np.int32, U32: np.uint32, I64: np.int64, BOOL: np.bool_,
}  # fmt: skip


def evaluate(f: Function, *args: npt.ArrayLike) -> Array:
    """f on arrays that broadcast; a float32 result has canonical NaN."""
    arrays = [np.asarray(a, DTYPES[t]) for a, t in zip(args, f.params, strict=True)]
    values: dict[Expr, Array] = {}
    with np.errstate(all="ignore"):
        for e in walk(f.body):
            values[e] = _one(e, arrays, [values[a] for a in e.args])
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    out = np.broadcast_to(values[f.body], shape)
    return canonical_nan(out) if f.result is F32 else np.array(out)


def _one(e: Expr, params: list[Array], args: list[Array]) -> Array:
    if e.op == "param":
        assert isinstance(e.value, int)
        return params[e.value]
    if e.op == "const":
        assert isinstance(e.value, int)
        if e.type is F32:
            return np.array(e.value, np.uint32).view(np.float32)
        if e.type is BOOL:
            return np.array(bool(e.value))
        unsigned = np.uint64 if e.type is I64 else np.uint32
        return np.array(e.value, unsigned).view(DTYPES[e.type])
    if e.op == "convert":
        return _convert(args[0], e.type)
    if e.op == "bitcast":
        return _bits(args[0], DTYPES[e.type])
    if e.op == "table":
        return np.array(e.value, np.uint32)[args[0]]
    return np.asarray(_OPS[e.op](*args), DTYPES[e.type])


def _convert(x: Array, t: T) -> Array:
    if t is BOOL:
        return np.asarray(x != 0)
    if x.dtype != np.float32 or t is F32:
        return x.astype(DTYPES[t])
    top = 2 ** (63 if t is I64 else 31)
    wide = np.trunc(x.astype(np.float64))
    inside = (wide >= -float(top)) & (wide < float(top))
    out = np.where(inside, wide, 0).astype(DTYPES[t])
    out = np.where(wide >= float(top), top - 1, out)
    return np.where(wide < -float(top), -top, out).astype(DTYPES[t])


def _bits(a: Array, dtype: type[np.generic]) -> Array:
    """The same bits as another type of equal size; keeps rank 0, unlike ascontiguousarray."""
    return np.ascontiguousarray(a).view(dtype).reshape(np.shape(a))


def _flip_sign(a: Array) -> Array:
    if a.dtype != np.float32:
        return -a
    return _bits(_bits(a, np.uint32) ^ np.uint32(0x80000000), np.float32)


def _clear_sign(a: Array) -> Array:
    if a.dtype != np.float32:
        return np.abs(a)
    return _bits(_bits(a, np.uint32) & np.uint32(0x7FFFFFFF), np.float32)


def _floordiv(a: Array, b: Array) -> Array:
    """Quotient toward minus infinity; 0 where b is 0; the least integer over -1 wraps to itself."""
    zero, one = b.dtype.type(0), b.dtype.type(1)
    overflow = (a == np.iinfo(a.dtype).min) & (b == -1)
    quotient = np.floor_divide(a, np.where((b == 0) | overflow, one, b))
    return np.where(b == 0, zero, quotient)


def _mod(a: Array, b: Array) -> Array:
    return np.where(b == 0, b, a - _floordiv(a, b) * b)


_OPS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "fma": fma32,
    "div": np.divide,
    "sqrt": np.sqrt,
    "neg": _flip_sign,
    "abs": _clear_sign,
    "rint": np.rint,
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "select": np.where,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "floordiv": _floordiv,
    "mod": _mod,
    "mul_hi": lambda a, b: (a.astype(np.uint64) * b.astype(np.uint64)) >> np.uint64(32),
}
