"""Gradients of contractions and attention: contractions over the other axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ree.compiler.frontend.aten.conv import transposed_convolution
from ree.compiler.gradients.engine import Site, Thunk, gradient
from ree.compiler.ir import Ref
from ree.kernels.types import DType


def _t(g: Site, x: Ref) -> Ref:
    """The last two axes exchanged."""
    rank = len(g.dims(x))
    return g.m.transpose(x, rank - 2, rank - 1)


def _rows(g: Site, x: Ref) -> Ref:
    """All axes but the last as one."""
    shape = g.dims(x)
    return g.m.view(x, (prod(shape[:-1]), shape[-1]))


@gradient("linear")
def _linear(g: Site) -> Sequence[Thunk]:
    """dx contracts over the outputs, dw over the rows."""
    x, w = g.sources
    return [
        lambda: g.op("matmul", g.dy, w) if len(g.dims(x)) > 1 else _vector(g, w),
        lambda: g.op("matmul", _t(g, _rows(g, g.dy)), _rows(g, x)),
    ]


def _vector(g: Site, w: Ref) -> Ref:
    return g.m.view(g.op("matmul", _rows(g, g.dy), w), g.dims(g.x))


@gradient("matmul")
def _matmul(g: Site) -> Sequence[Thunk]:
    a, b = g.sources

    def db() -> Ref:
        if prod(g.dims(b)[:-2]) == 1:  # one right-hand side for all: contract over all rows at once
            return g.m.view(g.op("matmul", _t(g, _rows(g, a)), _rows(g, g.dy)), g.dims(b))
        return g.fit(g.op("matmul", _t(g, a), g.dy), g.dims(b))

    return [lambda: g.fit(g.op("matmul", g.dy, _t(g, b)), g.dims(a)), db]


@gradient("convolution")
def _convolution(g: Site) -> Sequence[Thunk]:
    """dx is the transposed convolution; dw a convolution over images and pixels, in which stride and
    dilation change places."""
    x, w = g.sources
    xs, ws, ys = g.dims(x), g.dims(w), g.dims(g.y)
    stride, padding, dilation = (tuple(g.attrs[k]) for k in ("stride", "padding", "dilation"))
    groups, n = int(g.attrs["groups"]), len(xs) - 2

    def dx() -> Ref:
        more = tuple(
            xs[i + 2]
            - ((ys[i + 2] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (ws[i + 2] - 1) + 1)
            for i in range(n)
        )
        return transposed_convolution(g.m, g.dy, w, None, stride, padding, more, groups, dilation)

    def dw() -> Ref:
        images, each_in, each_out = xs[0], xs[1] // groups, ys[1] // groups
        space = range(3, n + 3)
        a = g.m.view(x, (images, groups, each_in, *xs[2:]))
        a = g.op("permute", a, dims=(2, 1, 0, *space))
        a = g.m.view(a, (each_in, groups * images, *xs[2:]))
        b = g.m.view(g.dy, (images, groups, each_out, *ys[2:]))
        b = g.op("permute", b, dims=(1, 2, 0, *space))
        b = g.m.view(b, (groups * each_out, images, *ys[2:]))
        y = g.op(
            "convolution", a, b, stride=dilation, padding=padding, dilation=stride, groups=groups
        )
        for i in range(n):  # a stride may leave room for windows that the forward pass has not
            y = g.m.take(y, i + 2, 0, ws[i + 2])
        return g.m.transpose(y, 0, 1)

    return [dx, dw]


@gradient("attention")
def _attention(g: Site) -> Sequence[Thunk]:
    """With p = softmax of the scores, 0 at invalid keys: dv = p^T dy; ds = p * (dy v^T - sum(dy * y));
    dq = ds k * scale, dk = ds^T q * scale. Heads that share keys are summed."""
    q, k, v = g.sources[:3]
    scale = float(g.attrs["scale"])
    batch, heads, queries, _ = g.dims(q)
    shared = g.dims(k)[1]

    def wide(x: Ref) -> Ref:
        """Keys or values of every head."""
        if shared == heads:
            return x
        _, _, t, d = g.dims(x)
        x = g.m.view(x, (batch, shared, 1, t, d))
        x = g.op("expand", x, shape=(batch, shared, heads // shared, t, d))
        return g.m.view(x, (batch, heads, t, d))

    def narrow(x: Ref) -> Ref:
        """The sum over the heads that share keys."""
        if shared == heads:
            return x
        _, _, t, d = g.dims(x)
        x = g.m.view(x, (batch, shared, heads // shared, t, d))
        return g.op("sum", x, dim=2, keepdim=False)

    scores = g.mul(g.op("matmul", q, _t(g, wide(k))), scale)
    valid = _valid(g, queries, g.dims(k)[2])
    if len(g.sources) == 4:
        mask = g.sources[3]
        if g.m.type(mask).dtype is DType.BOOL:
            valid = mask if valid is None else g.op("logical_and", valid, mask)
        else:
            scores = g.op("add", scores, mask)
            open_ = g.op("ne", scores, -float("inf"))
            valid = open_ if valid is None else g.op("logical_and", valid, open_)
    if valid is not None:
        scores = g.op("where", valid, scores, -float("inf"))
    p = g.op("softmax", scores, dim=3)
    if valid is not None:
        p = g.op("where", valid, p, 0.0)
    made: list[Ref] = []

    def ds() -> Ref:
        """Gradient of the scores before their scale, made once."""
        if not made:
            delta = g.op("sum", g.mul(g.dy, g.y), dim=3, keepdim=True)
            made.append(g.mul(p, g.op("sub", g.op("matmul", g.dy, _t(g, wide(v))), delta)))
        return made[0]

    parts: list[Thunk | None] = [
        lambda: g.op("matmul", g.mul(ds(), scale), wide(k)),
        lambda: narrow(g.op("matmul", _t(g, g.mul(ds(), scale)), q)),
        lambda: narrow(g.op("matmul", _t(g, p), g.dy)),
    ]
    if len(g.sources) == 4:
        parts.append(lambda: g.fit(ds(), g.dims(g.sources[3])))
    return parts  # type: ignore[return-value]


def _valid(g: Site, queries: int, keys: int) -> Ref | None:
    """Which keys causality and the window let a query see."""
    causal, window = bool(g.attrs["causal"]), int(g.attrs["window"])
    if not causal and not window:
        return None
    at = g.op("iota", n=queries, start=int(g.attrs["q_offset"]), step=1)
    at = g.m.view(at, (queries, 1))
    key = g.op("iota", n=keys, start=0, step=1)
    valid = g.op("le", key, at) if causal else None
    if window:
        near = g.op("gt", key, g.op("sub", at, g.m.scalar(window, DType.I64)))
        valid = near if valid is None else g.op("logical_and", valid, near)
    return valid
