"""Importers of calls that are each a few operators: bilinear maps, distances, windows, triangles' indices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ree.compiler.frontend.aten.math import binary
from ree.compiler.frontend.aten.reduce import matrix_product, sum_of
from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall, Scalar, aten
from ree.compiler.ir import Ref
from ree.kernels.types import DType, broadcast_shapes, product

F32, I64, BOOL = DType.F32, DType.I64, DType.BOOL
MAX_INDICES = 1 << 20  # of a triangle; they are a constant of the program


@aten("signbit")
def _signbit(m: Importer, x: Ref) -> Ref:
    """Whether x is below 0, or is -0. A NaN has no sign."""
    if m.type(x).dtype is not F32:
        return binary(m, "lt", x, 0)
    return binary(m, "lt", m.add("copysign", m.scalar(1.0, F32), x), 0.0)


@aten("angle")
def _angle(m: Importer, x: Ref) -> Ref:
    """Pi below 0, else 0; NaN of NaN. It does not vary with x."""
    x = m.as_float(x)
    y = m.add("where", binary(m, "lt", x, 0.0), m.scalar(math.pi, F32), m.scalar(0.0, F32))
    return m.stop(m.add("where", m.add("ne", x, x), m.scalar(math.nan, F32), y))


@aten("ldexp.Tensor")
def _ldexp(m: Importer, x: Ref, e: Ref) -> Ref:
    """x * 2^e, the power computed first, in e's type."""
    return m.add("mul", m.as_float(x), m.rounded(m.add("exp2", m.as_float(e)), m.half(e)))


@aten("dist")
def _dist(m: Importer, x: Ref, y: Ref, p: Scalar = 2) -> Ref:
    """The p-norm of x - y."""
    return IMPORTERS["linalg_vector_norm"](  # type: ignore[no-any-return]
        m, m.add("sub", m.as_float(x), m.as_float(y)), p
    )


@aten("rrelu_with_noise_functional")
def _rrelu(
    m: Importer, x: Ref, noise: Ref, lower: Scalar = 1 / 8, upper: Scalar = 1 / 3,
    training: bool = False, generator: None = None,
) -> tuple[Ref, Ref]:  # fmt: skip
    """In evaluation: leaky_relu with the slopes' mean."""
    if training:
        raise RefusedCall("rrelu with slopes drawn at random; evaluation mode takes their mean")
    return IMPORTERS["leaky_relu"](m, x, (lower + upper) / 2), noise


@aten("_trilinear")
def _trilinear(
    m: Importer, x: Ref, w: Ref, y: Ref, across_x: Sequence[int], across_w: Sequence[int],
    across_y: Sequence[int], summed: Sequence[int], unroll: int = 1,
) -> Ref:  # fmt: skip
    """y[n, o] = sum over i and j of x[n, i] w[o, i, j] y[n, j]: over i as a product, then over j."""
    if [list(v) for v in (across_x, across_w, across_y, summed)] != [[1, 3], [0], [1, 2], [2, 3]]:
        raise RefusedCall("a trilinear form other than that of torch.nn.functional.bilinear")
    (n, i), (o, _, j) = m.type(x).shape, m.type(w).shape
    columns = m.view(m.add("permute", w, dims=(1, 0, 2)), (i, o * j))
    part = m.view(matrix_product(m, x, columns), (n, o, j))
    return sum_of(m, m.add("mul", part, m.view(y, (n, 1, j))), (2,), False)


def _triangle(places: Callable[..., Any]) -> Callable[..., Ref]:
    def f(
        m: Importer, row: int, col: int, offset: int = 0, *, dtype: DType | None = None,
        **ignored: Any,
    ) -> Ref:  # fmt: skip
        if row * col > MAX_INDICES:
            raise RefusedCall(f"the triangle of {row} by {col}: more than {MAX_INDICES} places")
        at = np.stack(places(row, offset, col)).astype(np.int64)
        return m.cast(m.builder.const(at), dtype or I64)

    return f


IMPORTERS["triu_indices"] = _triangle(np.triu_indices)
IMPORTERS["tril_indices"] = _triangle(np.tril_indices)


# writes at places of the whole tensor


@aten("put")
def _put(m: Importer, x: Ref, index: Ref, source: Ref, accumulate: bool = False) -> Ref:
    shape = m.type(x).shape
    flat, index = m.view(x, (product(shape),)), m.view(index, (product(m.type(index).shape),))
    source = m.view(source, m.type(index).shape)
    return m.view(IMPORTERS["index_put"](m, flat, (index,), source, accumulate), shape)


@aten("masked_scatter")
def _masked_scatter(m: Importer, x: Ref, mask: Ref, source: Ref) -> Ref:
    """Where the mask holds, the source's elements in order; too few of them are an index out of bounds."""
    shape = broadcast_shapes(m.type(x).shape, m.type(mask).shape)
    mask = m.view(m.add("expand", mask, shape=shape), (product(shape),))
    x = m.add("expand", x, shape=shape)
    count = m.add("cumsum", m.cast(mask, I64), dim=0)
    one = m.scalar(1, I64)
    at = m.add("where", mask, m.add("sub", count, one), m.scalar(0, I64))
    source = m.view(source, (product(m.type(source).shape),))
    taken = IMPORTERS["index_select"](m, source, 0, at)
    return m.view(m.add("where", mask, taken, m.view(x, (product(shape),))), shape)


# windows


def _window(points: Callable[..., Ref]) -> Callable[..., Ref]:
    """A window of n points over a period of n, or of n - 1 where it is symmetric."""

    def f(
        m: Importer, n: int, periodic: bool = True, *numbers: float, dtype: DType | None = None,
        **ignored: Any,
    ) -> Ref:  # fmt: skip
        if n < 2:
            return m.add("full", shape=(n,), value=1.0, dtype=F32)
        at = m.as_float(m.add("iota", n=n, start=0, step=1))
        return points(m, at, n if periodic else n - 1, *numbers)

    return f


def _cosine(m: Importer, at: Ref, turns: float, period: int) -> Ref:
    return m.add("cos", binary(m, "mul", at, turns * math.pi / period))


@_window
def _hamming(m: Importer, at: Ref, period: int, alpha: float = 0.54, beta: float = 0.46) -> Ref:
    return m.add("sub", m.scalar(alpha, F32), binary(m, "mul", _cosine(m, at, 2, period), beta))


@_window
def _blackman(m: Importer, at: Ref, period: int) -> Ref:
    low = binary(m, "mul", _cosine(m, at, 4, period), 0.08)
    high = binary(m, "mul", _cosine(m, at, 2, period), 0.5)
    return binary(m, "add", m.add("sub", low, high), 0.42)


@_window
def _bartlett(m: Importer, at: Ref, period: int) -> Ref:
    """1 - |2 i / period - 1|."""
    rise = binary(m, "sub", binary(m, "mul", at, 2.0 / period), 1.0)
    return m.add("sub", m.scalar(1.0, F32), m.add("abs", rise))


for _suffix in ("", ".periodic"):
    IMPORTERS[f"bartlett_window{_suffix}"] = _bartlett
    IMPORTERS[f"blackman_window{_suffix}"] = _blackman
for _suffix in ("", ".periodic", ".periodic_alpha", ".periodic_alpha_beta"):
    IMPORTERS[f"hamming_window{_suffix}"] = _hamming
