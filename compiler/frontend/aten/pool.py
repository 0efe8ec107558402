"""Importers of pooling: windows and reductions."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from ree.compiler.frontend.aten.conv import Ints, pad, per_axis, windows_of
from ree.compiler.frontend.aten.reduce import sum_of
from ree.compiler.frontend.aten.scan import lowest
from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall, aten
from ree.compiler.gradients import calls
from ree.compiler.ir import Ref
from ree.kernels.opdef import Array
from ree.kernels.types import Dim, DType, TensorType

MAX_CELLS = 64  # of an adaptive mean that is put together cell by cell


# pooling over windows


def extent(d: Dim) -> int:
    if not isinstance(d, int):
        raise RefusedCall("a pooled axis of symbolic size whose last window is cut")
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
        have = extent(d)
        count = -(-(have + 2 * p - a * (k - 1) - 1) // s) + 1
        if (count - 1) * s >= have + p:
            count -= 1
        high.append(max((count - 1) * s + a * (k - 1) + 1 - have - p, p))
    return tuple(high)


def _greatest(m: Importer, x: Ref, axis: int) -> tuple[Ref, Ref]:
    """(the greatest element along an axis, where the first of them stands); integers by halves."""
    if m.type(x).dtype is DType.F32:
        return tuple(m.add(op, x, dim=axis, keepdim=False) for op in ("amax", "argmax"))  # type: ignore[return-value]
    shape = m.type(x).shape
    n = extent(shape[axis])
    at = m.view(m.add("iota", n=n, start=0, step=1), (n, *(1,) * (len(shape) - 1 - axis)))
    at = m.add("expand", at, shape=shape)
    while n > 1:
        half = (n + 1) // 2  # an odd middle is in both halves
        (a, i), (b, j) = (
            (m.take(x, axis, start, start + half), m.take(at, axis, start, start + half))
            for start in (0, n - half)
        )
        first = m.add("where", m.add("eq", a, b), m.add("minimum", i, j), i)
        at = m.add("where", m.add("gt", b, a), j, first)
        x, n = m.add("maximum", a, b), half
    out = (*shape[:axis], *shape[axis + 1 :])
    return m.view(x, out), m.view(at, out)


def _maxima(n: int) -> Callable[..., tuple[Ref, Callable[[], Ref]]]:
    """Maxima over windows, and how to find their places."""

    def f(
        m: Importer, x: Ref, size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> tuple[Ref, Callable[[], Ref]]:  # fmt: skip
        size, padding, dilation = (per_axis(v, n) for v in (size, padding, dilation))
        step = per_axis(stride, n) if stride != () else size
        high = _room(m, x, size, step, padding, dilation, ceil_mode)
        padded = pad(m, x, padding, high, lowest(m.type(x).dtype))
        windows = windows_of(m, padded, size, step, dilation)
        axis = m.type(windows).rank - n - 1

        def places() -> Ref:
            """Where the first of each stands among the elements of its channel."""
            best = _greatest(m, windows, axis)[1]
            place = m.scalar(0, DType.I64)
            for i, (have, out) in enumerate(
                zip(m.type(x).shape[-n:], m.type(best).shape[-n:], strict=True)
            ):
                at = m.add("floor_divide", best, m.scalar(prod(size[i + 1 :]), DType.I64))
                at = m.add("remainder", at, m.scalar(size[i], DType.I64))
                at = m.add("mul", at, m.scalar(dilation[i], DType.I64))
                first = m.add("iota", n=out, start=-padding[i], step=step[i])
                at = m.add("add", m.view(first, (out, *(1,) * (n - 1 - i))), at)
                # padding, if all is -inf: the first place of the window that is inside
                inside = m.add("remainder", at, m.scalar(dilation[i], DType.I64))
                at = m.add("maximum", at, inside)
                place = m.add("add", m.add("mul", place, m.scalar(have, DType.I64)), at)
            return place

        y = _greatest(m, windows, axis)[0]
        if m.type(x).dtype is DType.F32:
            y = m.rule(y, (windows,), calls.first_of(axis))
        return y, places

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
        ones, whole = (1,) * n, m.type(x).dtype is DType.I64
        shape = m.type(x).shape[-n:]
        high = _room(m, x, size, step, padding, ones, ceil_mode)
        windows = windows_of(m, pad(m, x, padding, high), size, step, ones)
        axis = m.type(windows).rank - n - 1
        if divisor_override is None and (
            (not any(padding) or count_include_pad) and high == padding
        ):
            if whole:
                return _quotient(
                    m, sum_of(m, windows, (axis,), False), m.scalar(prod(size), DType.I64)
                )
            return m.add("mean", windows, dim=axis, keepdim=False)
        total = sum_of(m, windows, (axis,), False)
        if divisor_override is not None:
            return _quotient(m, total, m.scalar(divisor_override, m.type(total).dtype))
        # elements that count: those of x, or of x with its padding, that the window covers
        counts = np.ones((), np.int64)
        for i in range(n):
            have, out = extent(shape[i]), extent(m.type(total).shape[-n + i])
            low = np.arange(out) * step[i] - padding[i]
            end = np.minimum(low + size[i], have + padding[i])
            if not count_include_pad:
                low, end = np.maximum(low, 0), np.minimum(end, have)
            counts = counts[..., None] * (end - low)
        return _quotient(m, total, m.builder.const(counts.astype(m.type(total).dtype.numpy)))

    return f


def _quotient(m: Importer, x: Ref, y: Ref) -> Ref:
    """x / y, of integers cut towards zero."""
    if m.type(x).dtype is DType.F32:
        return m.add("div", x, y)
    return IMPORTERS["div.Tensor_mode"](m, x, y, rounding_mode="trunc")  # type: ignore[no-any-return]


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
        if 0 in want:
            return m.add("full", shape=(*t.shape[:-n], *want), value=0.0, dtype=t.dtype)
        sizes = tuple(extent(h) for h in have)
        if all(h % s == 0 for h, s in zip(sizes, want, strict=True)):
            step = tuple(h // s for h, s in zip(sizes, want, strict=True))
            return _avg_pool(n)(m, x, step)
        return _cells(m, x, sizes, want)

    return f


def join(m: Importer, parts: list[Ref], axis: int) -> Ref:
    """Parts side by side; a node has at most four sources."""
    while len(parts) > 1:
        parts = [m.add("cat", *parts[i : i + 4], dim=axis) for i in range(0, len(parts), 4)]
    return parts[0]


def _cells(m: Importer, x: Ref, have: Ints, want: Ints) -> Ref:
    """Windows of different sizes: a mean for each cell, put side by side."""
    n = len(want)
    if prod(want) > MAX_CELLS:
        windows, _, inside = _uneven(m, x, have, want)
        windows = m.add("where", m.builder.const(inside), windows, m.scalar(0.0, DType.F32))
        total = m.add("sum", windows, dim=m.type(x).rank - n, keepdim=False)
        counts = inside.sum(axis=0, dtype=np.float32)
        return m.add("div", total, m.builder.const(counts))
    lead = m.type(x).rank - n

    def along(y: Ref, i: int) -> Ref:
        """Axes i and later of y, pooled."""
        if i == n:
            t = m.type(y)
            merged = m.view(y, (*t.shape[:lead], prod(extent(d) for d in t.shape[lead:])))
            mean = m.add("mean", merged, dim=lead, keepdim=False)
            return m.view(mean, (*t.shape[:lead], *(1,) * n))
        parts = []
        for c in range(want[i]):
            start, stop = c * have[i] // want[i], -(-(c + 1) * have[i] // want[i])
            part = m.add("slice", y, dim=lead + i, start=start, stop=stop, step=1)
            parts.append(along(part, i + 1))
        return join(m, parts, lead + i)

    return along(x, 0)


def _uneven(
    m: Importer, x: Ref, have: Ints, want: Ints
) -> tuple[Ref, Array, npt.NDArray[np.bool_]]:
    """(windows [*lead, cells of a window, *want], the place of each cell in its channel, whether the cell
    belongs to its window): all as large as the largest, filled with their last row and column."""
    n, lead = len(want), m.type(x).rank - len(want)
    places: Array = np.zeros((1,) * 2 * n, np.int64)
    inside: npt.NDArray[np.bool_] = np.ones((1,) * 2 * n, bool)
    for i, (h, w) in enumerate(zip(have, want, strict=True)):
        cell = np.arange(w)
        start, stop = cell * h // w, -(-(cell + 1) * h // w)
        k = np.arange(max(stop - start))[:, None]
        shape = [1] * 2 * n
        shape[i], shape[n + i] = k.size, w
        at = np.minimum(start + k, stop - 1).reshape(shape)
        places, inside = places * h + at, inside & (start + k < stop).reshape(shape)
    sizes = places.shape[:n]
    places, inside = places.reshape(prod(sizes), *want), inside.reshape(prod(sizes), *want)
    flat = m.view(x, (*m.type(x).shape[:lead], prod(have)))
    flat = m.add("permute", flat, dims=(lead, *range(lead)))
    windows = m.add("index", flat, m.builder.const(places))
    order = (*range(n + 1, n + 1 + lead), *range(n + 1))
    return m.add("permute", windows, dims=order), places, inside


def _adaptive_max(n: int) -> Callable[..., tuple[Ref, Ref]]:
    """Each cell's element at the place of its greatest, which gets its gradient, and that place."""

    def f(m: Importer, x: Ref, size: Any) -> tuple[Ref, Ref]:
        t = m.type(x)
        lead = t.shape[: t.rank - n]
        have, want = tuple(extent(d) for d in t.shape[-n:]), per_axis(size, n)
        if 0 in have:
            raise RefusedCall("adaptive max pooling of an axis without elements")
        if 0 in want:
            return tuple(m.add("full", shape=(*lead, *want), value=0 if d is DType.I64 else 0.0, dtype=d)
                         for d in (t.dtype, DType.I64))  # type: ignore[return-value]  # fmt: skip
        windows, places, _ = _uneven(m, x, have, want)
        best = _greatest(m, m.stop(windows), t.rank - n)[1]
        cells = m.add("iota", n=prod(want), start=0, step=1)
        at = m.add("mul", best, m.scalar(prod(want), DType.I64))
        at = m.add("add", at, m.view(cells, want))
        where = m.add("index", m.builder.const(places.reshape(-1)), at)
        flat = m.view(where, (*lead, prod(want)))
        y = m.add("gather", m.view(x, (*lead, prod(have))), flat, dim=len(lead))
        return m.view(y, (*lead, *want)), where

    return f


aten("adaptive_max_pool2d")(_adaptive_max(2))
aten("adaptive_max_pool3d")(_adaptive_max(3))
aten("adaptive_avg_pool1d")(_adaptive(1))
aten("adaptive_avg_pool2d", "_adaptive_avg_pool2d")(_adaptive(2))
aten("adaptive_avg_pool3d", "_adaptive_avg_pool3d")(_adaptive(3))
