"""Importers of padding and resizing: moves, and means of two neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ree.compiler.frontend.aten.conv import Ints, pad, per_axis
from ree.compiler.frontend.aten.pool import extent, join
from ree.compiler.frontend.importer import Importer, RefusedCall, aten
from ree.compiler.ir import Ref
from ree.kernels.types import Dim

# padding


@aten("constant_pad_nd")
def _constant_pad(m: Importer, x: Ref, amounts: Any, value: float = 0.0) -> Ref:
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))[
        ::-1
    ]  # torch has the last axis first
    if not all(isinstance(d, int) for p in pairs for d in p):
        raise RefusedCall("padding of symbolic size")
    return pad(m, x, tuple(a for a, _ in pairs), tuple(b for _, b in pairs), value)


@aten("pad")
def _pad(
    m: Importer, x: Ref, amounts: Any, mode: str = "constant", value: float | None = None
) -> Ref:
    if mode == "constant":
        return _constant_pad(m, x, amounts, 0.0 if value is None else value)  # type: ignore[no-any-return]
    rank = m.type(x).rank
    for i in range(len(amounts) // 2):
        low, high = amounts[2 * i], amounts[2 * i + 1]
        if not isinstance(low, int) or not isinstance(high, int):
            raise RefusedCall("padding of symbolic size")
        x = _pad_axis(m, x, rank - 1 - i, low, high, mode)
    return x


def _pad_axis(m: Importer, x: Ref, axis: int, low: int, high: int, mode: str) -> Ref:
    def part(start: Dim, stop: Dim) -> Ref:
        return m.add("slice", x, dim=axis, start=start, stop=stop, step=1)

    whole = x
    if low < 0 or high < 0:
        x = part(max(-low, 0), m.type(x).shape[axis] - max(-high, 0))
        low, high = max(low, 0), max(high, 0)
    size = m.type(x).shape[axis]

    def edge(start: Dim, n: int) -> Ref:
        one = m.add("slice", whole, dim=axis, start=start, stop=start + 1, step=1)
        shape = m.type(one).shape
        return m.add("expand", one, shape=(*shape[:axis], n, *shape[axis + 1 :]))

    parts = [x]
    if mode == "reflect":
        if low:
            parts.insert(0, m.add("flip", part(1, low + 1), dim=axis))
        if high:
            parts.append(m.add("flip", part(size - 1 - high, size - 1), dim=axis))
    elif mode == "replicate":
        if low:
            parts.insert(0, edge(0, low))
        if high:
            parts.append(edge(m.type(whole).shape[axis] - 1, high))
    elif mode == "circular":
        if low:
            parts.insert(0, part(size - low, size))
        if high:
            parts.append(part(0, high))
    else:
        raise RefusedCall(f"padding mode {mode}")
    return join(m, parts, axis)


# resizing


def _sizes(m: Importer, x: Ref, size: Any, scales: Any, n: int) -> tuple[Ints, list[float | None]]:
    """(size wanted of each trailing axis, its factor where one was given)."""
    have = tuple(extent(d) for d in m.type(x).shape[-n:])
    if not all(have):
        raise RefusedCall("resizing an axis of 0 elements")
    if size is not None:
        return per_axis(size, n), [None] * n
    if scales is None:
        raise RefusedCall("resizing without a size")
    return tuple(int(h * s) for h, s in zip(have, scales, strict=True)), list(scales)


def take(m: Importer, x: Ref, axis: int, at: np.ndarray[Any, np.dtype[np.int64]]) -> Ref:
    """Elements `at` of one axis."""
    rank = m.type(x).rank
    if np.array_equal(at, np.arange(extent(m.type(x).shape[axis]))):
        return x
    order = (axis, *(i for i in range(rank) if i != axis))
    y = m.add("index", m.add("permute", x, dims=order), m.builder.const(at))
    return m.add("permute", y, dims=tuple(int(i) for i in np.argsort(order)))


def _ratio(have: int, want: int, scale: float | None) -> np.float32:
    """Elements of the source to one of the result, float32 as torch computes it."""
    return np.float32(1.0 / scale) if scale else np.float32(have) / np.float32(want)


def _nearest(n: int) -> Callable[..., Ref]:
    def f(m: Importer, x: Ref, size: Any, scales: Any = None) -> Ref:
        wants, factors = _sizes(m, x, size, scales, n)
        t = m.type(x)
        have = tuple(extent(d) for d in t.shape[-n:])
        if all(w % h == 0 for w, h in zip(wants, have, strict=True)) and (
            all(f is None or f == w / h for f, w, h in zip(factors, wants, have, strict=True))
        ):  # whole factors: elements repeated
            lead = t.shape[:-n]
            x = m.view(x, (*lead, *(v for d in have for v in (d, 1))))
            wide = (v for d, w in zip(have, wants, strict=True) for v in (d, w // d))
            return m.view(m.add("expand", x, shape=(*lead, *wide)), (*lead, *wants))
        for i, (h, w, s) in enumerate(zip(have, wants, factors, strict=True)):
            at = (np.arange(w, dtype=np.float32) * _ratio(h, w, s)).astype(np.int64)
            x = take(m, x, t.rank - n + i, np.minimum(at, h - 1))
        return x

    return f


def _nearest_one(n: int) -> Callable[..., Ref]:
    def f(m: Importer, x: Ref, size: Any, *scales: Any) -> Ref:
        """With factors beside the size, which then say where elements come from."""
        if all(s is None for s in scales) or not scales:
            return _nearest(n)(m, x, size)
        have = [extent(d) for d in m.type(x).shape[-n:]]
        if [int(h * s) for h, s in zip(have, scales, strict=True)] != list(size):
            raise RefusedCall("resizing with a size and other factors")
        return _nearest(n)(m, x, None, scales)

    return f


aten("upsample_nearest1d.vec")(_nearest(1))
aten("upsample_nearest2d.vec")(_nearest(2))
aten("upsample_nearest3d.vec")(_nearest(3))
aten("upsample_nearest1d")(_nearest_one(1))
aten("upsample_nearest2d")(_nearest_one(2))


def _linear_axis(
    m: Importer, x: Ref, axis: int, want: int, corners: bool, scale: float | None
) -> Ref:
    """x[i] * (1 - f) + x[i + 1] * f along one axis; i and f in float32 as torch computes them."""
    have = extent(m.type(x).shape[axis])
    one = np.float32(1)
    if corners:
        ratio = np.float32(have - 1) / np.float32(want - 1) if want > 1 else np.float32(0)
        at = np.arange(want, dtype=np.float32) * ratio
    else:
        half = np.float32(0.5)
        at = (np.arange(want, dtype=np.float32) + half) * _ratio(have, want, scale) - half
        at = np.maximum(at, np.float32(0))
    low = np.minimum(at.astype(np.int64), have - 1)
    f = np.clip(at - low.astype(np.float32), np.float32(0), one)
    shape = (want, *(1,) * (m.type(x).rank - 1 - axis))
    right, left = (m.builder.const(v.astype(np.float32).reshape(shape)) for v in (f, one - f))
    high = np.minimum(low + 1, have - 1)
    a = m.add("mul", take(m, x, axis, low), left)
    b = m.add("mul", take(m, x, axis, high), right)
    return m.add("add", a, b)


@aten("upsample_bilinear2d.vec")
def _bilinear_vec(m: Importer, x: Ref, size: Any, corners: bool, scales: Any = None) -> Ref:
    wants, factors = _sizes(m, x, size, scales, 2)
    rank = m.type(x).rank
    x = _linear_axis(m, x, rank - 1, wants[1], corners, factors[1])  # columns, then rows
    return _linear_axis(m, x, rank - 2, wants[0], corners, factors[0])


@aten("upsample_bilinear2d")
def _bilinear(
    m: Importer, x: Ref, size: Any, corners: bool, scale_h: Any = None, scale_w: Any = None
) -> Ref:
    rank = m.type(x).rank
    x = _linear_axis(m, x, rank - 1, per_axis(size, 2)[1], corners, scale_w)
    return _linear_axis(m, x, rank - 2, per_axis(size, 2)[0], corners, scale_h)


@aten("upsample_linear1d.vec")
def _linear_vec(m: Importer, x: Ref, size: Any, corners: bool, scales: Any = None) -> Ref:
    wants, factors = _sizes(m, x, size, scales, 1)
    return _linear_axis(m, x, m.type(x).rank - 1, wants[0], corners, factors[0])


# channels and pixels


@aten("pixel_shuffle")
def _pixel_shuffle(m: Importer, x: Ref, r: int) -> Ref:
    *lead, c, h, w = m.type(x).shape
    n = len(lead)
    y = m.view(x, (*lead, c // (r * r), r, r, h, w))
    y = m.add("permute", y, dims=(*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return m.view(y, (*lead, c // (r * r), h * r, w * r))


@aten("flip")
def _flip(m: Importer, x: Ref, dims: Any) -> Ref:
    rank = m.type(x).rank
    for d in dims:
        x = m.add("flip", x, dim=m.axis(d, rank))
    return x
