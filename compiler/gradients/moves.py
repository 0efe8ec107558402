"""Gradients of movement: what was read is written back, and what was written is read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import prod

from ree.compiler.gradients.engine import CONSTANT, Piece, Site, Thunk, gradient
from ree.compiler.ir import Ref
from ree.kernels.types import DType

CONSTANT |= {"full", "iota", "uniform"}
I64 = DType.I64


def pad_axis(g: Site, x: Ref, dim: int, low: int, high: int) -> Ref:
    """x with zeros before and behind along one axis."""
    if low == 0 and high == 0:
        return x
    rank = len(g.dims(x))
    lows, highs = [0] * rank, [0] * rank
    lows[dim], highs[dim] = low, high
    return g.op("pad", x, low=tuple(lows), high=tuple(highs), value=0.0)


def spread(g: Site, x: Ref, dim: int, step: int) -> Ref:
    """x with step - 1 zeros after each element of an axis."""
    if step == 1:
        return x
    shape = g.dims(x)
    apart = g.m.view(x, (*shape[: dim + 1], 1, *shape[dim + 1 :]))
    apart = pad_axis(g, apart, dim + 1, 0, step - 1)
    return g.m.view(apart, (*shape[:dim], shape[dim] * step, *shape[dim + 1 :]))


def place(g: Site, x: Ref, dim: int, start: int, step: int, size: int) -> Ref:
    """x at positions start, start + step, ... of an axis of `size` zeros."""
    wide = spread(g, x, dim, step)
    return pad_axis(g, wide, dim, start, size - start - g.dims(wide)[dim])


@gradient("view")
def _view(g: Site) -> Sequence[Thunk]:
    return [lambda: g.m.view(g.dy, g.dims(g.x))]


@gradient("permute")
def _permute(g: Site) -> Sequence[Thunk]:
    dims = g.attrs["dims"]
    inverse = tuple(sorted(range(len(dims)), key=lambda i: dims[i]))
    return [lambda: g.op("permute", g.dy, dims=inverse)]


@gradient("expand")
def _expand(g: Site) -> Sequence[Thunk]:
    return [lambda: g.fit(g.dy, g.dims(g.x))]


@gradient("slice")
def _slice(g: Site) -> Sequence[Thunk]:
    dim, start, step = (int(g.attrs[k]) for k in ("dim", "start", "step"))
    if step == 1:
        return [lambda: Piece(g.dy, dim, start)]
    return [lambda: place(g, g.dy, dim, start, step, g.dims(g.x)[dim])]


@gradient("cat")
def _cat(g: Site) -> Sequence[Thunk]:
    dim = int(g.attrs["dim"])
    ends = list(accumulate(g.dims(s)[dim] for s in g.sources))

    def part(i: int) -> Thunk:
        return lambda: g.m.take(g.dy, dim, ends[i] - g.dims(g.sources[i])[dim], ends[i])

    return [part(i) for i in range(len(g.sources))]


@gradient("flip")
def _flip(g: Site) -> Sequence[Thunk]:
    return [lambda: g.op("flip", g.dy, dim=g.attrs["dim"])]


@gradient("window")
def _window(g: Site) -> Sequence[Thunk]:
    """Windows side by side are a view; overlapping ones are added, first element first."""
    dim, size, step, dilation = (int(g.attrs[k]) for k in ("dim", "size", "step", "dilation"))

    def f() -> Ref:
        have, out = g.dims(g.x), g.dims(g.dy)
        last = len(out) - 1
        if step == size and dilation == 1:
            order = (*range(dim + 1), last, *range(dim + 1, last))
            joined = g.op("permute", g.dy, dims=order)
            joined = g.m.view(joined, (*have[:dim], out[dim] * size, *have[dim + 1 :]))
            return pad_axis(g, joined, dim, 0, have[dim] - out[dim] * size)
        total: Ref | None = None
        for j in range(size):
            piece = g.m.view(g.m.take(g.dy, last, j, j + 1), out[:-1])
            # the last one's zeros may reach past the end
            wide = spread(g, piece, dim, step)
            wide = pad_axis(
                g, wide, dim, j * dilation, have[dim] - j * dilation - g.dims(wide)[dim]
            )
            total = wide if total is None else g.op("add", total, wide)
        assert total is not None  # a window has an element
        return total

    return [f]


@gradient("pad")
def _pad(g: Site) -> Sequence[Thunk]:
    low, high = (tuple(-int(v) for v in g.attrs[k]) for k in ("low", "high"))
    return [lambda: g.op("pad", g.dy, low=low, high=high, value=0.0)]


# indices


def add_rows(g: Site, shape: tuple[int, ...], at: Ref, rows: Ref) -> Ref:
    """Zeros of `shape`, rows added at positions of the leading axis in ascending order."""
    width = prod(shape[1:])
    zero = g.m.add("full", shape=(shape[0], width), value=0.0, dtype=DType.F32)
    count = prod(g.dims(at))
    flat, rows = g.m.view(at, (count,)), g.m.view(rows, (count, width))
    return g.m.view(g.op("index_add", zero, flat, rows, dim=0), shape)


def _wrapped(g: Site, index: Ref, size: int) -> Ref:
    """Indices from the end made positions."""
    behind = g.op("lt", index, g.m.scalar(0, I64))
    return g.op("where", behind, g.op("add", index, g.m.scalar(size, I64)), index)


@gradient("embedding")
def _embedding(g: Site) -> Sequence[Thunk | None]:
    return [lambda: add_rows(g, g.dims(g.x), g.sources[1], g.dy), None]


@gradient("index")
def _index(g: Site) -> Sequence[Thunk | None]:
    """The index tensors as one position in the merged leading axes."""
    shape, k = g.dims(g.x), len(g.sources) - 1

    def f() -> Ref:
        at: Ref | None = None
        for i, idx in enumerate(g.sources[1:]):
            wrapped, size = _wrapped(g, idx, shape[i]), g.m.scalar(shape[i], I64)
            at = wrapped if at is None else g.op("add", g.op("mul", at, size), wrapped)
        assert at is not None
        merged = (prod(shape[:k]), *shape[k:])
        head = g.dims(g.y)[: len(g.dims(g.y)) - len(shape[k:])]
        if g.dims(at) != head:
            at = g.op("expand", at, shape=head)
        return g.m.view(add_rows(g, merged, at, g.dy), shape)

    return [f, *[None] * k]


@gradient("gather")
def _gather(g: Site) -> Sequence[Thunk | None]:
    dim = g.attrs["dim"]
    return [lambda: g.op("scatter_add", g.zeros(g.m.type(g.x)), g.sources[1], g.dy, dim=dim), None]


def _last(g: Site, index: Ref, dim: int, size: int) -> Ref:
    """Which updates are the last of their place on an axis of `size`: the others were overwritten."""
    shape = g.dims(index)
    at = g.op("iota", n=shape[dim], start=0, step=1)
    at = g.m.view(at, tuple(n if i == dim else 1 for i, n in enumerate(shape)))
    at = g.op("expand", at, shape=shape)
    none = g.m.add("full", shape=(*shape[:dim], size, *shape[dim + 1 :]), value=-1, dtype=I64)
    written = g.op("scatter", none, index, at, dim=dim)
    return g.op("eq", g.op("gather", written, index, dim=dim), at)


@gradient("scatter")
def _scatter(g: Site) -> Sequence[Thunk | None]:
    _, index, src = g.sources
    dim = int(g.attrs["dim"])
    return [
        lambda: g.op("scatter", g.dy, index, g.zeros(g.m.type(src)), dim=dim),
        None,
        lambda: g.op(
            "where",
            _last(g, index, dim, g.dims(g.x)[dim]),
            g.op("gather", g.dy, index, dim=dim),
            0.0,
        ),
    ]


@gradient("scatter_add")
def _scatter_add(g: Site) -> Sequence[Thunk | None]:
    return [lambda: g.dy, None, lambda: g.op("gather", g.dy, g.sources[1], dim=g.attrs["dim"])]


def _read(g: Site) -> Ref:
    """dy at the places that were written along one axis."""
    dim, rank = int(g.attrs["dim"]), len(g.dims(g.dy))
    order = (dim, *(i for i in range(rank) if i != dim))
    rows = g.op("index", g.op("permute", g.dy, dims=order), g.sources[1])
    inverse = tuple(sorted(range(rank), key=lambda i: order[i]))
    return g.op("permute", rows, dims=inverse)


@gradient("index_put")
def _index_put(g: Site) -> Sequence[Thunk | None]:
    _, index, src = g.sources
    dim, dims = int(g.attrs["dim"]), g.dims(g.x)

    def dsrc() -> Ref:
        last = _last(g, _wrapped(g, index, dims[dim]), 0, dims[dim])
        last = g.m.view(last, tuple(g.dims(index)[0] if i == dim else 1 for i in range(len(dims))))
        return g.op("where", last, _read(g), 0.0)

    return [
        lambda: g.op("index_put", g.dy, index, g.zeros(g.m.type(src)), dim=dim),
        None,
        dsrc,
    ]


@gradient("index_add")
def _index_add(g: Site) -> Sequence[Thunk | None]:
    return [lambda: g.dy, None, lambda: _read(g)]
