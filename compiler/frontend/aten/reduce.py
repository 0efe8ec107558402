"""Importers of reductions, normalisation over channels, losses and products with an addend: each a composition
of the registry's operators, in the order given here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ree.compiler.frontend.importer import Importer, RefusedCall, Scalar, aten
from ree.compiler.gradients import calls
from ree.compiler.ir import Ref
from ree.kernels.types import Dim, DType, product

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL


# reductions


def _axes(m: Importer, x: Ref, dim: Any) -> tuple[int, ...]:
    if dim is None:
        return ()
    return (dim,) if isinstance(dim, int) else tuple(dim)


def sum_of(m: Importer, x: Ref, dims: tuple[int, ...], keepdim: bool) -> Ref:
    """A sum of f32 by the sum tree, of integers exactly, as the end of a running sum."""
    if m.type(x).dtype is F32:
        return m.reduce("sum", x, dims, keepdim)
    x = m.cast(x, I64)
    t = m.type(x)
    axes = sorted({m.axis(d, t.rank) for d in dims}) or list(range(t.rank))
    if t.rank == 0:
        return x
    kept = [i for i in range(t.rank) if i not in axes]
    n = product(t.shape[i] for i in axes)
    shape = tuple(t.shape[i] for i in kept)
    out = tuple(1 if i in axes else t.shape[i] for i in range(t.rank)) if keepdim else shape
    if n == 0:
        return m.add("full", shape=out, value=0, dtype=I64)
    merged = m.view(m.add("permute", x, dims=tuple(kept + axes)), (*shape, n))
    ends = m.add("cumsum", merged, dim=len(kept))
    return m.view(m.add("slice", ends, dim=len(kept), start=n - 1, stop=n, step=1), out)


@aten("sum.dim_IntList", "sum")
def _sum(m: Importer, x: Ref, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Ref:
    if dtype is not None:
        x = m.cast(x, dtype)
    return sum_of(m, x, _axes(m, x, dim), keepdim)


@aten("any", "any.dim", "any.dims")
def _any(m: Importer, x: Ref, dim: Any = None, keepdim: bool = False) -> Ref:
    return _truth(m, x, dim, keepdim, "amax", False)


@aten("all", "all.dim", "all.dims")
def _all(m: Importer, x: Ref, dim: Any = None, keepdim: bool = False) -> Ref:
    return _truth(m, x, dim, keepdim, "amin", True)


def _truth(m: Importer, x: Ref, dim: Any, keepdim: bool, op: str, empty: bool) -> Ref:
    t = m.type(x)
    dims = _axes(m, x, dim)
    truth = m.as_float(m.cast(x, BOOL))
    axes = ({m.axis(d, t.rank) for d in dims} or set(range(t.rank))) if t.rank else set()
    if product(t.shape[i] for i in axes) == 0:
        kept = tuple(
            1 if i in axes else d for i, d in enumerate(t.shape) if keepdim or i not in axes
        )
        return m.add("full", shape=kept, value=empty, dtype=BOOL)
    return m.cast(m.reduce(op, truth, dims, keepdim), BOOL)


@aten("prod", "prod.dim_int")
def _prod(
    m: Importer, x: Ref, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Ref:
    """Pairs from the two halves of the axis, again and again; an odd last element waits."""
    if dtype is BOOL:
        return m.cast(_prod(m, m.cast(x, BOOL), dim, keepdim), BOOL)
    x = m.cast(x, dtype or (F32 if m.type(x).dtype is F32 else I64))
    if dim is None:
        x, dim, keepdim = m.view(x, (product(m.type(x).shape),)), 0, False
    t = m.type(x)
    if t.rank == 0:
        return x
    axis = m.axis(dim, t.rank)
    n = t.shape[axis]
    if not isinstance(n, int):
        raise RefusedCall("a product over a symbolic axis")
    if n == 0:
        x, n = m.add("full", shape=(*t.shape[:axis], 1, *t.shape[axis + 1 :]), value=1 if t.dtype is I64
                     else 1.0, dtype=t.dtype), 1  # fmt: skip
    while n > 1:
        half = n // 2
        parts = [
            m.add("slice", x, dim=axis, start=i * half, stop=(i + 1) * half, step=1)
            for i in range(2)
        ]
        y = m.add("mul", *parts)
        if n % 2:
            y = m.add("cat", y, m.add("slice", x, dim=axis, start=n - 1, stop=n, step=1), dim=axis)
        x, n = y, half + n % 2
    return x if keepdim else m.view(x, (*t.shape[:axis], *t.shape[axis + 1 :]))


def _variance(
    m: Importer, x: Ref, dim: Any, correction: Scalar | None, keepdim: bool
) -> tuple[Ref, Ref]:
    """(variance, mean): mean, squares of the differences, their sum, one division by n - correction."""
    if m.type(x).rank == 0:
        x, dim, keepdim = m.view(x, (1,)), 0, False
    t = m.type(x)
    axes = sorted({m.axis(d, t.rank) for d in _axes(m, x, dim)}) or list(range(t.rank))
    n = product(t.shape[i] for i in axes)
    if not isinstance(n, int):
        raise RefusedCall("a variance over a symbolic axis")
    mean = m.reduce("mean", x, tuple(axes), True)
    d = m.add("sub", x, mean)
    total = m.reduce("sum", m.add("mul", d, d), tuple(axes), keepdim)
    c = 1 if correction is None else correction
    var = m.add("div", total, m.scalar(max(float(n - c), 0.0), F32))
    if not keepdim:
        mean = m.view(mean, m.type(var).shape)
    return var, mean


@aten("var.correction", "var.dim")
def _var(m: Importer, x: Ref, dim: Any = None, *args: Any, correction: Any = None, keepdim: bool = False,
         unbiased: bool = True) -> Ref:  # fmt: skip
    if args:
        correction, keepdim = int(args[0]), bool(args[1]) if len(args) > 1 else keepdim
    return _variance(m, x, dim, correction, keepdim)[0]


@aten("std.correction")
def _std(
    m: Importer, x: Ref, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> Ref:
    var = _variance(m, x, dim, correction, keepdim)[0]
    return m.rule(m.add("sqrt", var), (var,), calls.DEVIATION)


@aten("std_mean.correction")
def _std_mean(
    m: Importer, x: Ref, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[Ref, Ref]:
    var, mean = _variance(m, x, dim, correction, keepdim)
    return m.rule(m.add("sqrt", var), (var,), calls.DEVIATION), mean


@aten("var_mean.correction")
def _var_mean(
    m: Importer, x: Ref, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[Ref, Ref]:
    return _variance(m, x, dim, correction, keepdim)


@aten("linalg_vector_norm")
def _vector_norm(m: Importer, x: Ref, ord: Scalar = 2, dim: Any = None, keepdim: bool = False, *,
                 dtype: Any = None) -> Ref:  # fmt: skip
    """By the magnitudes: their squares' root, sum, extreme, count of others than 0, or power."""
    y = _norm(m, x, ord, _axes(m, x, dim), keepdim)
    if not all(isinstance(d, int) for d in m.type(x).shape):
        return y  # no training step has symbols
    rank = m.type(x).rank
    axes = tuple(sorted({m.axis(d, rank) for d in _axes(m, x, dim)})) or tuple(range(rank))
    return m.rule(y, (x,), calls.norm(float(ord), axes))


def _norm(m: Importer, x: Ref, ord: Scalar, dims: tuple[int, ...], keepdim: bool) -> Ref:
    a = m.add("abs", x)
    if ord == 2:
        return m.add("sqrt", m.reduce("sum", m.add("mul", x, x), dims, keepdim))
    if ord == 1:
        return m.reduce("sum", a, dims, keepdim)
    if ord in (math.inf, -math.inf):
        return m.reduce("amax" if ord > 0 else "amin", a, dims, keepdim)
    if ord == 0:
        return m.reduce("sum", m.cast(m.add("ne", x, m.scalar(0.0, F32)), F32), dims, keepdim)
    powers = m.reduce("sum", m.add("pow", a, m.scalar(float(ord), F32)), dims, keepdim)
    return m.add("pow", powers, m.scalar(1 / ord, F32))


# log-sum-exp, losses


def _shifted(m: Importer, x: Ref, dims: tuple[int, ...]) -> tuple[Ref, Ref]:
    """(x minus its greatest element, 0 where that is infinite; that element), axes kept."""
    top = m.reduce("amax", x, dims, True)
    infinite = m.add("eq", m.add("abs", top), m.scalar(math.inf, F32))
    top = m.stop(
        m.add("where", infinite, m.scalar(0.0, F32), top)
    )  # what it adds is taken off again
    return m.add("sub", x, top), top


@aten("logsumexp")
def _logsumexp(m: Importer, x: Ref, dim: Any, keepdim: bool = False) -> Ref:
    dims = _axes(m, x, dim)
    x = m.as_float(x)
    if any(m.type(x).shape[d] == 0 for d in dims or range(m.type(x).rank)):  # there is no maximum
        return m.add("log", m.reduce("sum", m.add("exp", x), dims, keepdim))
    shifted, top = _shifted(m, x, dims)
    y = m.add("log", m.reduce("sum", m.add("exp", shifted), dims, keepdim))
    y = m.add("add", y, m.view(top, m.type(y).shape))
    rank = m.type(x).rank
    axes = tuple(sorted({m.axis(d, rank) for d in dims})) or tuple(range(rank))
    return m.rule(y, (x,), calls.log_sum_exp(axes))


@aten("log_softmax.int", "_log_softmax")
def _log_softmax(m: Importer, x: Ref, dim: int, dtype: Any = None) -> Ref:
    """(x - max) - log(sum(exp(x - max)))."""
    x = m.as_float(x)
    if m.type(x).rank == 0:
        return m.add("sub", x, x)
    if 0 in m.type(x).shape:
        return x
    top = m.stop(m.reduce("amax", x, (dim,), True))  # of an infinity, inf - inf makes the row NaN
    shifted = m.add("sub", x, top)
    return m.add("sub", shifted, m.add("log", m.reduce("sum", m.add("exp", shifted), (dim,), True)))


@aten("nll_loss_forward")
def _nll_loss(m: Importer, x: Ref, target: Ref, weight: Ref | None = None, reduction: int = 1,
              ignore: int = -100) -> tuple[Ref, Ref]:  # fmt: skip
    """(loss, total weight): the weighted, negated entries; summed, then divided once by the weights."""
    rank = m.type(x).rank
    valid = m.add("ne", target, m.scalar(ignore, I64))
    safe = m.add("where", valid, target, m.scalar(0, I64))
    at = m.view(safe, (*m.type(safe).shape, 1))
    picked = m.view(m.add("gather", x, at, dim=rank - 1), m.type(target).shape)
    w = m.cast(valid, F32)
    if weight is not None:
        w = m.add("mul", m.add("index", weight, safe), w)
    each = m.add("neg", m.add("mul", picked, w))
    # an ignored target counts nothing, even where its entry is infinite
    each = m.add("where", valid, each, m.scalar(0.0, F32))
    total = w if not m.type(w).shape else m.reduce("sum", w, (), False)
    if reduction == 0:
        return each, m.scalar(0.0, F32)
    loss = each if not m.type(each).shape else m.reduce("sum", each, (), False)
    return (m.add("div", loss, total) if reduction == 1 else loss), total


@aten("binary_cross_entropy")
def _binary_cross_entropy(
    m: Importer, x: Ref, target: Ref, weight: Ref | None = None, reduction: int = 1
) -> Ref:
    """(t - 1) * max(log1p(-x), -100) - t * max(log(x), -100), weighted, then mean or sum."""
    floor = m.scalar(-100.0, F32)
    no = m.add("maximum", m.add("log1p", m.add("neg", x)), floor)
    yes = m.add("maximum", m.add("log", x), floor)
    first = m.add("mul", m.add("sub", target, m.scalar(1.0, F32)), no)
    each = m.add("sub", first, m.add("mul", target, yes))
    each = m.rule(each, (x, target), calls.BINARY_CROSS_ENTROPY)
    if weight is not None:
        each = m.add("mul", each, weight)
    return (
        each if reduction == 0 else m.reduce("mean" if reduction == 1 else "sum", each, (), False)
    )


# norms over channels


def _channel(m: Importer, p: Ref, rank: int) -> Ref:
    """A vector over axis 1 of tensors of `rank`."""
    return m.view(p, (1, m.type(p).shape[0], *(1,) * (rank - 2)))


@aten("_native_batch_norm_legit_no_training")
def _batch_norm(m: Importer, x: Ref, w: Ref | None, b: Ref | None, mean: Ref, var: Ref, momentum: float,
                eps: float) -> tuple[Any, ...]:  # fmt: skip
    """x * (w / sqrt(var + eps)) + (b - mean * (w / sqrt(var + eps)))."""
    rank = m.type(x).rank
    scale = m.add("rsqrt", m.add("add", var, m.scalar(eps, F32)))
    if w is not None:
        scale = m.add("mul", scale, w)
    shift = m.add("neg", m.add("mul", mean, scale))
    if b is not None:
        shift = m.add("add", shift, b)
    y = m.add("add", m.add("mul", x, _channel(m, scale, rank)), _channel(m, shift, rank))
    empty = m.add("full", shape=(0,), value=0.0, dtype=F32)
    return y, empty, empty


def _normalised(m: Importer, x: Ref, w: Ref | None, b: Ref | None, eps: float) -> tuple[Ref, ...]:
    """(y, mean, 1 / deviation, variance) by the statistics of x itself. Sums run over the pixels of an
    image, then over images."""
    shape = m.type(x).dims
    count = math.prod(shape) // shape[1]
    if count < 2:
        raise RefusedCall(f"batch norm in training over {count} value(s) a channel")

    def average(v: Ref) -> Ref:
        v = m.view(v, (*shape[:2], math.prod(shape[2:])))
        total = m.add("sum", m.add("sum", v, dim=2, keepdim=False), dim=0, keepdim=False)
        return m.add("div", total, m.scalar(float(count), F32))

    mean = average(x)
    d = m.add("sub", x, _channel(m, mean, len(shape)))
    spread = average(m.add("mul", d, d))
    r = m.add("rsqrt", m.add("add", spread, m.scalar(eps, F32)))
    y = m.add("mul", d, _channel(m, r, len(shape)))
    if w is not None:
        y = m.add("mul", y, _channel(m, w, len(shape)))
    if b is not None:
        y = m.add("add", y, _channel(m, b, len(shape)))
    return y, mean, r, spread


@aten("_native_batch_norm_legit.no_stats")
def _batch_norm_bare(
    m: Importer, x: Ref, w: Ref | None, b: Ref | None, training: bool, momentum: float, eps: float
) -> tuple[Ref, ...]:
    return _normalised(m, x, w, b, eps)[:3]


@aten("_native_batch_norm_legit_functional")
def _batch_norm_step(
    m: Importer, x: Ref, w: Ref | None, b: Ref | None, mean: Ref, var: Ref, training: bool, momentum: float,
    eps: float,
) -> tuple[Any, ...]:  # fmt: skip
    """(y, mean, 1 / deviation, new running mean, new running variance); the running variance takes the
    unbiased one."""
    if not training:
        return (*_batch_norm(m, x, w, b, mean, var, momentum, eps), mean, var)
    y, own, r, spread = _normalised(m, x, w, b, eps)
    shape = m.type(x).dims
    count = math.prod(shape) // shape[1]
    unbiased = m.add("mul", spread, m.scalar(count / (count - 1), F32))

    def blend(old: Ref, new: Ref) -> Ref:
        kept = m.add("mul", old, m.scalar(1 - momentum, F32))
        return m.add("add", kept, m.add("mul", new, m.scalar(momentum, F32)))

    return y, own, r, blend(mean, own), blend(var, unbiased)


@aten("group_norm")
def _group_norm(m: Importer, x: Ref, groups: int, w: Ref | None = None, b: Ref | None = None,
                eps: float = 1e-5, cudnn: bool = True) -> Ref:  # fmt: skip
    """A layer norm of each group, then the channels' weight and bias."""
    shape: tuple[Dim, ...] = m.type(x).shape
    inner = product(shape[1:])
    each = inner // groups if isinstance(inner, int) else None
    if each is None:
        raise RefusedCall("group_norm over symbolic axes")
    y = m.view(x, (shape[0], groups, each))
    y = m.add("layer_norm", y, eps=float(np.float32(eps)), weight=False, bias=False)
    y = m.view(y, shape)
    if w is not None:
        y = m.add("mul", y, _channel(m, w, len(shape)))
    return y if b is None else m.add("add", y, _channel(m, b, len(shape)))


# matrices


def matrix_product(m: Importer, a: Ref, b: Ref) -> Ref:
    """matmul of f32; of integers the sum of products, exact modulo 2^64 and so in any order."""
    if m.type(a).dtype is F32:
        return m.add("matmul", a, b)
    (*lead_a, n, k), b = m.type(a).shape, m.transpose(b, m.type(b).rank - 2, m.type(b).rank - 1)
    *lead_b, p, _ = m.type(b).shape
    left, right = (
        m.view(m.cast(a, I64), (*lead_a, n, 1, k)),
        m.view(m.cast(b, I64), (*lead_b, 1, p, k)),
    )
    return sum_of(m, m.add("mul", left, right), (-1,), False)


@aten("addmm", "baddbmm")
def _addmm(m: Importer, c: Ref, a: Ref, b: Ref, *, beta: Scalar = 1, alpha: Scalar = 1) -> Ref:
    return _with_addend(m, matrix_product(m, a, b), c, beta, alpha)


def _with_addend(m: Importer, y: Ref, c: Ref, beta: Scalar, alpha: Scalar) -> Ref:
    """alpha * y + beta * c; c is not read where beta is 0."""
    dtype = m.type(y).dtype
    if alpha != 1:
        y = m.add("mul", y, m.scalar(alpha, dtype))
    if beta == 0:
        return y
    return m.add("add", y, c if beta == 1 else m.add("mul", c, m.scalar(beta, dtype)))


@aten("addbmm")
def _addbmm(m: Importer, c: Ref, a: Ref, b: Ref, *, beta: Scalar = 1, alpha: Scalar = 1) -> Ref:
    """The sum of a batch of products as one product, over batch and inner axis."""
    (batch, n, k), p = m.type(a).shape, m.type(b).shape[-1]
    wide = m.view(m.add("permute", a, dims=(1, 0, 2)), (n, batch * k))
    y = matrix_product(m, wide, m.view(b, (batch * k, p)))
    return _with_addend(m, y, c, beta, alpha)


@aten("addmv")
def _addmv(m: Importer, c: Ref, a: Ref, b: Ref, *, beta: Scalar = 1, alpha: Scalar = 1) -> Ref:
    y = matrix_product(m, a, m.view(b, (*m.type(b).shape, 1)))
    return _with_addend(m, m.view(y, m.type(y).shape[:-1]), c, beta, alpha)
