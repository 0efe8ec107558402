"""Gradients of calls that torch differentiates as one, where their compositions have other subgradients
or meet 0 * inf on the way. Each returns a rule for `Importer.rule`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ree.compiler.gradients.engine import Rule, Site, Thunk
from ree.compiler.ir import Ref

Part = Callable[[Site], Ref]
Bound = Ref | float | None


def parts(*of: Part | None) -> Rule:
    """The gradient of each source in the shape of the result; sums over broadcast axes follow."""

    def rule(g: Site) -> Sequence[Thunk | None]:
        def thunk(part: Part, source: Ref) -> Thunk:
            return lambda: g.fit(part(g), g.dims(source))

        return [None if p is None else thunk(p, s) for p, s in zip(of, g.sources, strict=True)]

    return rule


def _within(g: Site, low: Bound, high: Bound, below: str, above: str) -> Ref:
    """dy where low `below` x and x `above` high, 0 elsewhere."""
    tests = [
        g.op(op, g.x, bound) for op, bound in ((below, low), (above, high)) if bound is not None
    ]
    inside = tests[0] if len(tests) == 1 else g.op("logical_and", *tests)
    return g.op("where", inside, g.dy, 0.0)


def inside(low: float, high: float, divisor: float = 1.0) -> Rule:
    """hardtanh, relu6, hardsigmoid: nothing at the corners."""

    def part(g: Site) -> Ref:
        d = _within(g, low, high, "gt", "lt")
        return d if divisor == 1 else g.op("div", d, divisor)

    return parts(part)


def clamp(low: Bound, high: Bound) -> Rule:
    """x has the gradient at its bounds too; bounds that are tensors have it where they win strictly."""

    def of_low(g: Site) -> Ref:
        wins = g.op("lt", g.x, low)  # type: ignore[arg-type]
        if high is not None:
            wins = g.op("logical_and", wins, g.op("lt", low, high))  # type: ignore[arg-type]
        return g.op("where", wins, g.dy, 0.0)

    def of_high(g: Site) -> Ref:
        wins = g.op("gt", g.x, high)  # type: ignore[arg-type]
        if low is not None:
            wins = g.op("logical_or", wins, g.op("lt", high, low))  # type: ignore[arg-type]
        return g.op("where", wins, g.dy, 0.0)

    bounds = [f for b, f in ((low, of_low), (high, of_high)) if isinstance(b, Ref)]
    return parts(lambda g: _within(g, low, high, "ge", "le"), *bounds)


def _hardswish(g: Site) -> Ref:
    slope = g.op("add", g.op("div", g.x, 3.0), 0.5)
    rise = g.op("where", g.op("lt", g.x, 3.0), g.mul(g.dy, slope), g.dy)
    return g.op("where", g.op("gt", g.x, -3.0), rise, 0.0)


HARDSWISH = parts(_hardswish)


def elu(alpha: float, scale: float, input_scale: float) -> Rule:
    """dy * scale above 0, dy * alpha*scale*input_scale * exp(x * input_scale) at 0 and below."""

    def part(g: Site) -> Ref:
        up = g.op("gt", g.x, 0.0)
        low = g.op("exp", g.mul(g.op("where", up, 0.0, g.x), input_scale))
        low = g.mul(alpha * scale * input_scale, low)
        return g.mul(g.dy, g.op("where", up, scale, low))

    return parts(part)


LOG_SIGMOID = parts(lambda g: g.mul(g.dy, g.op("sigmoid", g.op("neg", g.x))))


def _leaky(g: Site, other: Ref) -> Ref:
    return g.op("where", g.op("gt", g.x, 0.0), g.dy, g.mul(g.dy, other))


PRELU = parts(
    lambda g: _leaky(g, g.sources[1]),
    lambda g: g.op("where", g.op("gt", g.x, 0.0), 0.0, g.mul(g.dy, g.x)),
)


def _sinc(g: Site) -> Ref:
    """dy * (t cos t - sin t) / (t x) with t = pi x, nothing at 0."""
    t = g.mul(math.pi, g.x)
    d = g.op("sub", g.mul(t, g.op("cos", t)), g.op("sin", t))
    below = g.mul(t, g.x)
    flat = g.op("eq", below, 0.0)
    return g.op("where", flat, 0.0, g.mul(g.dy, g.op("div", d, below)))


SINC = parts(_sinc)


def _xlogy_x(g: Site) -> Ref:
    x, y = g.sources
    flat = g.op("logical_and", g.op("eq", x, 0.0), g.op("le", y, 0.0))
    return g.op("where", flat, 0.0, g.mul(g.dy, g.op("log", y)))


XLOGY = parts(_xlogy_x, lambda g: g.op("div", g.mul(g.dy, g.x), g.sources[1]))


def _bce_x(g: Site) -> Ref:
    """dy * (x - t) / max(x * (1 - x), 1e-12)."""
    x, t = g.sources
    below = g.op("maximum", g.mul(g.op("sub", 1.0, x), x), 1e-12)
    return g.op("div", g.mul(g.dy, g.op("sub", x, t)), below)


def _bce_t(g: Site) -> Ref:
    return g.mul(g.dy, g.op("sub", g.op("log1p", g.op("neg", g.x)), g.op("log", g.x)))


BINARY_CROSS_ENTROPY = parts(_bce_x, _bce_t)


def logit(eps: float | None) -> Rule:
    """dy / (x * (1 - x)), nothing outside the bounds that eps draws."""

    def part(g: Site) -> Ref:
        d = g.op("div", g.dy, g.op("abs", g.mul(g.x, g.op("sub", 1.0, g.x))))
        low, outside = (0.0, math.nan) if eps is None else (eps, 0.0)
        high = g.op("le", g.x, g.op("sub", 1.0, low))
        within = g.op("logical_and", g.op("ge", g.x, low), high)
        return g.op("where", within, d, outside)

    return parts(part)


# x^-1/2, where -0 counts as 0
INVERSE_ROOT = parts(lambda g: g.mul(g.dy, g.mul(-0.5, g.mul(g.op("abs", g.y), g.mul(g.y, g.y)))))
# x^-2, whose square overflows before its gradient does
INVERSE_SQUARE = parts(lambda g: g.mul(g.dy, g.mul(-2.0, g.op("pow", g.x, -3.0))))

FMOD = parts(
    lambda g: g.dy,
    lambda g: g.op("neg", g.mul(g.dy, g.op("trunc", g.op("div", g.x, g.sources[1])))),
)


def _root(g: Site) -> Ref:
    """Of a deviation: nothing where it is 0."""
    return g.op("where", g.op("eq", g.y, 0.0), 0.0, g.op("div", g.dy, g.mul(2.0, g.y)))


DEVIATION = parts(_root)


def norm(p: float, axes: tuple[int, ...]) -> Rule:
    """Nothing where the norm, for p < 1 the element, is 0; extremes share among equals."""

    def f(g: Site) -> Ref:
        shape = tuple(1 if i in axes else d for i, d in enumerate(g.dims(g.x)))
        dy, y = g.m.view(g.dy, shape), g.m.view(g.y, shape)
        at_zero = g.op("eq", y, 0.0)
        size = g.op("abs", g.x)
        if p == 0:
            return g.mul(g.x, 0.0)
        if p == 1:
            return g.mul(g.op("sign", g.x), dy)
        if p == 2:
            ratio = g.op("where", at_zero, 0.0, g.op("div", g.x, y))
            return g.mul(dy, ratio)
        if math.isinf(p):
            hit = g.op("eq", size, y)
            count = g.m.reduce("sum", g.m.as_float(hit), axes, True)
            each = g.mul(g.op("sign", g.x), g.op("div", dy, count))
            return g.op("where", hit, each, 0.0)
        if p < 1:
            power = g.op("where", g.op("eq", g.x, 0.0), 0.0, g.op("pow", size, p - 1))
            return g.mul(g.mul(g.mul(g.op("sign", g.x), power), dy), g.op("pow", y, 1 - p))
        if p < 2:
            scaled = g.mul(g.op("sign", g.x), g.op("pow", size, p - 1))
        else:
            scaled = g.mul(g.x, g.op("pow", size, p - 2))
        each = g.op("where", at_zero, 0.0, g.op("div", dy, g.op("pow", y, p - 1)))
        return g.mul(scaled, each)

    return lambda g: [lambda: f(g)]


def first_of(dim: int) -> Rule:
    """Of maxima along an axis: the whole gradient to the first element that is one."""

    def f(g: Site) -> Ref:
        shape = g.dims(g.x)
        best = g.op("argmax", g.x, dim=dim, keepdim=True)
        at = g.op("iota", n=shape[dim], start=0, step=1)
        at = g.m.view(at, tuple(n if i == dim else 1 for i, n in enumerate(shape)))
        dy = g.m.view(g.dy, (*shape[:dim], 1, *shape[dim + 1 :]))
        return g.op("where", g.op("eq", at, best), dy, 0.0)

    return lambda g: [lambda: f(g)]


def log_sum_exp(axes: tuple[int, ...]) -> Rule:
    """dy * exp(x - y)."""

    def f(g: Site) -> Ref:
        shape = tuple(1 if i in axes else d for i, d in enumerate(g.dims(g.x)))
        dy, y = g.m.view(g.dy, shape), g.m.view(g.y, shape)
        return g.mul(dy, g.op("exp", g.op("sub", g.x, y)))

    return lambda g: [lambda: f(g)]


def chosen(rows: Ref, bag: Ref) -> Rule:
    """The maximum of each bag of rows: dy of its bag to the row that is chosen for a column."""
    return lambda g: [lambda: g.op("where", rows, g.m.add("index", g.dy, bag), 0.0)]


def farthest(g: Site) -> Sequence[Thunk | None]:
    """cdist with p = inf, over the last axis: the whole of dy to each of the greatest differences."""

    def f() -> Ref:
        shape = (*g.dims(g.y), 1)
        dy, y = g.m.view(g.dy, shape), g.m.view(g.y, shape)
        each = g.mul(g.op("sign", g.x), dy)
        return g.op("where", g.op("eq", g.op("abs", g.x), y), each, 0.0)

    return [f]
