"""Gradients of sums, selections, softmax and norms."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ree.compiler.gradients.engine import CONSTANT, Site, Thunk, gradient
from ree.compiler.ir import Ref
from ree.kernels.types import DType

CONSTANT |= {"argmax", "argmin"}


def _dim(g: Site) -> tuple[int, bool]:
    return int(g.attrs["dim"]), bool(g.attrs["keepdim"])


@gradient("sum")
def _sum(g: Site) -> Sequence[Thunk]:
    return [lambda: g.op("expand", g.restore(g.dy, *_dim(g)), shape=g.dims(g.x))]


@gradient("mean")
def _mean(g: Site) -> Sequence[Thunk]:
    def f() -> Ref:
        n = g.dims(g.x)[_dim(g)[0]]
        return g.op("expand", g.restore(g.op("div", g.dy, n), *_dim(g)), shape=g.dims(g.x))

    return [f]


@gradient("amax", "amin")
def _extreme(g: Site) -> Sequence[Thunk]:
    """Shared equally among the elements that equal the extreme."""

    def f() -> Ref:
        dim, kept = _dim(g)
        hit = g.op("eq", g.x, g.restore(g.y, dim, kept))
        count = g.op("sum", g.m.cast(hit, DType.F32), dim=dim, keepdim=True)
        return g.op("where", hit, g.op("div", g.restore(g.dy, dim, kept), count), 0.0)

    return [f]


@gradient("cumsum")
def _cumsum(g: Site) -> Sequence[Thunk]:
    dim = g.attrs["dim"]
    return [
        lambda: g.op("flip", g.op("cumsum", g.op("flip", g.dy, dim=dim), dim=dim), dim=dim)
    ]  # fmt: skip


@gradient("sort")
def _sort(g: Site) -> Sequence[Thunk]:
    order = Ref(g.y.kind, g.y.index + 1)
    return [
        lambda: g.op("scatter", g.zeros(g.m.type(g.x)), order, g.dy, dim=g.attrs["dim"])
    ]  # fmt: skip


def _last(g: Site, op: str, x: Ref) -> Ref:
    """A reduction over the last axis, kept."""
    return g.op(op, x, dim=len(g.dims(x)) - 1, keepdim=True)


@gradient("softmax")
def _softmax(g: Site) -> Sequence[Thunk]:
    return [lambda: g.mul(g.y, g.op("sub", g.dy, _last(g, "sum", g.mul(g.dy, g.y))))]


def _rows(g: Site, x: Ref) -> Ref:
    """The sum over all axes but the last."""
    shape = g.dims(x)
    return g.op("sum", g.m.view(x, (prod(shape[:-1]), shape[-1])), dim=0, keepdim=False)


@gradient("layer_norm")
def _layer_norm(g: Site) -> Sequence[Thunk]:
    """With h = d * r: dx = r * ((dh - mean(dh)) - h * mean(dh * h)), dh = dy * w."""
    has_weight = bool(g.attrs["weight"])
    d = g.op("sub", g.x, _last(g, "mean", g.x))
    spread = g.op("add", _last(g, "mean", g.mul(d, d)), g.attrs["eps"])
    r = g.op("div", 1.0, g.op("sqrt", spread))
    h = g.mul(d, r)

    def dx() -> Ref:
        dh = g.mul(g.dy, g.sources[1]) if has_weight else g.dy
        centred = g.op("sub", dh, _last(g, "mean", dh))
        return g.mul(r, g.op("sub", centred, g.mul(h, _last(g, "mean", g.mul(dh, h)))))

    parts: list[Thunk] = [dx]
    if has_weight:
        parts.append(lambda: _rows(g, g.mul(g.dy, h)))
    if g.attrs["bias"]:
        parts.append(lambda: _rows(g, g.dy))
    return parts


@gradient("rms_norm")
def _rms_norm(g: Site) -> Sequence[Thunk]:
    """With h = x * r: dx = r * (dh - h * mean(dh * h)), dh = dy * w."""
    has_weight = bool(g.attrs["weight"])
    spread = g.op("add", _last(g, "mean", g.mul(g.x, g.x)), g.attrs["eps"])
    r = g.op("div", 1.0, g.op("sqrt", spread))
    h = g.mul(g.x, r)

    def dx() -> Ref:
        dh = g.mul(g.dy, g.sources[1]) if has_weight else g.dy
        return g.mul(r, g.op("sub", dh, g.mul(h, _last(g, "mean", g.mul(dh, h)))))

    return [dx, lambda: _rows(g, g.mul(g.dy, h))] if has_weight else [dx]
