"""Importers of running products and extremes, and of what is found in sorted rows: each a composition of the
registry's operators.

A scan doubles: with d = 1, 2, 4, ... below the length, element i becomes `combine(element i - d, element i)`,
where elements before the start are the neutral one. So element i is a balanced tree over 0 .. i, the same
whatever runs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ree.compiler.frontend.aten.index import _ints, _sort
from ree.compiler.frontend.importer import Importer, RefusedCall, Scalar, aten
from ree.compiler.ir import Ref
from ree.kernels.types import Dim, DType, product

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL
Parts = tuple[Ref, ...]


def length(d: Dim, what: str) -> int:
    """A size that is a number."""
    if not isinstance(d, int):
        raise RefusedCall(f"{what} over an axis of symbolic size")
    return d


def lowest(dtype: DType) -> Scalar:
    """What no element is below."""
    return -math.inf if dtype is F32 else -(2**63)


def highest(dtype: DType) -> Scalar:
    """What no element is above."""
    return math.inf if dtype is F32 else 2**63 - 1


def scan(
    m: Importer, parts: Parts, axis: int, neutral: Sequence[Scalar], what: str,
    combine: Callable[[Parts, Parts], Parts],
) -> Parts:  # fmt: skip
    """Running combination of tensors side by side, by doubling; `combine(earlier, later)`."""
    rank = m.type(parts[0]).rank
    d, n = 1, length(m.type(parts[0]).shape[axis], what)
    while d < n:
        by = tuple(d if i == axis else 0 for i in range(rank))
        back = tuple(-k for k in by)
        earlier = tuple(
            m.add("pad", x, low=by, high=back, value=v) for x, v in zip(parts, neutral, strict=True)
        )
        parts, d = combine(earlier, parts), 2 * d
    return parts


def detached(m: Importer, x: Ref) -> Ref:
    """A copy of x through which no gradient flows; x itself keeps its own."""
    return m.stop(m.view(x, m.type(x).shape))


def is_nan(m: Importer, x: Ref) -> Ref:
    return m.add("ne", x, x)


def _places(m: Importer, n: int, axis: int, rank: int) -> Ref:
    """0 .. n - 1 along one axis, 1 long along the others."""
    at = m.add("iota", n=n, start=0, step=1)
    return m.view(at, tuple(n if i == axis else 1 for i in range(rank)))


@aten("cumprod")
def _cumprod(m: Importer, x: Ref, dim: int, *, dtype: DType | None = None) -> Ref:
    t = m.type(x)
    x = m.cast(x, dtype or (I64 if t.dtype is BOOL else t.dtype))
    if t.rank == 0:
        return x
    one: Scalar = 1.0 if m.type(x).dtype is F32 else 1
    return scan(m, (x,), m.axis(dim, t.rank), (one,), "a running product",
                lambda a, b: (m.add("mul", *a, *b),))[0]  # fmt: skip


@aten("logcumsumexp")
def _logcumsumexp(m: Importer, x: Ref, dim: int) -> Ref:
    """Running log-sum-exp: max + log(1 + exp(min - max)), the max alone where that is infinite."""
    t, zero = m.type(x), m.scalar(0.0, F32)
    if t.rank == 0:
        return x

    def combine(a: Parts, b: Parts) -> Parts:
        top = m.add("maximum", *a, *b)
        safe = m.add("where", m.add("eq", m.add("abs", top), m.scalar(math.inf, F32)), zero, top)
        safe = m.stop(safe)  # what it adds is taken off again
        total = m.add("add", *(m.add("exp", m.add("sub", v, safe)) for v in (*a, *b)))
        return (m.add("add", m.add("log", total), safe),)

    return scan(m, (x,), m.axis(dim, t.rank), (-math.inf,), "a running log-sum-exp", combine)[0]


def running_extreme(m: Importer, x: Ref, axis: int, largest: bool) -> Ref:
    """Index of the last of the extremes up to each element; a NaN is more extreme than any number."""
    t = m.type(x)
    n = length(t.shape[axis], "a running extreme")
    at = m.add("expand", _places(m, n, axis, t.rank), shape=t.shape)

    def combine(a: Parts, b: Parts) -> Parts:
        later = m.add("ge" if largest else "le", b[0], a[0])
        if t.dtype is F32:
            later = m.add("logical_and", later, m.add("logical_not", is_nan(m, a[0])))
            later = m.add("logical_or", later, is_nan(m, b[0]))
        x, y = (m.add("where", later, q, p) for p, q in zip(a, b, strict=True))
        return x, y

    neutral = (lowest if largest else highest)(t.dtype)
    return scan(m, (x, at), axis, (neutral, 0), "a running extreme", combine)[1]


def _running(largest: bool) -> Callable[..., tuple[Ref, Ref]]:
    def f(m: Importer, x: Ref, dim: int) -> tuple[Ref, Ref]:
        t = m.type(x)
        if t.rank == 0:
            return x, m.scalar(0, I64)
        axis = m.axis(dim, t.rank)
        where = running_extreme(m, detached(m, _ints(m, x)), axis, largest)
        return m.add("gather", x, where, dim=axis), where

    return f


aten("cummax")(_running(True))
aten("cummin")(_running(False))


# medians and modes


def _kept(m: Importer, x: Ref, axis: int, keepdim: bool, where: Ref) -> tuple[Ref, Ref]:
    """The elements at one index a row, and the indices."""
    t = m.type(x)
    values = m.add("gather", x, where, dim=axis)
    if keepdim:
        return values, where
    shape = (*t.shape[:axis], *t.shape[axis + 1 :])
    return m.view(values, shape), m.view(where, shape)


def _median_place(m: Importer, x: Ref, axis: int, ignore: bool) -> Ref:
    """Index of the lower median, its axis kept: of numbers alone, or, if not `ignore`, of the first NaN."""
    n = length(m.type(x).shape[axis], "a median")
    if n == 0:
        raise RefusedCall("a median over an axis without elements")
    order = _sort(m, x, axis)[1]
    if m.type(x).dtype is not F32:
        return m.take(order, axis, (n - 1) // 2, (n - 1) // 2 + 1)
    if ignore:
        numbers = m.add("logical_not", is_nan(m, x))
        count = m.add("sum", m.cast(numbers, F32), dim=axis, keepdim=True)
        k = m.add(
            "floor_divide", m.add("sub", m.cast(count, I64), m.scalar(1, I64)), m.scalar(2, I64)
        )
        return m.add("gather", order, m.add("maximum", k, m.scalar(0, I64)), dim=axis)
    middle = m.take(order, axis, (n - 1) // 2, (n - 1) // 2 + 1)
    greatest = m.add("argmax", x, dim=axis, keepdim=True)
    return m.add("where", is_nan(m, m.add("gather", x, greatest, dim=axis)), greatest, middle)


def _median_dim(ignore: bool) -> Callable[..., tuple[Ref, Ref]]:
    def f(m: Importer, x: Ref, dim: int, keepdim: bool = False) -> tuple[Ref, Ref]:
        rank = m.type(x).rank
        if rank == 0:
            return x, m.scalar(0, I64)
        axis = m.axis(dim, rank)
        return _kept(m, x, axis, keepdim, _median_place(m, detached(m, _ints(m, x)), axis, ignore))

    return f


def _median(ignore: bool) -> Callable[..., Ref]:
    """As the greatest of the elements that equal it, which share the gradient."""

    def f(m: Importer, x: Ref) -> Ref:
        n = product(m.type(x).shape)
        if n == 0:
            return m.add("full", shape=(), value=math.nan, dtype=F32)
        flat = m.view(x, (n,))
        where = _median_place(m, detached(m, _ints(m, flat)), 0, ignore)
        value = m.add("gather", flat, where, dim=0)
        if m.type(x).dtype is not F32:
            return m.view(value, ())
        value = m.stop(value)
        equal = m.add("eq", flat, value)
        equal = m.add("logical_or", equal, m.add("logical_and", is_nan(m, value), is_nan(m, flat)))
        only = m.add("where", equal, flat, m.scalar(-math.inf, F32))
        return m.add("amax", only, dim=0, keepdim=False)

    return f


aten("median.dim")(_median_dim(False))
aten("nanmedian.dim")(_median_dim(True))
aten("median")(_median(False))
aten("nanmedian")(_median(True))


@aten("mode")
def _mode(m: Importer, x: Ref, dim: int = -1, keepdim: bool = False) -> tuple[Ref, Ref]:
    """The most frequent element, of equally frequent ones the least, and its last index. A NaN equals
    nothing."""
    t = m.type(x)
    if t.rank == 0:
        return x, m.scalar(0, I64)
    axis = m.axis(dim, t.rank)
    n = length(t.shape[axis], "a mode")
    if n == 0:
        raise RefusedCall("a mode over an axis without elements")
    ordered, order = _sort(m, detached(m, _ints(m, x)), axis)
    at = _places(m, n, axis, t.rank)
    before = tuple(1 if i == axis else 0 for i in range(t.rank))
    previous = m.add("pad", ordered, low=before, high=tuple(-k for k in before),
                     value=0.0 if m.type(ordered).dtype is F32 else 0)  # fmt: skip
    starts = m.add("where", m.add("ne", ordered, previous), at, m.scalar(0, I64))
    (starts,) = scan(m, (starts,), axis, (0,), "a mode",
                     lambda a, b: (m.add("maximum", *a, *b),))  # fmt: skip
    run = m.as_float(m.add("sub", at, starts))
    best = m.add("argmax", run, dim=axis, keepdim=True)
    return _kept(m, x, axis, keepdim, m.add("gather", order, best, dim=axis))


# searches in sorted rows


def search(m: Importer, rows: Ref, values: Ref, right: bool, sorter: Ref | None = None) -> Ref:
    """Where values belong in ascending rows, by torch's halving: the first place at which the row is not
    below the value or, if `right`, above it. `rows` is of rank 1, or has the leading axes of `values`."""
    (rows, values), _ = m.promote(rows, values)
    rows, values = (detached(m, _ints(m, v)) for v in (rows, values))
    shape = m.type(values).shape
    n = length(m.type(rows).shape[-1], "a search")
    if m.type(rows).rank == 1:
        values = m.view(values, (product(shape),))
    axis = m.type(rows).rank - 1
    low = m.add("full", shape=m.type(values).shape, value=0, dtype=I64)
    high = m.add("full", shape=m.type(values).shape, value=n, dtype=I64)
    if n:
        for _ in range(n.bit_length()):
            open_ = m.add("lt", low, high)
            half = m.add("floor_divide", m.add("sub", high, low), m.scalar(2, I64))
            middle = m.add("add", low, half)
            place = m.add("minimum", middle, m.scalar(n - 1, I64))
            if sorter is not None:
                place = m.add("gather", sorter, place, dim=axis)
            found = m.add("gather", rows, place, dim=axis)
            stop = m.add("gt" if right else "ge", found, values)
            high = m.add("where", m.add("logical_and", open_, stop), middle, high)
            on = m.add("logical_and", open_, m.add("logical_not", stop))
            low = m.add("where", on, m.add("add", middle, m.scalar(1, I64)), low)
    return m.view(low, shape)


def _sided(right: bool, side: str | None) -> bool:
    return right if side is None else side == "right"


@aten("searchsorted.Tensor", "searchsorted.Scalar")
def _searchsorted(
    m: Importer, rows: Ref, values: Ref | Scalar, *, out_int32: bool = False, right: bool = False,
    side: str | None = None, sorter: Ref | None = None,
) -> Ref:  # fmt: skip
    if not isinstance(values, Ref):
        values = m.scalar(values, m.type(rows).dtype)
    # the result's width is cast to what torch says
    return search(m, rows, values, _sided(right, side), sorter)


@aten("bucketize.Tensor", "bucketize.Scalar")
def _bucketize(
    m: Importer, values: Ref | Scalar, rows: Ref, *, out_int32: bool = False, right: bool = False
) -> Ref:
    return _searchsorted(m, rows, values, out_int32=out_int32, right=right)  # type: ignore[no-any-return]
