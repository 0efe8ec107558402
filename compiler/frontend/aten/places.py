"""Importers of reads and writes at places known beforehand: slices, flips, rolls, diagonals, triangles,
one-hot vectors, histograms; and refusals of what has a shape that depends on data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ree.compiler.frontend.aten.shape import _bound
from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall, Scalar, aten
from ree.compiler.ir import Ref
from ree.kernels.types import Dim, DType, Shape, broadcast_shapes, product

# writes at places known beforehand


@aten("slice_scatter")
def _slice_scatter(
    m: Importer, x: Ref, src: Ref, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Ref:
    t = m.type(x)
    axis = m.axis(dim, t.rank)
    size = t.shape[axis]
    lo, hi = _bound(start, size, 0), _bound(end, size, size)
    if isinstance(lo, int) and isinstance(hi, int):
        hi = max(lo, hi)
    src = m.cast(src, t.dtype)
    if step != 1:
        k = m.type(src).shape[axis]
        where = m.add("iota", n=k, start=lo, step=step)
        return m.add("index_put", x, where, src, dim=axis)
    parts = [src]
    if lo != 0:
        parts.insert(0, m.take(x, axis, 0, lo))
    if hi != size:
        parts.append(m.take(x, axis, hi, size))
    return m.add("cat", *parts, dim=axis) if len(parts) > 1 else src


@aten("select_scatter")
def _select_scatter(m: Importer, x: Ref, src: Ref, dim: int, index: Any) -> Ref:
    t = m.type(x)
    axis = m.axis(dim, t.rank)
    at = index + t.shape[axis] if isinstance(index, int) and index < 0 else index
    src = m.view(src, (*t.shape[:axis], 1, *t.shape[axis + 1 :]))
    return _slice_scatter(m, x, src, axis, at, at + 1)  # type: ignore[no-any-return]


@aten("copy")
def _copy(m: Importer, x: Ref, src: Ref, non_blocking: bool = False) -> Ref:
    t = m.type(x)
    src = m.cast(src, t.dtype)
    return src if m.type(src).shape == t.shape else m.add("expand", src, shape=t.shape)


# reads at places known beforehand


@aten("index_select")
def _index_select(m: Importer, x: Ref, dim: int, index: Ref) -> Ref:
    if m.type(x).rank == 0:
        return m.view(_index_select(m, m.view(x, (1,)), 0, index), ())
    axis = m.axis(dim, m.type(x).rank)
    order = (axis, *(i for i in range(m.type(x).rank) if i != axis))
    shape = tuple(m.type(x).shape[i] for i in order)
    count = product(m.type(index).shape)
    table = m.view(m.add("permute", x, dims=order) if axis else x, (shape[0], product(shape[1:])))
    # rows of a table, as embedding's: a negative index is out of range
    y = m.add("embedding", table, m.view(m.cast(index, DType.I64), (count,)))
    y = m.view(y, (count, *shape[1:]))
    back = tuple(int(i) for i in np.argsort(order))
    return m.add("permute", y, dims=back) if axis else y


@aten("roll")
def _roll(m: Importer, x: Ref, shifts: Any, dims: Any = ()) -> Ref:
    shape = m.type(x).shape
    if not dims:
        flat = m.view(x, (product(shape),))
        return m.view(_roll(m, flat, shifts, (0,)), shape)
    shifts = (shifts,) if isinstance(shifts, int) else shifts
    for shift, dim in zip(shifts, dims, strict=True):
        axis = m.axis(dim, len(shape))
        n = shape[axis]
        if not isinstance(n, int) or not isinstance(shift, int):
            raise RefusedCall("roll of a symbolic axis")
        cut = -shift % n if n else 0
        if cut:
            x = m.add("cat", m.take(x, axis, cut, n), m.take(x, axis, 0, cut), dim=axis)
    return x


def _diagonal_of(m: Importer, x: Ref, offset: int, a: int, b: int) -> tuple[Ref, int, int, int]:
    """x with axes a and b last and merged, and the diagonal's start, step and length in them."""
    t = m.type(x)
    a, b = m.axis(a, t.rank), m.axis(b, t.rank)
    rest = [i for i in range(t.rank) if i not in (a, b)]
    rows, columns = t.shape[a], t.shape[b]
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise RefusedCall("a diagonal of symbolic axes")
    moved = m.add("permute", x, dims=(*rest, a, b))
    flat = m.view(moved, (*(t.shape[i] for i in rest), rows * columns))
    n = min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)
    n = max(n, 0)
    start = (offset if offset >= 0 else -offset * columns) if n else 0
    return flat, start, columns + 1, n


@aten("diagonal")
def _diagonal(m: Importer, x: Ref, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Ref:
    flat, start, step, n = _diagonal_of(m, x, offset, dim1, dim2)
    stop = start + (n - 1) * step + 1 if n else start
    return m.take(flat, m.type(flat).rank - 1, start, stop, step)


@aten("diagonal_scatter")
def _diagonal_scatter(
    m: Importer, x: Ref, src: Ref, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Ref:
    t = m.type(x)
    flat, start, step, n = _diagonal_of(m, x, offset, dim1, dim2)
    axis = m.type(flat).rank - 1
    where = m.add("iota", n=n, start=start, step=step)
    y = m.add("index_put", flat, where, m.cast(src, t.dtype), dim=axis)
    a, b = m.axis(dim1, t.rank), m.axis(dim2, t.rank)
    order = [*(i for i in range(t.rank) if i not in (a, b)), a, b]
    y = m.view(y, tuple(t.shape[i] for i in order))
    return m.add("permute", y, dims=tuple(int(i) for i in np.argsort(order)))


# triangles, one-hot, histograms: comparisons with positions


def _triangle(op: str) -> Callable[..., Ref]:
    def f(m: Importer, x: Ref, diagonal: int = 0) -> Ref:
        t = m.type(x)
        rows, columns = t.shape[-2:]
        i = m.view(m.add("iota", n=rows, start=diagonal, step=1), (rows, 1))
        j = m.add("iota", n=columns, start=0, step=1)
        return m.add("where", m.add(op, j, i), x, m.scalar(0, t.dtype))

    return f


IMPORTERS["tril"], IMPORTERS["triu"] = _triangle("le"), _triangle("ge")


@aten("eye", "eye.m")
def _eye(
    m: Importer, n: Dim, columns: Dim | None = None, *, dtype: DType | None = None, **ignored: Any
) -> Ref:
    i = m.view(m.add("iota", n=n, start=0, step=1), (n, 1))
    j = m.add("iota", n=n if columns is None else columns, start=0, step=1)
    return m.cast(m.add("eq", i, j), dtype or DType.F32)


@aten("one_hot")
def _one_hot(m: Importer, x: Ref, classes: int = -1) -> Ref:
    if isinstance(classes, int) and classes < 0:
        raise RefusedCall("one_hot without num_classes: its result's shape depends on data")
    shape = m.type(x).shape
    iota = m.add("iota", n=classes, start=0, step=1)
    # read through a table, so that a class out of range is an error
    index = m.add("embedding", m.view(iota, (classes, 1)), x)
    return m.cast(m.add("eq", m.view(index, (*shape, 1)), iota), DType.I64)


@aten("take_along_dim")
def _take_along_dim(m: Importer, x: Ref, index: Ref, dim: int | None = None) -> Ref:
    t, it = m.type(x), m.type(index)
    if dim is None:
        x, index = (m.view(y, (product(m.type(y).shape),)) for y in (x, index))
        return m.add("gather", x, index, dim=0)
    axis = m.axis(dim, t.rank)
    # along an axis torch takes an index modulo its size
    index = m.add("remainder", index, m.scalar(t.shape[axis], DType.I64))

    def without(shape: Shape) -> Shape:
        return (*shape[:axis], 1, *shape[axis + 1 :])

    wide = broadcast_shapes(without(t.shape), without(it.shape))

    def fit(y: Ref) -> Ref:
        shape = (*wide[:axis], m.type(y).shape[axis], *wide[axis + 1 :])
        return m.add("expand", y, shape=shape)

    return m.add("gather", fit(x), fit(index), dim=axis)


@aten("histc")
def _histc(m: Importer, x: Ref, bins: int = 100, min: Scalar = 0, max: Scalar = 0) -> Ref:
    """As torch computes a bin: (x - min) * bins / (max - min), the maximum in the last bin. Counts are
    sums of ones, exact to 2^24."""
    if min >= max:
        raise RefusedCall("histc without a range: it would depend on data")
    dtype = m.type(x).dtype
    n = product(m.type(x).shape)
    v = m.view(m.cast(x, DType.F32), (1, n))

    def number(value: Scalar) -> Ref:
        return m.scalar(float(value), DType.F32)

    low, high = number(min), number(max)
    scaled = m.add("mul", m.add("sub", v, low), number(bins))
    at = m.add("div", scaled, number(float(np.float32(max) - np.float32(min))))
    at = m.add("minimum", m.cast(at, DType.I64), m.scalar(bins - 1, DType.I64))
    inside = m.add("logical_and", m.add("ge", v, low), m.add("le", v, high))
    bin_ = m.view(m.add("iota", n=bins, start=0, step=1), (bins, 1))
    hit = m.add("logical_and", m.add("eq", at, bin_), inside)
    count = m.add("sum", m.cast(hit, DType.F32), dim=1, keepdim=False)
    return m.cast(count, dtype if dtype is DType.I64 else DType.F32)


# results whose shape depends on data


def _refused(why: str, *names: str) -> None:
    def f(m: Importer, *args: Any, **kwargs: Any) -> None:
        raise RefusedCall(why)

    for name in names:
        IMPORTERS[name] = f


_refused(
    "its result's shape depends on data; use torch.where or a mask", "nonzero", "masked_select", "bincount",
    "_unique2", "unique_consecutive", "repeat_interleave.Tensor", "nonzero_static",
)  # fmt: skip
_refused("reads a number from a tensor; keep it a tensor", "_local_scalar_dense", "item")
