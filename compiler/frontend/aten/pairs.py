"""Complex numbers: each is a pair of float32, its real and its imaginary part, in the arithmetic given here.

A real operand beside a complex one is a pair with imaginary part +0, as in torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall
from ree.compiler.ir import Ref
from ree.kernels.types import DType, TensorType, broadcast_shapes

F32 = DType.F32
COMPLEX64 = "complex64"  # the dtype argument of a call


class Pair(NamedTuple):
    """A complex value's real and imaginary parts, of one shape."""

    real: Ref
    imag: Ref


PAIRED: dict[str, Callable[..., Any]] = {}  # importers of calls with complex values, by ATen name


def paired(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register an importer of complex calls under one or more ATen names."""

    def wrap(f: Callable[..., Any]) -> Callable[..., Any]:
        PAIRED.update(dict.fromkeys(names, f))
        return f

    return wrap


def has_pair(*args: Any) -> bool:
    """Whether a complex value, number or type is among the arguments."""
    return any(
        isinstance(a, Pair | complex) or a is COMPLEX64 or (isinstance(a, tuple) and has_pair(*a))
        for a in args
    )


def as_pair(m: Importer, x: Any) -> Pair:
    """x, a tensor or a number, as a complex value."""
    if isinstance(x, Pair):
        return x
    if isinstance(x, Ref):
        x = m.as_float(x)
        return Pair(x, m.zeros(m.type(x)))
    z = complex(x)
    return Pair(m.scalar(z.real, F32), m.scalar(z.imag, F32))


# what moves elements moves both parts


def _each(name: str) -> Callable[..., Any]:
    def f(m: Importer, *args: Any, **kwargs: Any) -> Any:
        if kwargs.pop("dtype", COMPLEX64) is not COMPLEX64:
            raise RefusedCall("complex numbers as another type")

        def part(i: int, a: Any) -> Any:
            if isinstance(a, Pair):
                return a[i]
            return tuple(part(i, x) for x in a) if isinstance(a, tuple) else a

        real, imag = (IMPORTERS[name](m, *(part(i, a) for a in args), **kwargs) for i in (0, 1))
        return tuple(map(Pair, real, imag)) if isinstance(real, tuple) else Pair(real, imag)

    return f


for _name in (
    "view", "reshape", "_unsafe_view", "permute", "transpose.int", "t", "expand", "unsqueeze", "squeeze.dim",
    "squeeze.dims", "squeeze", "slice.Tensor", "select.int", "split_with_sizes", "split.Tensor", "chunk",
    "repeat", "clone", "alias", "detach", "contiguous", "lift_fresh_copy", "embedding", "index.Tensor",
    "gather", "unfold", "flip", "roll", "tril", "triu", "diagonal", "neg", "sum.dim_IntList", "sum", "mean.dim",
    "mean", "cumsum", "zeros_like", "new_zeros", "index_select",
):  # fmt: skip
    PAIRED[_name] = _each(_name)


@paired("getitem", "<built-in function getitem>")
def _getitem(m: Importer, x: tuple[Pair, ...], i: int) -> Pair:
    return x[i]


def _joins(name: str) -> Callable[..., Any]:
    each = _each(name)
    return lambda m, xs, dim=0: each(m, tuple(as_pair(m, x) for x in xs), dim)


for _name in ("cat", "stack"):
    PAIRED[_name] = _joins(_name)


@paired("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def _where(m: Importer, c: Ref, x: Any, y: Any) -> Any:
    return _each("where.self")(m, c, as_pair(m, x), as_pair(m, y))


@paired("masked_fill.Scalar", "masked_fill.Tensor")
def _masked_fill(m: Importer, x: Pair, mask: Ref, value: Any) -> Any:
    return _where(m, mask, value, x)


@paired("constant_pad_nd", "pad")
def _pad(m: Importer, x: Pair, pad: Any, *how: Any) -> Any:
    value = how[-1] if how and not isinstance(how[-1], str) else None
    mode = how[0] if how and isinstance(how[0], str) else "constant"
    if mode != "constant":
        return _each("pad")(m, x, pad, mode)
    z = complex(value or 0)
    pads = IMPORTERS["constant_pad_nd"]
    return Pair(pads(m, x.real, pad, z.real), pads(m, x.imag, pad, z.imag))


def _writes(name: str, source: int) -> Callable[..., Any]:
    def f(m: Importer, *args: Any, **kwargs: Any) -> Any:
        both = list(args)
        both[0], both[source] = as_pair(m, args[0]), as_pair(m, args[source])
        return _each(name)(m, *both, **kwargs)

    return f


for _name, _source in (("select_scatter", 1), ("slice_scatter", 1), ("index_put", 2), ("copy", 1),
                       ("scatter.src", 3), ("index_add", 3), ("index_copy", 3)):  # fmt: skip
    PAIRED[_name] = _writes(_name, _source)


@paired("full", "full_like")
def _full(m: Importer, like: Any, value: Any, **how: Any) -> Pair:
    shape = like if not isinstance(like, Ref | Pair) else m.type(
        like if isinstance(like, Ref) else like.real).shape  # fmt: skip
    z = complex(value)
    return Pair(*(m.add("full", shape=tuple(shape), value=v, dtype=F32) for v in (z.real, z.imag)))


@paired("scalar_tensor")
def _scalar_tensor(m: Importer, value: Any, **how: Any) -> Pair:
    return as_pair(m, value)


# to and from real numbers


@paired("complex")
def _complex(m: Importer, real: Ref, imag: Ref) -> Pair:
    parts, _ = m.promote(real, imag)
    shape = broadcast_shapes(*(m.type(p).shape for p in parts))
    return Pair(
        *(p if m.type(p).shape == shape else m.add("expand", p, shape=shape) for p in parts)
    )


@paired("polar")
def _polar(m: Importer, size: Ref, angle: Ref) -> Pair:
    return Pair(m.add("mul", size, m.add("cos", angle)), m.add("mul", size, m.add("sin", angle)))


@paired("view_as_complex")
def view_as_complex(m: Importer, x: Ref) -> Pair:
    """The last axis, of two elements, as real and imaginary parts."""
    axis = m.type(x).rank - 1
    if m.type(x).dtype is not F32:
        raise RefusedCall(f"complex numbers of {m.type(x).dtype.text}")
    return Pair(*(IMPORTERS["select.int"](m, x, axis, i) for i in (0, 1)))


@paired("view_as_real")
def _view_as_real(m: Importer, z: Pair) -> Ref:
    return IMPORTERS["stack"](m, tuple(z), -1)  # type: ignore[no-any-return]


PAIRED["real"] = lambda m, z: z.real
PAIRED["imag"] = lambda m, z: z.imag


@paired("_to_copy", "to.dtype")
def _to_copy(m: Importer, x: Any, *, dtype: Any = COMPLEX64, **how: Any) -> Pair:
    if dtype is not COMPLEX64:
        raise RefusedCall("complex numbers as another type")
    return as_pair(m, x)


@paired("_conj", "conj", "conj_physical", "_conj_physical")
def _conj(m: Importer, z: Pair) -> Pair:
    return Pair(z.real, m.add("neg", z.imag))


@paired("resolve_conj", "resolve_neg")
def _as_it_is(m: Importer, z: Pair) -> Pair:
    return z


@paired("abs")
def magnitude(m: Importer, z: Pair) -> Ref:
    """hypot of the parts; its gradient at 0 is 0, as torch has it for complex numbers."""

    def slopes(g: Any) -> list[Callable[[], Ref]]:
        def part(x: Ref) -> Ref:
            ratio = g.op("div", x, g.y)
            return g.mul(g.dy, g.op("where", g.op("eq", g.y, 0.0), 0.0, ratio))  # type: ignore[no-any-return]

        return [lambda: part(z.real), lambda: part(z.imag)]

    return m.rule(m.add("hypot", z.real, z.imag), tuple(z), slopes)


@paired("angle")
def _angle(m: Importer, z: Pair | Ref) -> Ref:
    """Of a real number 0 or pi; NaN of NaN."""
    if isinstance(z, Ref):
        x = m.as_float(z)
        flat = m.add(
            "where", m.add("lt", x, m.scalar(0.0, F32)), m.scalar(math.pi, F32), m.scalar(0.0, F32)
        )
        return m.stop(m.add("where", m.add("ne", x, x), x, flat))
    return IMPORTERS["atan2"](m, z.imag, z.real)  # type: ignore[no-any-return]


# arithmetic


def _componentwise(op: str) -> Callable[..., Any]:
    def f(m: Importer, x: Any, y: Any, *, alpha: Any = 1) -> Pair:
        a, b = as_pair(m, x), as_pair(m, y)
        b = b if alpha == 1 else _mul(m, b, alpha)
        return Pair(m.add(op, a.real, b.real), m.add(op, a.imag, b.imag))

    return f


for _op in ("add", "sub"):
    PAIRED[f"{_op}.Tensor"] = PAIRED[f"{_op}.Scalar"] = _componentwise(_op)
PAIRED["rsub.Scalar"] = PAIRED["rsub.Tensor"] = lambda m, x, y, alpha=1: _componentwise("sub")(
    m, y, x, alpha=alpha
)


@paired("mul.Tensor", "mul.Scalar")
def _mul(m: Importer, x: Any, y: Any) -> Pair:
    """(a + bi)(c + di): ac - bd and ad + bc, every operation rounded."""
    (a, b), (c, d) = as_pair(m, x), as_pair(m, y)
    return Pair(m.add("sub", m.add("mul", a, c), m.add("mul", b, d)),
                m.add("add", m.add("mul", a, d), m.add("mul", b, c)))  # fmt: skip


@paired("div.Tensor", "div.Scalar")
def _div(m: Importer, x: Any, y: Any) -> Pair:
    """Both operands divided by the divisor's larger part, then x * conj(y) / |y|^2."""
    z, w = as_pair(m, x), as_pair(m, y)
    size = m.add("maximum", m.add("abs", w.real), m.add("abs", w.imag))
    (a, b), (c, d) = ((m.add("div", p, size) for p in v) for v in (z, w))
    square = m.add("add", m.add("mul", c, c), m.add("mul", d, d))
    real = m.add("add", m.add("mul", a, c), m.add("mul", b, d))
    imag = m.add("sub", m.add("mul", b, c), m.add("mul", a, d))
    return Pair(m.add("div", real, square), m.add("div", imag, square))


PAIRED["reciprocal"] = lambda m, z: _div(m, 1, z)
PAIRED["square"] = lambda m, z: _mul(m, z, z)


@paired("pow.Tensor_Scalar")
def _pow(m: Importer, z: Pair, e: Any) -> Pair:
    """By squares, from the highest bit."""
    if not isinstance(e, int | float) or e != int(e) or not 1 <= e <= 8:
        raise RefusedCall("a power of complex numbers that is not a constant from 1 to 8")
    y = z
    for bit in bin(int(e))[3:]:
        y = _mul(m, y, y)
        if bit == "1":
            y = _mul(m, y, z)
    return y


@paired("exp")
def _exp(m: Importer, z: Pair) -> Pair:
    return _polar(m, m.add("exp", z.real), z.imag)  # type: ignore[no-any-return]


@paired("log")
def _log(m: Importer, z: Pair) -> Pair:
    return Pair(m.add("log", magnitude(m, z)), _angle(m, z))


@paired("eq.Tensor", "eq.Scalar")
def _eq(m: Importer, x: Any, y: Any) -> Ref:
    return m.add("logical_and", *_compared(m, "eq", x, y))


@paired("ne.Tensor", "ne.Scalar")
def _ne(m: Importer, x: Any, y: Any) -> Ref:
    return m.add("logical_or", *_compared(m, "ne", x, y))


def _compared(m: Importer, op: str, x: Any, y: Any) -> list[Ref]:
    return [m.add(op, a, b) for a, b in zip(as_pair(m, x), as_pair(m, y), strict=True)]


# contractions


@paired("matmul", "mm", "bmm")
def _matmul(m: Importer, x: Any, y: Any) -> Pair:
    """Four real products; the differences and sums of their elements are rounded once more."""
    return _product(m, IMPORTERS["matmul"], x, y)


@paired("linear")
def _linear(m: Importer, x: Any, w: Any, bias: Any = None) -> Pair:
    y = _product(m, IMPORTERS["linear"], x, w)
    return y if bias is None else PAIRED["add.Tensor"](m, y, bias)


def _product(m: Importer, f: Callable[..., Ref], x: Any, y: Any) -> Pair:
    (a, b), (c, d) = as_pair(m, x), as_pair(m, y)
    return Pair(m.add("sub", f(m, a, c), f(m, b, d)), m.add("add", f(m, a, d), f(m, b, c)))


@paired("linalg_vector_norm")
def _norm(m: Importer, z: Pair, *how: Any, **named: Any) -> Ref:
    return IMPORTERS["linalg_vector_norm"](m, magnitude(m, z), *how, **named)  # type: ignore[no-any-return]


def zeros(m: Importer, shape: tuple[Any, ...]) -> Pair:
    """What stands for a refused result."""
    return Pair(*(m.zeros(TensorType(F32, shape)) for _ in range(2)))
