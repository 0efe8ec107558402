"""Importers of distances between rows: cdist and pdist."""

from __future__ import annotations

import math

import numpy as np

from ree.compiler.frontend.aten.math import binary
from ree.compiler.frontend.importer import Importer, RefusedCall, aten
from ree.compiler.gradients import calls
from ree.compiler.ir import Ref
from ree.kernels.types import DType, broadcast_shapes

F32 = DType.F32
BY_PRODUCT, BY_DIFFERENCES = 1, 2  # torch's compute modes
MANY = 25  # rows beyond which torch takes the product


def _root(m: Importer, x: Ref) -> Ref:
    """The square root, with gradient 0 at 0."""
    zero = binary(m, "eq", x, 0.0)
    y = m.add("sqrt", m.add("where", zero, m.scalar(1.0, F32), x))
    return m.add("where", zero, m.scalar(0.0, F32), y)


def _power(m: Importer, x: Ref, p: float) -> Ref:
    """x^p of x >= 0, with gradient 0 at 0."""
    zero = binary(m, "eq", x, 0.0)
    y = binary(m, "pow", m.add("where", zero, m.scalar(1.0, F32), x), p)
    return m.add("where", zero, m.scalar(0.0, F32), y)


def _norm(m: Importer, d: Ref, p: float) -> Ref:
    """The p-norm over the last axis."""
    axis = m.type(d).rank - 1
    if m.type(d).shape[axis] == 0:
        return m.add("full", shape=m.type(d).shape[:axis], value=0.0, dtype=F32)
    if p == 0:
        return m.add("sum", m.cast(binary(m, "ne", d, 0.0), F32), dim=axis, keepdim=False)
    if p == 2:
        return _root(m, m.add("sum", m.add("mul", d, d), dim=axis, keepdim=False))
    size = m.add("abs", d)
    if p == 1:
        return m.add("sum", size, dim=axis, keepdim=False)
    if p == math.inf:
        return m.rule(m.add("amax", size, dim=axis, keepdim=False), (d,), calls.farthest)
    return _power(m, m.add("sum", _power(m, size, p), dim=axis, keepdim=False), 1 / p)


def _by_product(m: Importer, a: Ref, b: Ref) -> Ref:
    """sqrt(|a|^2 + |b|^2 - 2ab) as one product, of (-2a, |a|^2, 1) and (b, 1, |b|^2)."""
    axis = m.type(a).rank - 1

    def parts(x: Ref) -> tuple[Ref, Ref]:
        squares = m.add("sum", m.add("mul", x, x), dim=axis, keepdim=True)
        return squares, m.add("full", shape=m.type(squares).shape, value=1.0, dtype=F32)

    (aa, a1), (bb, b1) = parts(a), parts(b)
    left = m.add("cat", binary(m, "mul", a, -2.0), aa, a1, dim=axis)
    right = m.add("cat", b, b1, bb, dim=axis)
    return _root(
        m, binary(m, "maximum", m.add("matmul", left, m.transpose(right, axis - 1, axis)), 0.0)
    )


@aten("_cdist_forward")
def _cdist(m: Importer, a: Ref, b: Ref, p: float, mode: int | None = None) -> Ref:
    """As torch: for p = 2 the product beyond 25 rows, unless the mode forbids it; else differences."""
    (*lead_a, n, k), (*lead_b, r, _) = m.type(a).shape, m.type(b).shape
    if p == 2 and mode != BY_DIFFERENCES:
        many = not isinstance(n, int) or not isinstance(r, int) or n > MANY or r > MANY
        if (many or mode == BY_PRODUCT) and 0 not in (n, r, k):
            lead = broadcast_shapes(tuple(lead_a), tuple(lead_b))
            a, b = m.add("expand", a, shape=(*lead, n, k)), m.add("expand", b, shape=(*lead, r, k))
            return _by_product(m, a, b)
    left, right = m.view(a, (*lead_a, n, 1, k)), m.view(b, (*lead_b, 1, r, k))
    return _norm(m, m.add("sub", left, right), float(p))


@aten("_pdist_forward")
def _pdist(m: Importer, x: Ref, p: float = 2.0) -> Ref:
    n = m.type(x).shape[0]
    if not isinstance(n, int):
        raise RefusedCall("pdist of a symbolic number of rows")
    pairs = np.triu_indices(n, 1)
    if not len(pairs[0]):
        return m.add("full", shape=(0,), value=0.0, dtype=F32)
    left, right = (m.add("index", x, m.builder.const(v.astype(np.int64))) for v in pairs)
    return _norm(m, m.add("sub", left, right), float(p))
