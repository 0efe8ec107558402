"""Scans along one axis: cumsum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from ree.kernels.index import IndexRule, access_by_dims
from ree.kernels.numerics import F32, SEGMENT, canonical_nan
from ree.kernels.opdef import (
    Array,
    Attrs,
    Bound,
    Cost,
    Form,
    Lowering,
    OpDef,
    Sample,
    bytes_moved,
    register,
)
from ree.kernels.ops.movement import axis_attr, one
from ree.kernels.samples import patterns
from ree.kernels.schema import ALONG
from ree.kernels.types import DType, TensorType


def _infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x = one(types)
    axis_attr(attrs, "dim", x.rank)
    if x.dtype not in (DType.F32, DType.I64):
        raise ValueError(f"cumsum: expected f32 or i64, got {x}")
    return (x,)


def _reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    axis = node.int_attr("dim")
    x = np.moveaxis(inputs[0], axis, -1)
    if node.out.dtype is DType.I64:
        y: Array = np.cumsum(x, axis=-1, dtype=np.int64)
    else:
        y = _f32_cumsum(np.asarray(x, np.float32))
    return (np.ascontiguousarray(np.moveaxis(y, -1, axis)).reshape(node.out.dims),)


def _f32_cumsum(x: F32) -> F32:
    y = np.zeros(x.shape, np.float32)
    total: F32 = np.zeros(x.shape[:-1], np.float32)
    with np.errstate(all="ignore"):
        for start in range(0, x.shape[-1], SEGMENT):
            s: F32 = np.zeros_like(total)
            for k in range(start, min(start + SEGMENT, x.shape[-1])):
                s = s + x[..., k]
                y[..., k] = total + s
            total = total + s
    return canonical_nan(y)


def _rule(node: Bound) -> IndexRule:
    """Reduction digit j reads element i - j of the axis; before the start it reads +0."""
    out, axis = node.out.dims, node.int_attr("dim")
    n = len(out)
    access = access_by_dims(out, n + 1, [(i, 1, 0) for i in range(n)])
    coords = list(access.coords)
    c = coords[axis]
    coords[axis] = type(c)((*c.coeffs[:n], -1), c.bound, c.stride, c.offset)
    return IndexRule(out, (type(access)(tuple(coords)),), (out[axis],))


def _lower(ctx: Lowering) -> None:
    x, y = ctx.dense(0), ctx.result()
    axis = ctx.node.int_attr("dim")
    kernel = "cumsum_f32" if x.dtype is DType.F32 else "cumsum_i64"
    ctx.emit(kernel, x=x.slot, y=y.slot, outer=prod(x.dims[:axis]), n=x.dims[axis],
             inner=prod(x.dims[axis + 1 :]))  # fmt: skip


def _samples() -> Iterator[Sample]:
    for shape, dim in [((300,), 0), ((3, 129, 4), 1), ((2, 0), 1), ((5, 128), 1)]:
        for name, x in patterns(shape, 7):
            yield Sample(f"{shape}@{dim}/{name}", (x,), {"dim": dim})
        yield Sample(
            f"{shape}@{dim}/i64", (np.arange(prod(shape)).reshape(shape) - 5,), {"dim": dim}
        )


register(
    OpDef("cumsum", 230, Form.SCAN,
          "per 128 consecutive elements: s = +0, s = s + x ascending, out = total + s; "
          "then total = total + s; i64 exact",
          _infer, lambda node: Cost(2 * node.out.numel, bytes_moved(node)), _samples,
          "(min(n,128) + ceil(n/128) + 1) * 2^-24 * sum|x|", _reference, _rule, lower=_lower, schema=ALONG)
)  # fmt: skip
