"""Writing at indices along one axis: scatter and index_put, and their sums.

An output element starts as its own source element and takes the updates whose index is its place, in
ascending order of their position along the axis. That order is all there is: no two elements share
an update, so nothing depends on what runs first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod

import numpy as np

from ree.kernels.index import IndexRule, access_by_dims
from ree.kernels.numerics import canonical_nan
from ree.kernels.opdef import (
    Array,
    Attrs,
    Bound,
    Cost,
    Form,
    Infer,
    Lowering,
    OpDef,
    Reference,
    Sample,
    Variant,
    bytes_moved,
    register,
)
from ree.kernels.ops.movement import axis_attr, one
from ree.kernels.samples import patterns
from ree.kernels.schema import ALONG
from ree.kernels.types import DType, TensorType

Terms = list[tuple[int | None, int, int]]


def _infer(name: str, add: bool, shared: bool) -> Infer:
    def infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
        x, index, src = one(types, 3), types[1], types[2]
        axis = axis_attr(attrs, "dim", x.rank)
        if index.dtype is not DType.I64:
            raise ValueError(f"{name}: expected i64 indices, got {index}")
        if src.dtype is not x.dtype:
            raise ValueError(f"{name}: expected a source of {x.dtype.text}, got {src}")
        if add and x.dtype not in (DType.F32, DType.I64):
            raise ValueError(f"{name}: expected f32 or i64, got {x}")
        if index.rank != (1 if shared else x.rank):
            raise ValueError(f"{name}: index {index} does not fit {x} along axis {axis}")
        n = index.shape[0 if shared else axis]
        wide = (*x.shape[:axis], n, *x.shape[axis + 1 :])
        for t in (src,) if shared else (index, src):
            if t.shape != wide:
                raise ValueError(f"{name}: {t} does not fit {x} along axis {axis}")
        return (x,)

    return infer


def _reference(add: bool, shared: bool) -> Reference:
    def reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
        axis = node.int_attr("dim")
        size = node.out.dims[axis]
        x = np.ascontiguousarray(inputs[0])
        index, low = np.asarray(inputs[1], np.int64), 0
        if shared:
            low = -size
        if inputs[2].size and ((index < low) | (index >= size)).any():
            raise IndexError(f"index out of range: expected below {size}")
        index = np.where(index < 0, index + size, index)
        if shared:
            shape = [1] * len(x.shape)
            shape[axis] = index.size
            index = np.broadcast_to(index.reshape(shape), inputs[2].shape)
        index, src = np.moveaxis(index, axis, 0), np.moveaxis(inputs[2], axis, 0)
        out = np.moveaxis(x, axis, 0).copy()
        with np.errstate(all="ignore"):
            for i, s in zip(index, src, strict=True):
                value = np.take_along_axis(out, i[None], 0) + s[None] if add else s[None]
                np.put_along_axis(out, i[None], value, 0)
        y = np.ascontiguousarray(np.moveaxis(out, 0, axis)).reshape(node.out.dims)
        return (canonical_nan(np.asarray(y, np.float32)) if add and y.dtype == np.float32 else y,)

    return reference


def _rule(shared: bool) -> Callable[[Bound], IndexRule]:
    """The reduction digit is the position along the axis of index and source."""

    def rule(node: Bound) -> IndexRule:
        out, axis = node.out.dims, node.int_attr("dim")
        n = len(out)
        own: Terms = [(i, 1, 0) for i in range(n)]
        update: Terms = [(n if i == axis else i, 1, 0) for i in range(n)]
        _, index, src = node.inputs
        return IndexRule(
            out,
            (
                access_by_dims(out, n + 1, own),
                access_by_dims(index.dims, n + 1, [(n, 1, 0)] if shared else update),
                access_by_dims(src.dims, n + 1, update),
            ),
            (src.dims[axis],),
        )

    return rule


def _lower(add: bool, shared: bool) -> Callable[[Lowering], None]:
    def lower(ctx: Lowering) -> None:
        x, index, src, y = ctx.dense(0), ctx.dense(1), ctx.dense(2), ctx.result()
        axis = ctx.node.int_attr("dim")
        kernel = "scatter"
        if add:
            kernel = "scatter_add_f32" if x.dtype is DType.F32 else "scatter_add_i64"
        ctx.emit(kernel, x=x.slot, index=index.slot, src=src.slot, y=y.slot,
                 outer=prod(x.dims[:axis]), n=x.dims[axis], inner=prod(x.dims[axis + 1 :]),
                 updates=src.dims[axis], shared=shared, element_bytes=x.dtype.size)  # fmt: skip

    return lower


def _cost(node: Bound) -> Cost:
    return Cost(node.inputs[2].numel, bytes_moved(node))


def _samples(add: bool, shared: bool) -> Callable[[], Iterator[Sample]]:
    def samples() -> Iterator[Sample]:
        rng = np.random.default_rng(12)
        shapes = [((4, 5), 0, 9), ((3, 7), 1, 5), ((2, 3, 70), 1, 4), ((6,), 0, 40), ((5, 1), 0, 0)]
        for seed, (shape, dim, k) in enumerate(shapes):
            wide = tuple(k if i == dim else d for i, d in enumerate(shape))
            index = rng.integers(-shape[dim] if shared else 0, shape[dim], k if shared else wide)
            attrs = {"dim": dim}
            for (name, x), (_, s) in zip(patterns(shape, seed), patterns(wide, seed + 9),
                                         strict=True):  # fmt: skip
                yield Sample(f"{shape}@{dim}/{name}", (x, index, s), attrs)
            ints = rng.integers(-(2**62), 2**62, shape), rng.integers(-(2**62), 2**62, wide)
            yield Sample(f"{shape}@{dim}/i64", (ints[0], index, ints[1]), attrs)
            if not add:
                bits = rng.random(shape) < 0.5, rng.random(wide) < 0.5
                yield Sample(f"{shape}@{dim}/bool", (bits[0], index, bits[1]), attrs)

    return samples


_WIDE = "the index has an entry per source element"
_SHARED = "one index vector for the axis, negative from the end"
_PUT = "the last update of an element, in ascending position, is its value"
_ADD = (
    "self + update + update + ..., each sum rounded once, updates in ascending position; i64 exact"
)
for _name, _code, _add, _shared in (
    ("scatter", 304, False, False),
    ("scatter_add", 305, True, False),
    ("index_put", 306, False, True),
    ("index_add", 307, True, True),
):
    register(
        OpDef(_name, _code, Form.SCATTER,
              f"{_ADD if _add else _PUT}; {_SHARED if _shared else _WIDE}",
              _infer(_name, _add, _shared), _cost, _samples(_add, _shared),
              "updates * 2^-24 * sum|x|" if _add else "exact", _reference(_add, _shared),
              _rule(_shared), lower=_lower(_add, _shared), schema=ALONG,
              variant=(Variant.ADDS if _add else Variant.PLAIN) | (Variant.WRAPS if _shared else Variant.PLAIN))
    )  # fmt: skip
