"""Importers of sorting, selection along an axis, and reads and writes at indices.

Ties are resolved to the lowest index, as torch does with stable=True: sort, topk, max and min along
an axis, kthvalue. Where an element is written more than once, the last update in row-major order of
the index counts; sums take updates in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall, Scalar, aten
from ree.compiler.ir import Kind, Ref
from ree.kernels.types import Dim, DType, Shape, broadcast_shapes, product


def _at_least_1d(m: Importer, x: Ref) -> Ref:
    return x if m.type(x).rank else m.view(x, (1,))


def _ints(m: Importer, x: Ref) -> Ref:
    """bool as i64: what sort takes."""
    return m.cast(x, DType.I64) if m.type(x).dtype is DType.BOOL else x


# sorting and selection


@aten("sort")
def _sort(m: Importer, x: Ref, dim: int = -1, descending: bool = False) -> tuple[Ref, Ref]:
    t = m.type(x)
    attrs = {"dim": m.axis(dim, t.rank), "descending": bool(descending)}
    node = m.builder.add_node("sort", (_at_least_1d(m, _ints(m, x)),), attrs)
    values = m.cast(Ref(Kind.VALUE, node.first), t.dtype)
    where = Ref(Kind.VALUE, node.first + 1)
    return (values, where) if t.rank else (m.view(values, ()), m.view(where, ()))


@aten("sort.stable")
def _sort_stable(
    m: Importer, x: Ref, *, stable: Any = None, dim: int = -1, descending: bool = False
) -> tuple[Ref, Ref]:
    return _sort(m, x, dim, descending)  # type: ignore[no-any-return]


@aten("argsort", "argsort.stable")
def _argsort(
    m: Importer, x: Ref, dim: int = -1, descending: bool = False, *, stable: Any = None
) -> Ref:
    return _sort(m, x, dim, descending)[1]  # type: ignore[no-any-return]


@aten("topk")
def _topk(
    m: Importer, x: Ref, k: Dim, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Ref, ...]:
    if m.type(x).rank == 0:
        return _sort(m, x)  # type: ignore[no-any-return]
    axis = m.axis(dim, m.type(x).rank)
    return tuple(m.take(y, axis, 0, k) for y in _sort(m, x, axis, largest))


def _one(m: Importer, x: Ref, at: Dim, dim: int, keepdim: bool, descending: bool) -> Any:
    """Element `at` of the sorted axis, and its index."""
    t = m.type(x)
    found = _sort(m, x, dim, descending)
    if t.rank == 0:
        return found
    axis = m.axis(dim, t.rank)
    shape = (*t.shape[:axis], *t.shape[axis + 1 :])
    found = tuple(m.take(y, axis, at, at + 1) for y in found)
    return found if keepdim else tuple(m.view(y, shape) for y in found)


@aten("kthvalue")
def _kthvalue(m: Importer, x: Ref, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    return _one(m, x, k - 1, dim, keepdim, False)


def _extreme_dim(op: str, largest: bool) -> Callable[..., Any]:
    """Where the extreme is first, and the element there."""

    def f(m: Importer, x: Ref, dim: int, keepdim: bool = False) -> Any:
        t = m.type(x)
        if t.dtype is not DType.F32 or t.rank == 0:
            return _one(m, x, 0, dim, keepdim, largest)
        axis = m.axis(dim, t.rank)
        where = m.add(op, x, dim=axis, keepdim=True)
        values = m.add("gather", x, where, dim=axis)
        if keepdim:
            return values, where
        shape = (*t.shape[:axis], *t.shape[axis + 1 :])
        return m.view(values, shape), m.view(where, shape)

    return f


def _extreme_all(op: str, largest: bool) -> Callable[..., Ref]:
    def f(m: Importer, x: Ref) -> Ref:
        if m.type(x).dtype is DType.F32:
            return m.reduce(op, x, (), False)
        flat = m.view(x, (product(m.type(x).shape),))
        return _one(m, flat, 0, 0, False, largest)[0]  # type: ignore[no-any-return]

    return f


IMPORTERS["max.dim"], IMPORTERS["min.dim"] = (
    _extreme_dim("argmax", True),
    _extreme_dim("argmin", False),
)
IMPORTERS["max"], IMPORTERS["min"] = _extreme_all("amax", True), _extreme_all("amin", False)


def _place_of(op: str, largest: bool) -> Callable[..., Ref]:
    def f(m: Importer, x: Ref, dim: int | None = None, keepdim: bool = False) -> Ref:
        t = m.type(x)
        if dim is not None and t.rank:
            return _extreme_dim(op, largest)(m, x, dim, keepdim)[1]  # type: ignore[no-any-return]
        where = _extreme_dim(op, largest)(m, m.view(x, (product(t.shape),)), 0)[1]
        return m.view(where, (1,) * t.rank) if keepdim else where

    return f


IMPORTERS["argmax"], IMPORTERS["argmin"] = _place_of("argmax", True), _place_of("argmin", False)


# scatter


def _or_of_truth(f: Callable[..., Ref]) -> Callable[..., Ref]:
    """The importer of a sum at indices, in which truth values are counted: any true one makes it true."""

    def g(m: Importer, x: Ref, *args: Any, **kwargs: Any) -> Ref:
        if m.type(x).dtype is not DType.BOOL:
            return f(m, x, *args, **kwargs)
        return m.cast(f(m, m.cast(x, DType.I64), *args, **kwargs), DType.BOOL)

    return g


def _scattered(m: Importer, op: str, x: Ref, axis: int, index: Ref, src: Ref) -> Ref:
    """The operator where index covers x along all other axes; around it, x as it is."""
    t, it = m.type(x), m.type(index)
    for i, (size, k) in enumerate(zip(t.shape, it.shape, strict=True)):
        if i != axis and size != k:
            part = _scattered(m, op, m.take(x, i, 0, k), axis, index, src)
            return m.add("cat", part, m.take(x, i, k, size), dim=i)
    return m.add(op, x, index, src, dim=axis)


def _scatter(m: Importer, op: str, x: Ref, dim: int, index: Ref, src: Ref | Scalar) -> Ref:
    t = m.type(x)
    axis = m.axis(dim, t.rank)
    x, index = _at_least_1d(m, x), _at_least_1d(m, index)
    shape = m.type(index).shape
    if isinstance(src, Ref):
        src = _at_least_1d(m, m.cast(src, t.dtype))
        for i, (have, want) in enumerate(zip(m.type(src).shape, shape, strict=True)):
            if have != want:  # a source may be larger than the index
                src = m.take(src, i, 0, want)
    else:
        src = m.add("expand", m.scalar(src, t.dtype), shape=shape)
    y = _scattered(m, op, x, axis, index, src)
    return y if t.rank else m.view(y, ())


@aten("scatter.src", "scatter.value")
def _scatter_put(m: Importer, x: Ref, dim: int, index: Ref, src: Ref | Scalar) -> Ref:
    return _scatter(m, "scatter", x, dim, index, src)


@aten("scatter_add")
@_or_of_truth
def _scatter_add(m: Importer, x: Ref, dim: int, index: Ref, src: Ref) -> Ref:
    return _scatter(m, "scatter_add", x, dim, index, src)


# index_put


def _masked_put(m: Importer, x: Ref, mask: Ref, value: Ref, accumulate: bool) -> Ref:
    """x[mask] = value where the value's shape does not depend on the mask."""
    t, mt = m.type(x), m.type(mask)
    rest = t.shape[mt.rank :]
    shape = m.type(value).shape
    if len(shape) == len(rest) + 1 and shape[0] == 1:
        value = m.view(value, shape[1:])
    elif len(shape) > len(rest):
        raise RefusedCall(
            "assignment to a boolean mask: expected a value that is the same everywhere"
        )
    if accumulate:
        value = m.add("add", x, value)
    return m.add("where", m.view(mask, (*mt.shape, *(1 for _ in rest))), value, x)


def _checked(m: Importer, index: Ref, size: Dim) -> Ref:
    """The index counted from the start; one out of range is an error."""
    return m.add("index", m.add("iota", n=size, start=0, step=1), index)


def _from_start(m: Importer, index: Ref, size: Dim) -> Ref:
    """The index, where torch takes none from the end; a negative one is an error."""
    table = m.view(m.add("iota", n=size, start=0, step=1), (size, 1))
    return m.view(m.add("embedding", table, index), m.type(index).shape)


def _flat_index(m: Importer, indices: Sequence[Ref], sizes: Sequence[Dim], head: Shape) -> Ref:
    """One index vector into the axes merged, which have these sizes."""
    if len(indices) == 1:
        flat = indices[0]
    else:
        flat = _checked(m, indices[0], sizes[0])
        for index, size in zip(indices[1:], sizes[1:], strict=True):
            flat = m.add("mul", flat, m.scalar(size, DType.I64))
            flat = m.add("add", flat, _checked(m, index, size))
    if m.type(flat).shape != head:
        flat = m.add("expand", flat, shape=head)
    return m.view(flat, (product(head),))


@aten("index_put", "_unsafe_index_put")
def _index_put(
    m: Importer, x: Ref, indices: Sequence[Ref | None], values: Ref, accumulate: bool = False
) -> Ref:
    t = m.type(x)
    values = m.cast(values, t.dtype)
    axes = [i for i, index in enumerate(indices) if index is not None]
    kept = [index for index in indices if index is not None]
    if accumulate and t.dtype is DType.BOOL:
        return _or_of_truth(_index_put)(m, x, indices, values, True)
    if any(m.type(i).dtype is DType.BOOL for i in kept):
        if axes != [0]:
            raise RefusedCall("assignment to a boolean mask beside other indices")
        return _masked_put(m, x, kept[0], values, accumulate)
    if any(m.type(i).dtype is not DType.I64 for i in kept):
        raise RefusedCall("indices that are not int64")
    n = len(axes)
    order: list[int] | None = None
    if axes != list(range(axes[0], axes[0] + n)):  # apart: torch puts them in front
        order = axes + [i for i in range(t.rank) if i not in axes]
        x = m.add("permute", x, dims=tuple(order))
    first = axes[0] if order is None else 0
    shape = m.type(x).shape
    before, sizes, after = shape[:first], shape[first : first + n], shape[first + n :]
    head = broadcast_shapes(*(m.type(i).shape for i in kept))
    values = m.add("expand", values, shape=(*before, *head, *after))
    y = m.add(
        "index_add" if accumulate else "index_put",
        m.view(x, (*before, product(sizes), *after)),
        _flat_index(m, kept, sizes, head),
        m.view(values, (*before, product(head), *after)),
        dim=first,
    )
    y = m.view(y, shape)
    if order is None:
        return y
    return m.add("permute", y, dims=tuple(int(i) for i in np.argsort(order)))


def _along(op: str) -> Callable[..., Ref]:
    def f(m: Importer, x: Ref, dim: int, index: Ref, src: Ref, *, alpha: Scalar = 1) -> Ref:
        t = m.type(x)
        if alpha != 1:
            (src, a), _ = m.promote(src, int(alpha) if isinstance(alpha, bool) else alpha)
            src = m.add("mul", src, a)
        x, index, src = (_at_least_1d(m, v) for v in (x, index, m.cast(src, t.dtype)))
        axis = m.axis(dim, t.rank)
        index = _from_start(m, m.cast(index, DType.I64), m.type(x).shape[axis])
        y = m.add(op, x, index, src, dim=axis)
        return y if t.rank else m.view(y, ())

    return f


IMPORTERS["index_add"], IMPORTERS["index_copy"] = (
    _or_of_truth(_along("index_add")),
    _along("index_put"),
)


@aten("index_fill.int_Scalar", "index_fill.int_Tensor")
def _index_fill(m: Importer, x: Ref, dim: int, index: Ref, value: Ref | Scalar) -> Ref:
    """The value at the index along an axis, which counts from the end where it is negative."""
    t = m.type(x)
    x, index = _at_least_1d(m, x), _at_least_1d(m, m.cast(index, DType.I64))
    axis, shape = m.axis(dim, t.rank), list(m.type(x).shape)
    shape[axis] = m.type(index).shape[0]
    v = m.cast(value, t.dtype) if isinstance(value, Ref) else m.scalar(value, t.dtype)
    y = m.add("index_put", x, index, m.add("expand", v, shape=tuple(shape)), dim=axis)
    return y if t.rank else m.view(y, ())


@aten("max_unpool2d", "max_unpool3d")
def _max_unpool(m: Importer, x: Ref, index: Ref, size: Sequence[Dim], *window: object) -> Ref:
    """Zeros, with each element of x at its index into the last axes."""
    shape = m.type(x).shape
    lead = shape[: len(shape) - len(size)]
    rows, n = product(lead), product(shape[len(lead) :])
    zeros = m.add("full", shape=(rows, product(size)), value=0.0, dtype=DType.F32)
    zeros = m.cast(zeros, m.type(x).dtype)
    y = m.add("scatter", zeros, m.view(index, (rows, n)), m.view(x, (rows, n)), dim=1)
    return m.view(y, (*lead, *size))
