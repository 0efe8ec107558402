"""Element types in memory, and the cast between any two of them.

Arithmetic is on f32, i64 and bool. The other types are storage: a narrow operand is widened when it is
loaded, exactly, and a result is rounded to it, to nearest even, when it is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from ree.kernels.canonical import canonical
from ree.kernels.opdef import (
    Array,
    Attrs,
    Bound,
    Cost,
    Form,
    OpDef,
    Sample,
    bytes_moved,
    register,
)
from ree.kernels.ops.pointwise import index_rule, random_array
from ree.kernels.samples import SPECIAL
from ree.kernels.scalar.emit_numpy import evaluate
from ree.kernels.scalar.language import (
    BOOL,
    F32,
    I32,
    I64,
    U32,
    Expr,
    Function,
    T,
    bitcast,
    const,
    convert,
    param,
    rint,
    select,
)
from ree.kernels.schema import Attr, AttrKind
from ree.kernels.types import DType, TensorType

# the scalar type that a loaded element has, and that an element to be stored must have; f16 and bf16
# are their 16 bits, zero-extended
SCALAR: dict[DType, T] = {
    DType.F32: F32, DType.I64: I64, DType.BOOL: BOOL, DType.I32: I32, DType.I16: I32, DType.I8: I32,
    DType.U8: I32, DType.F16: U32, DType.BF16: U32,
}  # fmt: skip
WIDE = {DType.F16: DType.F32, DType.BF16: DType.F32, DType.I32: DType.I64, DType.I16: DType.I64,
        DType.I8: DType.I64, DType.U8: DType.I64}  # fmt: skip


def _from_f16(h: Expr) -> Expr:
    size = h & 0x7FFF
    small = bitcast(convert(bitcast(size, I32), F32) * const(2.0**-24, F32), U32)
    normal = (size << 13) + (112 << 23)
    special = (size << 13) | 0x7F800000
    magnitude = select(size < 0x400, small, select(size < 0x7C00, normal, special))
    return bitcast(magnitude | ((h & 0x8000) << 16), F32)


def _to_f16(x: Expr) -> Expr:
    u = bitcast(x, U32)
    size = u & 0x7FFFFFFF
    # below 2^-14 the spacing is 2^-24: scale, round to an integer
    small = bitcast(convert(rint(bitcast(size, F32) * const(2.0**24, F32)), I32), U32)
    normal = (size + 0xFFF + ((size >> 13) & 1) - (112 << 23)) >> 13
    finite = select(size < 0x38800000, small, normal)
    magnitude = select(size < 0x477FF000, finite, const(0x7C00, U32))
    return select(size <= 0x7F800000, magnitude | ((u >> 16) & 0x8000), const(0x7E00, U32))


def _to_bf16(x: Expr) -> Expr:
    u = bitcast(x, U32)
    rounded = (u + 0x7FFF + ((u >> 16) & 1)) >> 16
    return select((u & 0x7FFFFFFF) <= 0x7F800000, rounded, const(0x7FC0, U32))


def _number(x: Expr, d: DType) -> Expr:
    """A loaded element as f32, i32, i64 or bool."""
    if d is DType.F16:
        return _from_f16(x)
    return bitcast(x << 16, F32) if d is DType.BF16 else x


def _stored(x: Expr, d: DType) -> Expr:
    """A number as an element of d to be stored."""
    if d in (DType.F16, DType.BF16):
        f = convert(x, F32)
        return _to_f16(f) if d is DType.F16 else _to_bf16(f)
    if d in (DType.I16, DType.I8):
        shift = 32 - 8 * d.size
        return (convert(x, I32) << shift) >> shift
    y = convert(x, SCALAR[d])
    return y & 255 if d is DType.U8 else y


@lru_cache(maxsize=128)
def cast_function(source: DType, to: DType) -> Function:
    """The cast as a scalar function of loaded elements."""
    x = param(0, SCALAR[source])
    body = x if source is to else _stored(_number(x, source), to)
    return Function(f"cast_{to.text}", (SCALAR[source],), body)


def _target(attrs: Attrs) -> DType:
    to = attrs["dtype"]
    if not isinstance(to, DType):
        raise ValueError("cast: expected a dtype")
    return to


def _scalar(dtypes: Sequence[DType], attrs: Attrs) -> Function:
    return cast_function(dtypes[0], _target(attrs))


def _infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    if len(types) != 1:
        raise ValueError(f"cast: expected 1 source, got {len(types)}")
    return (TensorType(_target(attrs), types[0].shape),)


def load(x: Array, d: DType) -> Array:
    """An array as the scalars its elements are loaded as."""
    if d in (DType.F16, DType.BF16):
        return np.ascontiguousarray(x).view(np.uint16).reshape(x.shape).astype(np.uint32)
    return x.astype(np.int32) if SCALAR[d] is I32 else x


def store(x: Array, d: DType) -> Array:
    """Scalars as an array of d."""
    if d in (DType.F16, DType.BF16):
        return np.ascontiguousarray(x.astype(np.uint16)).view(d.numpy).reshape(x.shape)
    return x.astype(d.numpy)


def _reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    source, to = node.inputs[0].dtype, node.out.dtype
    y = evaluate(cast_function(source, to), load(inputs[0], source))
    return (store(y, to),)


def _samples() -> Iterator[Sample]:
    f16_edge = [0, 1, 0x8000, 0x3FF, 0x400, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0x7C01, 0x3C00]
    ties = [1 + 2.0**-11, 1 + 3 * 2.0**-11, 65519.0, 65520.0, 2.0**-25, 3 * 2.0**-25, 1 + 2.0**-8,
            1 + 3 * 2.0**-8, 3.3895314e38]  # fmt: skip
    big = [2.0**62, -(2.0**63), 2.0**63, 1e30, 0.5, -0.5, 1.5]
    x: Array
    for d in DType:
        if d is DType.F32:
            f = random_array(d, (5, 29), 3).reshape(-1).astype(np.float32)
            x = np.concatenate([SPECIAL, np.array([*big, *ties], np.float32), f * 1e3, f * 1e-6])
        elif d in (DType.F16, DType.BF16):
            raw = np.random.default_rng(4).integers(0, 1 << 16, 145)
            x = store(np.concatenate([f16_edge, raw]).astype(np.uint32), d)
        elif d in (DType.I64, DType.BOOL):
            x = random_array(d, (5, 29), 3)
        else:
            low, high = (
                (0, 255) if d is DType.U8 else (-(2 ** (8 * d.size - 1)), 2 ** (8 * d.size - 1) - 1)
            )
            n = np.random.default_rng(5).integers(low, high, (5, 29), endpoint=True)
            n[0, :3] = (low, high, 0)
            x = n.astype(d.numpy)
        x = canonical(x)
        for to in DType:
            yield Sample(f"{d.text}->{to.text}", (x,), {"dtype": to})


register(
    OpDef("cast", 70, Form.POINTWISE,
          "to f32, f16, bf16 to nearest even; f32 to integers toward zero, saturating at i64 or i32, "
          "NaN to 0; to narrower integers by wrapping; bool is != 0",
          _infer, lambda node: Cost(0, bytes_moved(node)), _samples, "0.5 ulp", _reference, index_rule,
          _scalar, schema={"dtype": Attr(AttrKind.DTYPE)})
)  # fmt: skip
