"""Sorting of one axis: values and where they came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ree.kernels.index import IndexRule, access_by_dims
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
from ree.kernels.schema import AXIS, FLAG
from ree.kernels.types import DType, TensorType


def _infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x = one(types)
    axis_attr(attrs, "dim", x.rank)
    if x.dtype not in (DType.F32, DType.I64):
        raise ValueError(f"sort: expected f32 or i64, got {x}")
    return (x, TensorType(DType.I64, x.shape))


def sort_keys(x: Array) -> npt.NDArray[np.signedinteger[Any]]:
    """Signed integers in the order of x: NaN greatest, -0 equal to +0."""
    if x.dtype != np.float32:
        return np.asarray(x, np.int64)
    bits = np.where(x == 0, np.float32(0), x).astype(np.float32).view(np.int32)
    keys = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return np.where(np.isnan(x), np.int32(0x7FFFFFFF), keys)


def _reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    axis = node.int_attr("dim")
    keys = sort_keys(np.ascontiguousarray(inputs[0]))
    if node.attrs["descending"]:
        keys = ~keys
    where = np.argsort(keys, axis=axis, kind="stable").astype(np.int64)
    values = np.take_along_axis(inputs[0], where, axis)
    return tuple(np.ascontiguousarray(y).reshape(node.out.dims) for y in (values, where))


def _rule(node: Bound) -> IndexRule:
    """Every output element sees its whole row: the reduction digit is the axis."""
    out, axis = node.out.dims, node.int_attr("dim")
    n = len(out)
    terms: list[tuple[int | None, int, int]] = [(n if i == axis else i, 1, 0) for i in range(n)]
    return IndexRule(out, (access_by_dims(out, n + 1, terms),), (out[axis],))


def _lower(ctx: Lowering) -> None:
    x, axis = ctx.dense(0), ctx.node.int_attr("dim")
    kernel = "sort_f32" if x.dtype is DType.F32 else "sort_i64"
    ctx.emit(kernel, x=x.slot, y=ctx.result(0).slot, indices=ctx.result(1).slot,
             outer=prod(x.dims[:axis]), n=x.dims[axis], inner=prod(x.dims[axis + 1 :]),
             descending=bool(ctx.node.attrs["descending"]))  # fmt: skip


def _cost(node: Bound) -> Cost:
    n = node.out.dims[node.int_attr("dim")]
    return Cost(node.out.numel * max(n - 1, 0).bit_length(), bytes_moved(node))


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(9)
    shapes = [((3, 5), 1), ((70,), 0), ((2, 33, 3), 1), ((1, 700), 1), ((4, 1), 1), ((2, 0), 1)]
    for seed, (shape, dim) in enumerate(shapes):
        attrs = {"dim": dim, "descending": seed % 2 == 1}
        for name, x in patterns(shape, seed):
            yield Sample(f"{shape}@{dim}/{name}", (x,), attrs)
        few = rng.integers(-3, 3, shape)
        yield Sample(f"{shape}@{dim}/ties", (few.astype(np.float32),), attrs)
        for down in (False, True):
            attrs = {"dim": dim, "descending": down}
            yield Sample(f"{shape}@{dim}/i64 {down}", (few,), attrs)
            whole = rng.integers(-(2**63), 2**63 - 1, shape, endpoint=True)
            yield Sample(f"{shape}@{dim}/wide i64 {down}", (whole,), attrs)


register(
    OpDef("sort", 240, Form.SORT,
          "one axis in ascending or descending order; NaN greatest, -0 equal to +0, equal elements "
          "by original index in both orders; results: elements, i64 original indices",
          _infer, _cost, _samples, "exact", _reference, _rule, lower=_lower,
          schema={"descending": FLAG, "dim": AXIS})
)  # fmt: skip
