"""Importers of reductions by index: scatter_reduce, index_reduce, embedding_bag.

Sums take their updates in ascending order. Products and extremes sort the updates by their place (equal
places keep their order), combine those of one place by the doubling of aten_scan.py, and write each
place's last.
"""

from __future__ import annotations

import math

from ree.compiler.frontend.aten.index import _at_least_1d, _scatter, _sort
from ree.compiler.frontend.aten.scan import Parts, highest, length, lowest, scan, search
from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall, Scalar, aten
from ree.compiler.gradients import calls
from ree.compiler.ir import Ref
from ree.kernels.types import Dim, DType

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL
OPERATORS = {"prod": "mul", "amax": "maximum", "amin": "minimum"}


def _neutral(op: str, dtype: DType) -> Scalar:
    if op == "prod":
        return 1.0 if dtype is F32 else 1
    return lowest(dtype) if op == "amax" else highest(dtype)


def segments(m: Importer, op: str, place: Ref, x: Ref, axis: int) -> Ref:
    """x, whose equal places are neighbours, each combined with those before it at its place."""
    neutral = _neutral(op, m.type(x).dtype)

    def combine(a: Parts, b: Parts) -> Parts:
        both = m.add(OPERATORS[op], a[1], b[1])
        return b[0], m.add("where", m.add("eq", a[0], b[0]), both, b[1])

    return scan(m, (place, x), axis, (-1, neutral), f"a {op} by index", combine)[1]


def _counts(m: Importer, x: Ref, axis: int, index: Ref) -> Ref:
    """How many updates each element of x gets, f32."""
    zeros = m.add("full", shape=m.type(x).shape, value=0.0, dtype=F32)
    one = m.scalar(1.0, F32)
    ones = m.add("expand", one, shape=m.type(index).shape)
    return _scatter(m, "scatter_add", zeros, axis, index, ones)


def _shared(m: Importer, y: Ref, x: Ref, axis: int, index: Ref, src: Ref, own: bool) -> Ref:
    """y, an extreme, whose gradient all elements that equal it share: y + (sum of e - e over them) / their
    number, where e - e is 0 and only the first e has a gradient."""
    y, zero = m.stop(y), m.scalar(0.0, F32)

    def part(v: Ref, result: Ref) -> tuple[Ref, Ref]:
        equal = m.add("eq", v, result)
        finite = m.add("lt", m.add("abs", v), m.scalar(math.inf, F32))
        hit = m.add("logical_and", equal, finite)
        return m.add(
            "where", hit, m.add("sub", v, m.stop(m.view(v, m.type(v).shape))), zero
        ), m.cast(equal, F32)

    zeros = m.zeros(m.type(x))
    start, count = part(x, y) if own else (zeros, zeros)
    each, ones = part(src, m.add("gather", y, index, dim=axis))
    total = _scatter(m, "scatter_add", start, axis, index, each)
    count = _scatter(m, "scatter_add", count, axis, index, ones)
    count = m.add("maximum", count, m.scalar(1.0, F32))
    return m.add("add", y, m.add("div", total, count))


def reduced(
    m: Importer, op: str, x: Ref, axis: int, index: Ref, src: Ref, include_self: bool
) -> Ref:
    """x with the updates at their places: op is prod, amax or amin."""
    t = m.type(x)
    sorted_, order = _sort(m, index, axis)
    ordered = m.add("gather", src, order, dim=axis)
    ends = segments(m, op, sorted_, ordered, axis)
    neutral = m.add("full", shape=t.shape, value=_neutral(op, t.dtype), dtype=t.dtype)
    each = _scatter(m, "scatter", neutral, axis, sorted_, ends)
    touched = m.add("gt", _counts(m, x, axis, index), m.scalar(0.0, F32))
    y = m.add(OPERATORS[op], x, each) if include_self else each
    return m.add("where", touched, y, x)


def scatter_reduce(
    m: Importer, x: Ref, dim: int, index: Ref, src: Ref, reduce: str, include_self: bool
) -> Ref:
    """x reduced with src by index, as torch.scatter_reduce."""
    t = m.type(x)
    if t.dtype is BOOL:
        y = scatter_reduce(m, m.cast(x, I64), dim, index, m.cast(src, I64), reduce, include_self)
        return m.cast(y, BOOL)
    axis = m.axis(dim, t.rank)
    if not t.rank:
        flat = scatter_reduce(m, m.view(x, (1,)), 0, _at_least_1d(m, index), _at_least_1d(m, src), reduce,
                              include_self)  # fmt: skip
        return m.view(flat, ())
    index = _at_least_1d(m, index)
    src = _at_least_1d(m, m.cast(src, t.dtype))
    shape = m.type(index).shape
    for i, (have, want) in enumerate(zip(m.type(src).shape, shape, strict=True)):
        if have != want:
            src = m.take(src, i, 0, want)
    if reduce in ("sum", "mean"):
        zero = 0.0 if t.dtype is F32 else 0
        start = x if include_self else _scatter(m, "scatter", x, axis, index, zero)
        total = _scatter(m, "scatter_add", start, axis, index, src)
        if reduce == "sum":
            return total
        count = _counts(m, x, axis, index)
        if include_self:
            count = m.add("add", count, m.scalar(1.0, F32))
        count = m.add("maximum", count, m.scalar(1.0, F32))
        if t.dtype is F32:
            return m.add("div", total, count)
        return m.add("floor_divide", total, m.cast(count, I64))
    if reduce not in OPERATORS:
        raise RefusedCall(
            f"scatter_reduce with reduce='{reduce}': expected sum, prod, mean, amax or amin"
        )
    if 0 in shape:
        return x
    y = reduced(m, reduce, x, axis, index, src, include_self)
    if m.random is None or t.dtype is not F32 or reduce == "prod":
        return y  # extremes need the rule of their gradient in a training step alone
    y = _shared(m, y, x, axis, index, src, include_self)
    if include_self:
        return y
    touched = m.add("gt", _counts(m, x, axis, index), m.scalar(0.0, F32))
    return m.add("where", touched, y, x)


@aten("scatter_reduce.two")
def _scatter_reduce(
    m: Importer, x: Ref, dim: int, index: Ref, src: Ref, reduce: str, *, include_self: bool = True
) -> Ref:
    return scatter_reduce(m, x, dim, index, src, reduce, include_self)


@aten("scatter.reduce", "scatter.value_reduce")
def _scatter_reduced(
    m: Importer, x: Ref, dim: int, index: Ref, src: Ref | Scalar, *, reduce: str
) -> Ref:
    t = m.type(x)
    if not isinstance(src, Ref):
        src = m.add("expand", m.scalar(src, t.dtype), shape=m.type(index).shape)
    op = {"add": "sum", "multiply": "prod"}.get(reduce, reduce)
    return scatter_reduce(m, x, dim, index, src, op, True)


@aten("index_reduce")
def _index_reduce(
    m: Importer, x: Ref, dim: int, index: Ref, src: Ref, reduce: str, *, include_self: bool = True
) -> Ref:
    src = _at_least_1d(m, src)
    rank = m.type(src).rank
    axis = m.axis(dim, rank)
    index = _at_least_1d(m, index)
    along = m.view(index, tuple(m.type(index).shape[0] if i == axis else 1 for i in range(rank)))
    index = m.add("expand", along, shape=m.type(src).shape)
    return scatter_reduce(m, x, dim, index, src, reduce, include_self)


# embedding_bag

SUM, MEAN, MAX = range(3)


def _first(m: Importer, hit: Ref, counts: Ref, bag: Ref, bags: Dim) -> Ref:
    """Which row is the first of its bag that is a maximum, for each column."""
    n, width = m.type(hit).shape
    at = m.view(m.add("iota", n=n, start=0, step=1), (n, 1))
    none = m.scalar(highest(I64), I64)
    place = m.add("where", m.add("logical_and", hit, counts), at, none)
    start = m.add("expand", none, shape=(bags, width))
    first = scatter_reduce(m, start, 0, bag, place, "amin", False)
    return m.add("eq", at, m.add("gather", first, bag, dim=0))


def _embedding_bag(
    m: Importer, table: Ref, indices: Ref, offsets: Ref, scale_grad_by_freq: bool = False, mode: int = SUM,
    sparse: bool = False, per_sample_weights: Ref | None = None, include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Ref, ...]:  # fmt: skip
    """(bags, and as torch: the bag of each index, the size of each bag, places of maxima). The maximum of a
    bag is amax; its gradient goes to the first of equal ones."""
    if scale_grad_by_freq and m.random is not None:
        raise RefusedCall("embedding_bag with scale_grad_by_freq: gradients are not scaled")
    indices, offsets = m.cast(indices, I64), m.cast(offsets, I64)
    (n,), (bags,), width = m.type(indices).shape, m.type(offsets).shape, m.type(table).shape[1]
    n = length(n, "embedding_bag")
    if include_last_offset:
        bags = bags - 1
        offsets = m.take(offsets, 0, 0, bags)
    at = m.add("iota", n=n, start=0, step=1)
    bag = m.add("sub", search(m, offsets, at, True), m.scalar(1, I64))
    zeros = m.add("full", shape=(bags, width), value=0.0, dtype=F32)
    rows = m.add("embedding", table, indices)
    counted = m.add("full", shape=(n,), value=1.0, dtype=F32)
    if padding_idx >= 0:
        counted = m.cast(m.add("ne", indices, m.scalar(padding_idx, I64)), F32)
    sizes = m.add(
        "index_add", m.add("full", shape=(bags,), value=0.0, dtype=F32), bag, counted, dim=0
    )
    size = m.view(sizes, (bags, 1))
    counts = m.add("gt", m.view(counted, (n, 1)), m.scalar(0.0, F32))
    if per_sample_weights is not None:
        rows = m.add("mul", rows, m.view(per_sample_weights, (n, 1)))
    if mode == MAX:
        rows = m.add("where", counts, rows, m.scalar(-math.inf, F32))
        wide = m.add("expand", m.view(bag, (n, 1)), shape=(n, width))
        y = scatter_reduce(m, zeros, 0, wide, rows, "amax", False)
        y = m.add("where", m.add("gt", size, m.scalar(0.0, F32)), y, m.scalar(0.0, F32))
        if m.random is not None:
            first = _first(m, m.add("eq", rows, m.add("index", y, bag)), counts, wide, bags)
            y = m.rule(y, (rows,), calls.chosen(first, bag))
    else:
        rows = m.add("where", counts, rows, m.scalar(0.0, F32))
        y = m.add("index_add", zeros, bag, rows, dim=0)
        if mode == MEAN:
            y = m.add("div", y, m.add("maximum", size, m.scalar(1.0, F32)))
    return y, bag, m.cast(sizes, I64), bag


IMPORTERS["_embedding_bag"] = IMPORTERS["_embedding_bag_forward_only"] = _embedding_bag
