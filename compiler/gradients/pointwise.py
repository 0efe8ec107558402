"""Gradients of pointwise operators. Sums over broadcast axes follow from the shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ree.compiler.gradients.engine import CONSTANT, FLOATS, Site, Thunk, gradient
from ree.compiler.ir import Ref

Part = Callable[[Site], Ref]


def pointwise(name: str, *parts: Part | None) -> None:
    """Register a pointwise rule: the gradient of each source, in the shape of the result."""

    def rule(g: Site) -> Sequence[Thunk | None]:
        def thunk(part: Part, source: Ref) -> Thunk:
            return lambda: g.fit(part(g), g.dims(source))

        return [None if p is None else thunk(p, s) for p, s in zip(parts, g.sources, strict=True)]

    gradient(name)(rule)


def _unary(name: str, factor: Part) -> None:
    """dy times a factor."""
    pointwise(name, lambda g: g.mul(g.dy, factor(g)))


def _choose(g: Site, a: Ref, b: Ref, first: str) -> Ref:
    """dy where a wins; half where both are alike."""
    tie = g.op("where", g.op("eq", a, b), g.mul(g.dy, 0.5), 0.0)
    return g.op("where", g.op(first, a, b), g.dy, tie)


pointwise("add", lambda g: g.dy, lambda g: g.dy)
pointwise("sub", lambda g: g.dy, lambda g: g.op("neg", g.dy))
pointwise("mul", lambda g: g.mul(g.dy, g.sources[1]), lambda g: g.mul(g.dy, g.x))
pointwise("div", lambda g: g.op("div", g.dy, g.sources[1]),
          lambda g: g.op("neg", g.op("div", g.mul(g.dy, g.y), g.sources[1])))  # fmt: skip
pointwise("fma", lambda g: g.mul(g.dy, g.sources[1]), lambda g: g.mul(g.dy, g.x), lambda g: g.dy)
pointwise("maximum", lambda g: _choose(g, g.x, g.sources[1], "gt"),
          lambda g: _choose(g, g.sources[1], g.x, "gt"))  # fmt: skip
pointwise("minimum", lambda g: _choose(g, g.x, g.sources[1], "lt"),
          lambda g: _choose(g, g.sources[1], g.x, "lt"))  # fmt: skip
pointwise(
    "remainder",
    lambda g: g.dy,
    lambda g: g.op("neg", g.mul(g.dy, g.op("floor_divide", g.x, g.sources[1]))),
)
pointwise("where", None, lambda g: g.op("where", g.x, g.dy, 0.0),
          lambda g: g.op("where", g.x, 0.0, g.dy))  # fmt: skip


def _pow_base(g: Site) -> Ref:
    a, b = g.sources
    d = g.mul(g.dy, g.mul(b, g.op("pow", a, g.op("sub", b, 1.0))))
    return g.op("where", g.op("eq", b, 0.0), 0.0, d)


def _pow_exponent(g: Site) -> Ref:
    a, b = g.sources
    d = g.mul(g.dy, g.mul(g.y, g.op("log", a)))
    flat = g.op("logical_and", g.op("eq", a, 0.0), g.op("ge", b, 0.0))
    return g.op("where", flat, 0.0, d)


pointwise("pow", _pow_base, _pow_exponent)
pointwise("neg", lambda g: g.op("neg", g.dy))
_unary("abs", lambda g: g.op("sign", g.x))
pointwise("sqrt", lambda g: g.op("div", g.dy, g.mul(2.0, g.y)))
pointwise("relu", lambda g: g.op("where", g.op("gt", g.y, 0.0), g.dy, 0.0))
_unary("exp", lambda g: g.y)
_unary("exp2", lambda g: g.mul(g.y, math.log(2)))
_unary("expm1", lambda g: g.op("add", g.y, 1.0))
pointwise("log", lambda g: g.op("div", g.dy, g.x))
pointwise("log2", lambda g: g.op("div", g.dy, g.mul(g.x, math.log(2))))
pointwise("log1p", lambda g: g.op("div", g.dy, g.op("add", g.x, 1.0)))
_unary("tanh", lambda g: g.op("sub", 1.0, g.mul(g.y, g.y)))
_unary("sin", lambda g: g.op("cos", g.x))
_unary("cos", lambda g: g.op("neg", g.op("sin", g.x)))
_unary("erf", lambda g: g.mul(2 / math.sqrt(math.pi), g.op("exp", g.op("neg", g.mul(g.x, g.x)))))
_unary("erfc", lambda g: g.mul(-2 / math.sqrt(math.pi), g.op("exp", g.op("neg", g.mul(g.x, g.x)))))
_unary("erfinv", lambda g: g.mul(math.sqrt(math.pi) / 2, g.op("exp", g.mul(g.y, g.y))))
_unary("lgamma", lambda g: g.op("digamma", g.x))
_unary("tan", lambda g: g.op("add", 1.0, g.mul(g.y, g.y)))
_unary("asin", lambda g: g.op("rsqrt", g.op("sub", 1.0, g.mul(g.x, g.x))))
_unary("acos", lambda g: g.op("neg", g.op("rsqrt", g.op("sub", 1.0, g.mul(g.x, g.x)))))
pointwise("atan", lambda g: g.op("div", g.dy, g.op("add", g.mul(g.x, g.x), 1.0)))
_unary("sinh", lambda g: g.op("cosh", g.x))
_unary("cosh", lambda g: g.op("sinh", g.x))
_unary("asinh", lambda g: g.op("rsqrt", g.op("add", g.mul(g.x, g.x), 1.0)))
_unary("acosh", lambda g: g.op("rsqrt", g.op("sub", g.mul(g.x, g.x), 1.0)))
pointwise("atanh", lambda g: g.op("div", g.dy, g.op("sub", 1.0, g.mul(g.x, g.x))))
_unary("rsqrt", lambda g: g.mul(-0.5, g.mul(g.y, g.mul(g.y, g.y))))
_unary("sigmoid", lambda g: g.mul(g.y, g.op("sub", 1.0, g.y)))
_unary("softplus", lambda g: g.op("sigmoid", g.x))


def _square_sum(g: Site) -> Ref:
    a, b = g.sources
    return g.op("add", g.mul(a, a), g.mul(b, b))


def _over_square_sum(g: Site, x: Ref) -> Ref:
    """dy * x over the squared distance from 0; 0 at 0."""
    n = _square_sum(g)
    return g.op("where", g.op("eq", n, 0.0), 0.0, g.op("div", g.mul(g.dy, x), n))


pointwise("atan2", lambda g: _over_square_sum(g, g.sources[1]),
          lambda g: g.op("neg", _over_square_sum(g, g.x)))  # fmt: skip
pointwise("hypot", lambda g: g.mul(g.dy, g.op("div", g.x, g.y)),
          lambda g: g.mul(g.dy, g.op("div", g.sources[1], g.y)))  # fmt: skip


def _copysign(g: Site) -> Ref:
    """dy with the sign that x got; 0 at 0."""
    ratio = g.op("div", g.y, g.x)
    return g.op("where", g.op("eq", g.x, 0.0), 0.0, g.mul(g.dy, ratio))


pointwise("copysign", _copysign, lambda g: g.zeros(g.m.type(g.sources[1])))


def _silu(g: Site) -> Ref:
    s = g.op("sigmoid", g.x)
    return g.mul(s, g.op("add", 1.0, g.mul(g.x, g.op("sub", 1.0, s))))


def _gelu(g: Site) -> Ref:
    """The normal distribution at x, plus x times its density."""
    cdf = g.mul(0.5, g.op("add", 1.0, g.op("erf", g.mul(g.x, math.sqrt(0.5)))))
    density = g.op("exp", g.mul(-0.5, g.mul(g.x, g.x)))
    return g.op("add", cdf, g.mul(g.x, g.mul(1 / math.sqrt(2 * math.pi), density)))


def _gelu_tanh(g: Site) -> Ref:
    k, c = math.sqrt(2 / math.pi), 0.044715
    square = g.mul(g.x, g.x)
    t = g.op("tanh", g.mul(k, g.op("add", g.x, g.mul(c, g.mul(square, g.x)))))
    slope = g.mul(k, g.op("add", 1.0, g.mul(3 * c, square)))
    left = g.mul(0.5, g.op("add", 1.0, t))
    right = g.mul(g.mul(0.5, g.x), g.mul(g.op("sub", 1.0, g.mul(t, t)), slope))
    return g.op("add", left, right)


_unary("silu", _silu)
_unary("gelu", _gelu)
_unary("gelu_tanh", _gelu_tanh)


@gradient("cast")
def _cast(g: Site) -> Sequence[Thunk | None]:
    source = g.m.type(g.x).dtype
    if source not in FLOATS or g.m.type(g.y).dtype not in FLOATS:
        return [None]
    return [lambda: g.m.cast(g.dy, source)]


# steps and decisions: flat almost everywhere
CONSTANT |= {
    "round", "floor", "ceil", "trunc", "sign", "floor_divide", "eq", "ne", "lt", "le", "gt", "ge",
    "logical_and", "logical_or", "logical_xor", "logical_not", "bitwise_and", "bitwise_or",
    "bitwise_xor", "bitwise_not", "bitwise_left_shift", "bitwise_right_shift", "bitcast",
}  # fmt: skip
