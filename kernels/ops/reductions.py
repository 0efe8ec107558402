"""Reductions of one axis: sum, mean, amax, amin, argmax, argmin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod

import numpy as np

from ree.kernels.index import IndexRule, access_by_dims
from ree.kernels.numerics import F32, canonical_nan, maximum, minimum, tree_sum
from ree.kernels.opdef import (
    Array,
    Attrs,
    Bound,
    Cost,
    Form,
    Infer,
    Lowering,
    OpDef,
    Sample,
    Variant,
    bytes_moved,
    register,
)
from ree.kernels.ops.movement import axis_attr, one
from ree.kernels.rowprogram import RowBuilder, RowProgram
from ree.kernels.samples import patterns
from ree.kernels.schema import AXIS, FLAG, Schema
from ree.kernels.types import DType, TensorType

SUM_RULE = (
    "blocks of 1024; in a block lane l of 64 adds elements l, l+64, ... from +0; lanes fold by "
    "halving; block results are summed by the same rule"
)


def _infer(dtype: DType, empty: bool = True) -> Infer:
    """Shape rule; `empty` says whether an axis of no elements has a result."""

    def infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        x = one(types)
        axis = axis_attr(attrs, "dim", x.rank)
        if x.dtype is not DType.F32:
            raise ValueError(f"expected an f32 source, got {x}")
        if not empty and x.shape[axis] == 0:
            raise ValueError(f"axis {axis} of {x} has no elements to choose from")
        kept = (1,) if attrs["keepdim"] else ()
        return (TensorType(dtype, (*x.shape[:axis], *kept, *x.shape[axis + 1 :])),)

    return infer


def reduce_rule(node: Bound) -> IndexRule:
    """Output digits are the kept axes; the reduction digit is the axis."""
    dims, axis = node.inputs[0].dims, node.int_attr("dim")
    kept = [i for i in range(len(dims)) if i != axis]
    out = tuple(dims[i] for i in kept)
    terms: list[tuple[int | None, int, int]] = [
        (len(kept) if i == axis else kept.index(i), 1, 0) for i in range(len(dims))
    ]
    return IndexRule(out, (access_by_dims(dims, len(dims), terms),), (dims[axis],))


def _reference(f: Callable[[F32], Array]) -> Callable[[Sequence[Array], Bound], tuple[Array, ...]]:
    def reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
        x = np.moveaxis(np.asarray(inputs[0], np.float32), node.int_attr("dim"), -1)
        return (np.ascontiguousarray(f(x)).astype(node.out.dtype.numpy).reshape(node.out.dims),)

    return reference


def _lower(kernel: str, **mode: bool) -> Callable[[Lowering], None]:
    def lower(ctx: Lowering) -> None:
        x, axis = ctx.dense(0), ctx.node.int_attr("dim")
        outer, n, inner = prod(x.dims[:axis]), x.dims[axis], prod(x.dims[axis + 1 :])
        ctx.emit(kernel, x=x.slot, y=ctx.result().slot, outer=outer, n=n, inner=inner,
                 x_outer=n * inner, x_n=inner, x_inner=1, **mode)  # fmt: skip

    return lower


def _cost(node: Bound) -> Cost:
    return Cost(node.inputs[0].numel, bytes_moved(node))


def mean(x: F32) -> F32:
    """tree_sum / n, one division; NaN for n = 0."""
    with np.errstate(all="ignore"):
        return canonical_nan(tree_sum(x) / np.float32(x.shape[-1]))


def _fold(f: Callable[[F32, F32], F32], start: float) -> Callable[[F32], F32]:
    def fold(x: F32) -> F32:
        out = np.full(x.shape[:-1], start, np.float32)
        for i in range(x.shape[-1]):
            out = f(out, x[..., i])
        return out

    return fold


def argmax(x: F32) -> Array:
    """Lowest index of the greatest element: NaN above all, -0 equal to +0."""
    best = np.zeros(x.shape[:-1], np.int64)
    top = x[..., 0]
    for i in range(1, x.shape[-1]):
        better = (x[..., i] > top) | (np.isnan(x[..., i]) & ~np.isnan(top))
        best, top = np.where(better, i, best), np.where(better, x[..., i], top)
    return best


def argmin(x: F32) -> Array:
    """Lowest index of the least element: NaN before all, -0 equal to +0."""
    with np.errstate(all="ignore"):
        return argmax(np.where(np.isnan(x), x, -x).astype(np.float32))


def _samples(empty: bool) -> Callable[[], Iterator[Sample]]:
    def samples() -> Iterator[Sample]:
        shapes = [((3, 5), 1), ((2, 64, 3), 1), ((2, 65), 1), ((1024,), 0), ((2, 1100), 1),
                  ((1100, 5), 0), ((2500,), 0), ((4, 1), 1), ((2, 130, 67), 1)]  # fmt: skip
        if empty:
            shapes += [((3, 0), 1), ((0, 3), 0), ((0, 3), 1)]
        for seed, (shape, dim) in enumerate(shapes):
            for name, x in patterns(shape, seed):
                yield Sample(f"{shape}@{dim}/{name}", (x,), {"dim": dim, "keepdim": seed % 2 == 0})

    return samples


def _mean_row(node: Bound) -> RowProgram:
    dims, axis = node.inputs[0].dims, node.int_attr("dim")
    n = dims[axis]
    b = RowBuilder([d for i, d in enumerate(dims) if i != axis])
    at = [b.digit(i) for i in range(len(dims) - 1)]
    at.insert(axis, b.fixed())
    x = b.row(0, TensorType(DType.F32, (n,)), dims, at, (axis,))
    b.add("div", b.add("sum", x, dim=0, keepdim=False), b.constant(np.array(n, np.float32)))
    return b.finish()


SCHEMA: Schema = {"dim": AXIS, "keepdim": FLAG}
register(OpDef("sum", 220, Form.SUM, SUM_RULE, _infer(DType.F32), _cost, _samples(True),
               "(ceil(n/64 in a block) + 6 a level) * 2^-24 * sum|x|", _reference(tree_sum),
               reduce_rule, lower=_lower("sum", mean=False), schema=SCHEMA))  # fmt: skip
register(OpDef("amax", 221, Form.EXTREME, "NaN if any is; -0 < +0", _infer(DType.F32, False), _cost,
               _samples(False), "exact", _reference(_fold(maximum, -np.inf)), reduce_rule,
               lower=_lower("amax"), schema=SCHEMA))  # fmt: skip
register(OpDef("amin", 222, Form.EXTREME, "NaN if any is; -0 < +0", _infer(DType.F32, False), _cost,
               _samples(False), "exact", _reference(_fold(minimum, np.inf)), reduce_rule,
               lower=_lower("amin"), schema=SCHEMA, variant=Variant.LEAST))  # fmt: skip
register(OpDef("argmax", 223, Form.ARGUMENT, "greatest by total order (NaN greatest, -0 = +0), "
               "lowest index", _infer(DType.I64, False), _cost, _samples(False), "exact",
               _reference(argmax), reduce_rule, lower=_lower("argmax"), schema=SCHEMA))  # fmt: skip
register(OpDef("argmin", 224, Form.ARGUMENT, "least, NaN before all, -0 = +0, lowest index",
               _infer(DType.I64, False), _cost, _samples(False), "exact", _reference(argmin),
               reduce_rule, lower=_lower("argmin"), schema=SCHEMA, variant=Variant.LEAST))  # fmt: skip
register(OpDef("mean", 340, Form.COMPOSITE, "sum, then one division by n", _infer(DType.F32), _cost,
               _samples(True), "as sum, / n, + 0.5 ulp", _reference(mean), reduce_rule,
               lower=_lower("sum", mean=True), row_program=_mean_row, schema=SCHEMA))  # fmt: skip
