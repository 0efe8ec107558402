"""Importers of random numbers: Philox at a site that is fixed here, in the order of the calls."""

from __future__ import annotations

import math
from typing import Any

from ree.compiler.frontend.aten.scan import search
from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall, aten
from ree.compiler.ir import Ref
from ree.kernels.types import DType, Shape, product

F32, I64 = DType.F32, DType.I64


def uniform(m: Importer, shape: Shape) -> Ref:
    """Uniform numbers in [0, 1), new ones at every call and every step."""
    if m.random is None:
        raise RefusedCall(
            "random numbers exist in training steps alone; call model.eval() first, or pass them in"
        )
    return _drawn(m, shape, m.random)


def _drawn(m: Importer, shape: Shape, source: tuple[Ref, Ref]) -> Ref:
    """Numbers of the next site, from a seed and a step."""
    seed, step = source
    elements = m.add("iota", n=product(shape), start=0, step=1)
    site, m.sites = m.sites, m.sites + 1
    return m.view(m.add("uniform", elements, seed, step, site=site), tuple(shape))


def normal(m: Importer, shape: Shape) -> Ref:
    """Standard normal numbers by Box and Muller: sqrt(-2 log(1 - u)) cos(2 pi v)."""
    u, v = uniform(m, shape), uniform(m, shape)
    u = m.add("sub", m.scalar(1.0, F32), u)  # in (0, 1]
    radius = m.add("sqrt", m.add("mul", m.scalar(-2.0, F32), m.add("log", u)))
    return m.add("mul", radius, m.add("cos", m.add("mul", m.scalar(2 * math.pi, F32), v)))


def _kept(m: Importer, x: Ref, p: float, shape: Shape) -> Ref:
    """x / (1 - p) where uniform >= p, else 0; one number for each element of `shape`."""
    if not 0 <= p <= 1:
        raise RefusedCall(f"dropout of {p}, expected 0 to 1")
    zero = m.scalar(0.0, F32)
    if p == 1:
        return m.add("mul", x, zero)
    source = m.random
    if source is None:  # a module in training mode, compiled as it stands
        source = m.scalar(0, I64), m.scalar(0, I64)
        if not m.notes:
            m.notes.append(
                "the module is in training mode: its program drops the same elements in every run, from "
                f"{m.builder.origin.location or 'an unknown line'} on; for none, call eval() first"
            )
    keep = m.add("ge", _drawn(m, shape, source), m.scalar(p, F32))
    return m.add("where", keep, m.add("mul", x, m.scalar(1 / (1 - p), F32)), zero)


def dropout(m: Importer, x: Ref, p: float = 0.5, train: bool = True) -> Ref:
    """Inverted dropout."""
    return x if not train or p == 0 else _kept(m, x, float(p), m.type(x).shape)


aten("dropout")(dropout)


@aten("native_dropout")
def _native_dropout(m: Importer, x: Ref, p: float, train: bool | None = True) -> tuple[Ref, Ref]:
    y = dropout(m, x, p, train is not False)
    return y, m.add("ne", y, m.scalar(0.0, F32))


@aten("feature_dropout")
def _feature_dropout(m: Importer, x: Ref, p: float, train: bool) -> Ref:
    shape = m.type(x).shape
    return (
        x if not train or p == 0 else _kept(m, x, float(p), (*shape[:2], *(1,) * (len(shape) - 2)))
    )


def score_scale(width: int, scale: float | None) -> float:
    """What attention multiplies its scores by. Those of a width of 0 are sums of nothing, 0 under any scale."""
    return scale if scale is not None else 1.0 / math.sqrt(width or 1)


def attention_with_dropout(
    m: Importer, q: Ref, k: Ref, v: Ref, mask: Ref | None, p: float, causal: bool, scale: float | None
) -> Ref:  # fmt: skip
    """Attention written out, dropout on its weights."""
    (*_, queries, width), keys = m.type(q).dims, m.type(k).dims[-2]
    if m.type(k).shape[-3:-2] != m.type(q).shape[-3:-2]:
        raise RefusedCall("attention dropout with heads that share keys")
    s = m.add("matmul", q, m.transpose(k, m.type(k).rank - 2, m.type(k).rank - 1))
    s = m.add("mul", s, m.scalar(score_scale(width, scale), F32))
    out = m.scalar(-math.inf, F32)
    if causal:
        rows = m.view(m.add("iota", n=queries, start=0, step=1), (queries, 1))
        s = m.add("where", m.add("le", m.add("iota", n=keys, start=0, step=1), rows), s, out)
    if mask is not None:
        bool_ = m.type(mask).dtype is DType.BOOL
        s = m.add("where", mask, s, out) if bool_ else m.add("add", s, mask)
    weights = m.add("softmax", s, dim=m.type(s).rank - 1)
    return m.add("matmul", dropout(m, weights, p), v)


@aten("rand")
def _rand(m: Importer, size: Shape, **ignored: Any) -> Ref:
    return uniform(m, tuple(size))


@aten("rand_like")
def _rand_like(m: Importer, x: Ref, **ignored: Any) -> Ref:
    return uniform(m, m.type(x).shape)


@aten("randn")
def _randn(m: Importer, size: Shape, **ignored: Any) -> Ref:
    return normal(m, tuple(size))


@aten("randn_like")
def _randn_like(m: Importer, x: Ref, **ignored: Any) -> Ref:
    return normal(m, m.type(x).shape)


@aten("bernoulli")
def _bernoulli(m: Importer, p: Ref, **ignored: Any) -> Ref:
    return m.cast(m.add("lt", uniform(m, m.type(p).shape), p), F32)


@aten("bernoulli.p")
def _bernoulli_p(m: Importer, x: Ref, p: float = 0.5, **ignored: Any) -> Ref:
    return m.cast(m.add("lt", uniform(m, m.type(x).shape), m.scalar(float(p), F32)), F32)


@aten("randint", "randint.low")
def _randint(m: Importer, *args: Any, **ignored: Any) -> Ref:
    """floor(low + uniform * (high - low))."""
    *bounds, size = args
    low, high = (0, bounds[0]) if len(bounds) == 1 else bounds
    if high - low > 1 << 24:
        raise RefusedCall(f"random integers of a range of {high - low}, at most 2^24")
    x = m.add("mul", uniform(m, tuple(size)), m.scalar(float(high - low), F32))
    return m.add("add", m.cast(m.add("floor", x), I64), m.scalar(low, I64))


@aten("multinomial")
def _multinomial(m: Importer, p: Ref, n: int, replacement: bool = False, **ignored: Any) -> Ref:
    """n places of each row of weights, which must not be negative and not all zero.

    With replacement: the first place whose running sum is above uniform * total, at most the first that
    reaches the total. Without: the places of the n greatest weight / -log(1 - uniform), in that order; a
    place without weight comes last.
    """
    *lead, size = m.type(p).shape
    axis = len(lead)
    if replacement:
        sums = m.add("cumsum", p, dim=axis)
        total = m.take(sums, axis, size - 1, size)
        aim = m.add("mul", uniform(m, (*lead, n)), total)
        last = search(m, sums, total, False)
        return m.add("minimum", search(m, sums, aim, True), last)
    chance = m.add("sub", m.scalar(1.0, F32), uniform(m, (*lead, size)))
    wait = m.add("neg", m.add("log", chance))
    none = m.add("le", p, m.scalar(0.0, F32))
    keys = m.add("where", none, m.scalar(-1.0, F32), m.add("div", p, wait))
    return m.take(IMPORTERS["argsort"](m, keys, axis, True), axis, 0, n)
