"""Importers: one function per ATen operator, in terms of the registry's operators.

Names only: this module does not import torch. Arguments arrive resolved: tensors as sources, symbolic
integers as dimensions, dtypes as DType.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ree.compiler.frontend.aten.random import attention_with_dropout, score_scale
from ree.compiler.frontend.aten.reduce import matrix_product
from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall, Scalar, Value, aten
from ree.compiler.gradients import calls
from ree.compiler.ir import Ref
from ree.kernels.types import (
    Dim,
    DType,
    Sym,
    broadcast_shapes,
    product,
)

# pointwise


def _unary(op: str) -> Callable[..., Ref]:
    def f(m: Importer, x: Ref) -> Ref:
        return m.add(op, m.as_float(x))

    return f


for _name in ("exp", "log", "tanh", "erf", "sin", "cos", "sqrt", "rsqrt", "sigmoid", "silu", "exp2",
              "expm1", "log2", "log1p", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh",
              "atanh", "erfc", "erfinv", "lgamma", "digamma"):  # fmt: skip
    IMPORTERS[_name] = _unary(_name)


def _same_type_unary(op: str) -> Callable[..., Ref]:
    def f(m: Importer, x: Ref) -> Ref:
        return m.add(op, x)

    return f


@aten("relu")
def _relu(m: Importer, x: Ref) -> Ref:
    dtype = m.type(x).dtype
    return m.add("relu", x) if dtype is DType.F32 else m.add("maximum", x, m.scalar(0, dtype))


for _name in ("neg", "abs"):
    IMPORTERS[_name] = _same_type_unary(_name)


def _sum(m: Importer, x: Value, y: Value, alpha: Scalar, sign: int) -> Ref:
    """x + alpha * y or x - alpha * y; of floats rounded once unless alpha is 1."""
    (a, b), dtype = m.promote(x, y)
    if dtype is DType.BOOL:
        return m.add("logical_or", a, b) if alpha else a
    if alpha == 1:
        return m.add("add" if sign > 0 else "sub", a, b)
    factor = m.scalar(sign * alpha, dtype)
    return (
        m.add("fma", b, factor, a)
        if dtype is DType.F32
        else m.add("add", a, m.add("mul", b, factor))
    )


@aten("add.Tensor", "add.Scalar")
def _add(m: Importer, x: Ref, y: Value, *, alpha: Scalar = 1) -> Ref:
    if _is_zero(y) and m.type(x).dtype is DType.I64:
        return x
    return _sum(m, x, y, alpha, 1)


def _is_zero(y: Value) -> bool:
    return isinstance(y, int) and not isinstance(y, bool) and y == 0


@aten("sub.Tensor", "sub.Scalar")
def _sub(m: Importer, x: Ref, y: Value, *, alpha: Scalar = 1) -> Ref:
    return _sum(m, x, y, alpha, -1)


@aten("rsub.Scalar", "rsub.Tensor")
def _rsub(m: Importer, x: Ref, y: Value, alpha: Scalar = 1) -> Ref:
    return _sum(m, y, x, alpha, -1)


@aten("mul.Tensor", "mul.Scalar")
def _mul(m: Importer, x: Value, y: Value) -> Ref:
    (a, b), dtype = m.promote(x, y)
    return m.add("logical_and" if dtype is DType.BOOL else "mul", a, b)


@aten("div.Tensor", "div.Scalar")
def _div(m: Importer, x: Ref, y: Value) -> Ref:
    (a, b), _ = m.promote(x, y)
    return m.add("div", m.cast(a, DType.F32), m.cast(b, DType.F32))


@aten("reciprocal")
def _reciprocal(m: Importer, x: Ref) -> Ref:
    return m.add("div", m.scalar(1.0, DType.F32), m.as_float(x))


def _ordered(op: str) -> Callable[..., Ref]:
    """Order on numbers; false is below true."""

    def f(m: Importer, x: Ref, y: Value) -> Ref:
        (a, b), dtype = m.promote(x, y)
        if dtype is not DType.BOOL:
            return m.add(op, a, b)
        z = m.add(op, m.cast(a, DType.I64), m.cast(b, DType.I64))
        return m.cast(z, DType.BOOL)

    return f


for _name in ("maximum", "minimum"):
    IMPORTERS[_name] = _ordered(_name)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    IMPORTERS[f"{_name}.Tensor"] = IMPORTERS[f"{_name}.Scalar"] = _ordered(_name)


@aten("clamp", "clamp.Tensor", "clamp_min")
def _clamp(m: Importer, x: Ref, min: Value | None = None, max: Value | None = None) -> Ref:
    y = x
    if min is not None:
        y = IMPORTERS["maximum"](m, y, min)
    if max is not None:
        y = IMPORTERS["minimum"](m, y, max)
    if m.type(y).dtype is not DType.F32 or y == x or isinstance(min, Sym) or isinstance(max, Sym):
        return y  # integers, nothing to do, or a symbolic bound, which no training step has

    def bound(b: Ref | bool | int | float | None) -> Ref | float | None:
        return b if b is None else m.as_float(b) if isinstance(b, Ref) else float(b)

    x, low, high = m.as_float(x), bound(min), bound(max)
    tensors = tuple(b for b in (low, high) if isinstance(b, Ref))
    return m.rule(y, (x, *tensors), calls.clamp(low, high))


IMPORTERS["clamp_max"] = lambda m, x, max: _clamp(m, x, None, max)


def _logical(op: str) -> Callable[..., Ref]:
    def f(m: Importer, x: Ref, y: Value) -> Ref:
        (a, b), _ = m.promote(x, y)
        return m.add(op, m.cast(a, DType.BOOL), m.cast(b, DType.BOOL))

    return f


for _name in ("and", "or", "xor"):
    IMPORTERS[f"logical_{_name}"] = _logical(f"logical_{_name}")


@aten("logical_not")
def _logical_not(m: Importer, x: Ref) -> Ref:
    return m.add("logical_not", m.cast(x, DType.BOOL))


@aten("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def _where(m: Importer, c: Ref, x: Value, y: Value) -> Ref:
    (a, b), _ = m.promote(x, y)
    return m.add("where", m.cast(c, DType.BOOL), a, b)


@aten("masked_fill.Scalar", "masked_fill.Tensor")
def _masked_fill(m: Importer, x: Ref, mask: Ref, value: Value) -> Ref:
    dtype = m.type(x).dtype
    v = m.cast(value, dtype) if isinstance(value, Ref) else m.scalar(value, dtype)
    return m.add("where", mask, v, x)


@aten("gelu")
def _gelu(m: Importer, x: Ref, *, approximate: str = "none") -> Ref:
    return m.add("gelu_tanh" if approximate == "tanh" else "gelu", x)


@aten("softplus")
def _softplus(m: Importer, x: Ref, beta: Scalar = 1, threshold: Scalar = 20) -> Ref:
    # beyond its usual threshold torch returns x itself, which softplus rounds to there
    if beta == 1 and threshold >= 20:
        return m.add("softplus", x)
    slope = m.scalar(float(beta), DType.F32)
    steep = m.add("mul", x, slope)
    y = m.add("div", m.add("softplus", steep), slope)
    beyond = m.add("gt", steep, m.scalar(float(threshold), DType.F32))
    return m.add("where", beyond, x, y)


@aten("_to_copy", "to.dtype")
def _to_copy(m: Importer, x: Ref, dtype: DType | None = None, **ignored: Any) -> Ref:
    if dtype is None:
        return x
    return m.cast(x, dtype)


@aten("clone", "contiguous", "lift_fresh_copy")
def _identity(m: Importer, x: Ref, *args: Any, **kwargs: Any) -> Ref:
    return x


@aten("detach", "alias")  # an alias is what torch.export makes of detach
def _detach(m: Importer, x: Ref) -> Ref:
    return m.stop(m.view(x, m.type(x).shape))


# contractions


@aten("linear")
def _linear(m: Importer, x: Ref, w: Ref, bias: Ref | None = None) -> Ref:
    if m.type(x).dtype is DType.F32:
        y = m.add("linear", x, w)
    else:
        y = _matmul(m, x, m.transpose(w, 0, 1) if m.type(w).rank == 2 else w)
    return y if bias is None else m.add("add", y, bias)


@aten("matmul", "mm", "bmm")
def _matmul(m: Importer, a: Ref, b: Ref) -> Ref:
    ra, rb = m.type(a).rank, m.type(b).rank
    if ra == 1:
        a = m.view(a, (1, *m.type(a).shape))
    if rb == 1:
        b = m.view(b, (*m.type(b).shape, 1))
    y = matrix_product(m, a, b)
    shape = list(m.type(y).shape)
    if rb == 1:
        shape.pop()
    if ra == 1:
        shape.pop(-1 if rb == 1 else -2)
    return m.view(y, tuple(shape)) if 1 in (ra, rb) else y


@aten("_int_mm")
def _int_mm(m: Importer, a: Ref, b: Ref) -> Ref:
    return m.add("linear_i8", a, m.transpose(b, 0, 1))


@aten("scaled_dot_product_attention")
def _sdpa(
    m: Importer,
    q: Ref,
    k: Ref,
    v: Ref,
    mask: Ref | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Ref:
    if dropout_p:
        return attention_with_dropout(m, q, k, v, mask, dropout_p, is_causal, scale)
    t = m.type(q)
    rank = t.rank
    if rank < 3:
        raise RefusedCall(f"query of rank {rank}")
    width = t.shape[-1]
    if not isinstance(width, int):
        raise RefusedCall("a symbolic head dimension")
    s = np.float32(score_scale(width, scale))

    def four(x: Ref) -> Ref:
        shape = m.type(x).shape
        if len(shape) == 3:
            return m.view(x, (1, *shape))
        if len(shape) == 4:
            return x
        return m.view(x, (product(shape[:-3]), *shape[-3:]))

    # batches, and heads that are not grouped, are broadcast as in a product
    shapes = [m.type(x).shape for x in (q, k, v)]
    rank, end = max(map(len, shapes)), -3 if enable_gqa else -2
    shapes = [(*(1,) * (rank - len(s)), *s) for s in shapes]
    lead = broadcast_shapes(*(s[:end] for s in shapes))
    q, k, v = (
        m.view(x, s) if m.type(x).rank < rank else x for x, s in zip((q, k, v), shapes, strict=True)
    )
    q, k, v = (x if s[:end] == lead else m.add("expand", x, shape=(*lead, *s[end:]))
               for x, s in zip((q, k, v), shapes, strict=True))  # fmt: skip
    t = m.type(q)
    sources = [four(x) for x in (q, k, v)]
    if mask is not None:
        if m.type(mask).rank > 4:
            raise RefusedCall("a mask of rank over 4")
        sources.append(mask)
    y = m.add("attention", *sources, causal=bool(is_causal), scale=float(s), window=0, q_offset=0)
    out = (*t.shape[:-1], m.type(v).shape[-1])
    return y if rank == 4 else m.view(y, out)


# reductions, norms


@aten("mean.dim", "mean")
def _mean(m: Importer, x: Ref, dims: Any = (), keepdim: bool = False, *, dtype: Any = None) -> Ref:
    return m.reduce("mean", m.as_float(x), tuple(dims or ()), keepdim)


def _extreme(op: str) -> Callable[..., Ref]:
    def f(m: Importer, x: Ref, dims: Any = (), keepdim: bool = False) -> Ref:
        if m.type(x).dtype is DType.F32:
            return m.reduce(op, x, tuple(dims), keepdim)
        return m.reduce(lambda *a: IMPORTERS[f"{op[1:]}.dim"](m, *a)[0], x, tuple(dims), keepdim)

    return f


for _name in ("amax", "amin"):
    IMPORTERS[_name] = _extreme(_name)


@aten("cumsum")
def _cumsum(m: Importer, x: Ref, dim: int, *, dtype: DType | None = None) -> Ref:
    t = m.type(x)
    x = m.cast(x, dtype or (DType.I64 if t.dtype is DType.BOOL else t.dtype))
    axis = m.axis(dim, t.rank)
    return m.add("cumsum", x, dim=axis) if t.rank else x


@aten("softmax.int", "_softmax")
def _softmax(m: Importer, x: Ref, dim: int, dtype: Any = None) -> Ref:
    x = m.as_float(x)
    rank = m.type(x).rank
    if rank == 0:
        return m.view(m.add("softmax", m.view(x, (1,)), dim=0), ())
    axis = m.axis(dim, rank)
    last = rank - 1
    if axis == last:
        return m.add("softmax", x, dim=last)
    return m.transpose(m.add("softmax", m.transpose(x, axis, last), dim=last), axis, last)


def _normalised(m: Importer, x: Ref, shape: tuple[Dim, ...]) -> tuple[Ref, tuple[Dim, ...]]:
    """x with the normalised trailing axes merged into one, and x's own shape."""
    full = m.type(x).shape
    if full[len(full) - len(shape) :] != tuple(shape):
        raise RefusedCall(f"normalized_shape {shape} of {m.type(x)}")
    lead = full[: len(full) - len(shape)]
    return (x if len(shape) == 1 else m.view(x, (*lead, product(shape)))), full


@aten("layer_norm")
def _layer_norm(
    m: Importer, x: Ref, shape: Any, w: Ref | None = None, b: Ref | None = None, eps: float = 1e-5,
    cudnn: bool = True,
) -> Ref:  # fmt: skip
    y, full = _normalised(m, x, tuple(shape))
    n = product(tuple(shape))
    extra = [m.view(p, (n,)) for p in (w, b) if p is not None]
    y = m.add("layer_norm", y, *extra, eps=float(np.float32(eps)), weight=w is not None,
              bias=b is not None)  # fmt: skip
    return m.view(y, full)


@aten("rms_norm")
def _rms_norm(
    m: Importer, x: Ref, shape: Any, w: Ref | None = None, eps: float | None = None
) -> Ref:
    y, full = _normalised(m, x, tuple(shape))
    e = float(np.float32(np.finfo(np.float32).eps if eps is None else eps))
    extra = [] if w is None else [m.view(w, (product(tuple(shape)),))]
    return m.view(m.add("rms_norm", y, *extra, eps=e, weight=w is not None), full)
