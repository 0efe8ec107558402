"""Importers of pooling, padding and resizing: windows, reductions and moves."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ree.compiler.aten_conv import Ints, pad, per_axis
from ree.compiler.importer import Importer, Refused, aten
from ree.compiler.ir import Ref
from ree.kernels.types import Dim, DType, TensorType

MAX_CELLS = 64  # of an adaptive pooling whose windows differ


# pooling over windows


def _windows(m: Importer, x: Ref, size: Ints, step: Ints, dilation: Ints) -> Ref:
    """Windows over the trailing axes, one axis of their elements before those axes."""
    n = len(size)
    rank = m.type(x).rank
    lead = rank - n
    for i in range(n):
        x = m.add("window", x, dim=lead + i, size=size[i], step=step[i], dilation=dilation[i])
    # [*lead, *out, *size] to [*lead, prod(size), *out]
    order = (*range(lead), *range(rank, rank + n), *range(lead, rank))
    x = m.add("permute", x, dims=order)
    shape = m.type(x).shape
    return m.view(x, (*shape[:lead], prod(size), *shape[lead + n :]))


def _extent(d: Dim) -> int:
    if not isinstance(d, int):
        raise Refused("a pooled axis of symbolic size whose last window is cut")
    return d


def _room(
    m: Importer, x: Ref, size: Ints, step: Ints, padding: Ints, dilation: Ints, ceil: bool
) -> Ints:
    """Padding behind each axis: with `ceil`, until the last window fits, unless it would start in it."""
    if not ceil:
        return padding
    high = []
    for d, k, s, p, a in zip(
        m.type(x).shape[-len(size) :], size, step, padding, dilation, strict=True
    ):
        have = _extent(d)
        count = -(-(have + 2 * p - a * (k - 1) - 1) // s) + 1
        if (count - 1) * s >= have + p:
            count -= 1
        high.append(max((count - 1) * s + a * (k - 1) + 1 - have - p, p))
    return tuple(high)


def _maxima(n: int) -> Callable[..., tuple[Ref, Callable[[], Ref]]]:
    """Maxima over windows, and how to find their places."""

    def f(
        m: Importer, x: Ref, size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> tuple[Ref, Callable[[], Ref]]:  # fmt: skip
        if m.type(x).dtype is not DType.F32:
            raise Refused(f"max_pool of {m.type(x).dtype.text}")
        size, padding, dilation = (per_axis(v, n) for v in (size, padding, dilation))
        step = per_axis(stride, n) if stride != () else size
        high = _room(m, x, size, step, padding, dilation, ceil_mode)
        padded = pad(m, x, padding, high, float("-inf"))
        windows = _windows(m, padded, size, step, dilation)
        axis = m.type(windows).rank - n - 1

        def places() -> Ref:
            """Where the first of each stands among the elements of its channel."""
            best = m.add("argmax", windows, dim=axis, keepdim=False)
            place = m.scalar(0, DType.I64)
            for i, (have, out) in enumerate(
                zip(m.type(x).shape[-n:], m.type(best).shape[-n:], strict=True)
            ):
                at = m.add("floor_divide", best, m.scalar(prod(size[i + 1 :]), DType.I64))
                at = m.add("remainder", at, m.scalar(size[i], DType.I64))
                at = m.add("mul", at, m.scalar(dilation[i], DType.I64))
                first = m.add("iota", n=out, start=-padding[i], step=step[i])
                at = m.add("add", m.view(first, (out, *(1,) * (n - 1 - i))), at)
                at = m.add("maximum", at, m.scalar(0, DType.I64))  # padding, if all is -inf
                place = m.add("add", m.add("mul", place, m.scalar(have, DType.I64)), at)
            return place

        return m.add("amax", windows, dim=axis, keepdim=False), places

    return f


def _max_pool(n: int) -> Callable[..., Ref]:
    return lambda m, *args: _maxima(n)(m, *args)[0]


def _max_pool_with_indices(n: int) -> Callable[..., tuple[Ref, Ref]]:
    def f(m: Importer, *args: Any) -> tuple[Ref, Ref]:
        found, places = _maxima(n)(m, *args)
        return found, places()

    return f


def _avg_pool(n: int) -> Callable[..., Ref]:
    def f(
        m: Importer, x: Ref, size: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> Ref:  # fmt: skip
        size, padding = per_axis(size, n), per_axis(padding, n)
        step = per_axis(stride, n) if stride != () else size
        ones = (1,) * n
        shape = m.type(x).shape[-n:]
        high = _room(m, x, size, step, padding, ones, ceil_mode)
        windows = _windows(m, pad(m, x, padding, high), size, step, ones)
        axis = m.type(windows).rank - n - 1
        if divisor_override is None and (
            (not any(padding) or count_include_pad) and high == padding
        ):
            return m.add("mean", windows, dim=axis, keepdim=False)
        total = m.add("sum", windows, dim=axis, keepdim=False)
        if divisor_override is not None:
            return m.add("div", total, m.scalar(float(divisor_override), DType.F32))
        # elements that count: those of x, or of x with its padding, that the window covers
        counts = np.ones((), np.int64)
        for i in range(n):
            have, out = _extent(shape[i]), _extent(m.type(total).shape[-n + i])
            low = np.arange(out) * step[i] - padding[i]
            end = np.minimum(low + size[i], have + padding[i])
            if not count_include_pad:
                low, end = np.maximum(low, 0), np.minimum(end, have)
            counts = counts[..., None] * (end - low)
        return m.add("div", total, m.builder.const(counts.astype(np.float32)))

    return f


aten("max_pool1d")(_max_pool(1))
aten("max_pool2d")(_max_pool(2))
aten("max_pool3d")(_max_pool(3))
aten("avg_pool1d")(_avg_pool(1))
aten("avg_pool2d")(_avg_pool(2))
aten("avg_pool3d")(_avg_pool(3))


aten("max_pool2d_with_indices")(_max_pool_with_indices(2))
aten("max_pool3d_with_indices")(_max_pool_with_indices(3))


@aten("max_pool2d_with_indices_backward")
def _max_pool_backward(m: Importer, grad: Ref, x: Ref, *args: Any) -> Ref:
    """Each element's gradient to the place of its maximum, in the order of the elements."""
    t, index = m.type(x), args[-1]
    lead, n = t.shape[:-2], m.type(index).shape[-2:]
    flat = (*lead, t.shape[-2] * t.shape[-1])
    zeros = m.zeros(TensorType(t.dtype, flat))
    grad, index = (m.view(v, (*lead, n[0] * n[1])) for v in (grad, index))
    return m.view(m.add("scatter_add", zeros, index, grad, dim=len(lead)), t.shape)


def _adaptive(n: int) -> Callable[..., Ref]:
    def f(m: Importer, x: Ref, size: Any) -> Ref:
        t = m.type(x)
        have = t.shape[-n:]
        want = tuple(h if s is None else s for s, h in zip(per_axis(size, n), have, strict=True))
        if all(s == 1 for s in want):
            merged: Dim = 1
            for d in have:
                merged = merged * d
            y = m.add("mean", m.view(x, (*t.shape[:-n], merged)), dim=t.rank - n, keepdim=False)
            return m.view(y, (*t.shape[:-n], *want))
        sizes = tuple(_extent(h) for h in have)
        if all(h % s == 0 for h, s in zip(sizes, want, strict=True)):
            step = tuple(h // s for h, s in zip(sizes, want, strict=True))
            return _avg_pool(n)(m, x, step)
        return _cells(m, x, sizes, want)

    return f


def _cells(m: Importer, x: Ref, have: Ints, want: Ints) -> Ref:
    """Windows of different sizes: a mean for each cell, put side by side."""
    n = len(want)
    if prod(want) > MAX_CELLS:
        raise Refused(
            f"adaptive pooling of {have} to {want}: more than {MAX_CELLS} cells that differ"
        )
    lead = m.type(x).rank - n

    def along(y: Ref, i: int) -> Ref:
        """Axes i and later of y, pooled."""
        if i == n:
            t = m.type(y)
            merged = m.view(y, (*t.shape[:lead], prod(_extent(d) for d in t.shape[lead:])))
            mean = m.add("mean", merged, dim=lead, keepdim=False)
            return m.view(mean, (*t.shape[:lead], *(1,) * n))
        parts = []
        for c in range(want[i]):
            start, stop = c * have[i] // want[i], -(-(c + 1) * have[i] // want[i])
            part = m.add("slice", y, dim=lead + i, start=start, stop=stop, step=1)
            parts.append(along(part, i + 1))
        return join(m, parts, lead + i)

    return along(x, 0)


aten("adaptive_avg_pool1d")(_adaptive(1))
aten("adaptive_avg_pool2d", "_adaptive_avg_pool2d")(_adaptive(2))
aten("adaptive_avg_pool3d", "_adaptive_avg_pool3d")(_adaptive(3))


# padding


def join(m: Importer, parts: list[Ref], axis: int) -> Ref:
    """Parts side by side; a node has at most four sources."""
    while len(parts) > 1:
        parts = [m.add("cat", *parts[i : i + 4], dim=axis) for i in range(0, len(parts), 4)]
    return parts[0]


@aten("constant_pad_nd")
def _constant_pad(m: Importer, x: Ref, amounts: Any, value: float = 0.0) -> Ref:
    pairs = list(zip(amounts[::2], amounts[1::2], strict=True))[
        ::-1
    ]  # torch has the last axis first
    if not all(isinstance(d, int) for p in pairs for d in p):
        raise Refused("padding of symbolic size")
    return pad(m, x, tuple(a for a, _ in pairs), tuple(b for _, b in pairs), value)


@aten("pad")
def _pad(
    m: Importer, x: Ref, amounts: Any, mode: str = "constant", value: float | None = None
) -> Ref:
    if mode == "constant":
        return _constant_pad(m, x, amounts, value or 0.0)  # type: ignore[no-any-return]
    rank = m.type(x).rank
    for i in range(len(amounts) // 2):
        low, high = amounts[2 * i], amounts[2 * i + 1]
        if not isinstance(low, int) or not isinstance(high, int):
            raise Refused("padding of symbolic size")
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
        raise Refused(f"padding mode {mode}")
    return join(m, parts, axis)


# resizing


def _sizes(m: Importer, x: Ref, size: Any, scales: Any, n: int) -> tuple[Ints, list[float | None]]:
    """(size wanted of each trailing axis, its factor where one was given)."""
    have = tuple(_extent(d) for d in m.type(x).shape[-n:])
    if size is not None:
        return per_axis(size, n), [None] * n
    if scales is None:
        raise Refused("resizing without a size")
    return tuple(int(h * s) for h, s in zip(have, scales, strict=True)), list(scales)


def take(m: Importer, x: Ref, axis: int, at: np.ndarray[Any, np.dtype[np.int64]]) -> Ref:
    """Elements `at` of one axis."""
    rank = m.type(x).rank
    if np.array_equal(at, np.arange(_extent(m.type(x).shape[axis]))):
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
        have = tuple(_extent(d) for d in t.shape[-n:])
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
        have = [_extent(d) for d in m.type(x).shape[-n:]]
        if [int(h * s) for h, s in zip(have, scales, strict=True)] != list(size):
            raise Refused("resizing with a size and other factors")
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
    have = _extent(m.type(x).shape[axis])
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
