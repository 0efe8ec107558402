"""Rows of float32 as 8-bit integers with a step and a middle each, as a macro: what goes before a contraction
of bytes.

Sources: x f32 [..., K], and factor f32 [K] if there is one. Results: q i8 [..., K], step and middle f32
[..., 1]; q * step + middle is about x * factor. In a row whose elements are all equal q is 0. A row with an
infinity or a NaN has a step that is not finite, and q = 0 throughout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from ree.kernels.macro import Counter, Expander, Macro, S, register
from ree.kernels.opdef import Array, Attrs, Bound, Lowering, Sample
from ree.kernels.samples import patterns
from ree.kernels.schema import NONE
from ree.kernels.types import DType, TensorType

LEAST = 2.0**-100  # of half the width of a row: 127 / top stays finite
GREATEST = 127
RULE = (
    "x = x * factor; high = amax(x) / 2; low = amin(x) / 2; middle = high + low; top = maximum(high - low, "
    "2^-100); q = i8(round((x - middle) * (127 / top)), within -127 and 127); step = top / 127; each operation "
    "rounded"
)


def _infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    if not 1 <= len(types) <= 2:
        raise ValueError(f"quantise_rows: expected 1 or 2 sources, got {len(types)}")
    x = types[0]
    if x.rank < 1 or any(t.dtype is not DType.F32 for t in types):
        raise ValueError(f"quantise_rows: expected f32 [..., K], got {', '.join(map(str, types))}")
    if len(types) == 2 and types[1].shape != x.shape[-1:]:
        raise ValueError(f"quantise_rows: expected a factor for each of {x}, got {types[1]}")
    row = TensorType(DType.F32, (*x.shape[:-1], 1))
    return TensorType(DType.I8, x.shape), row, row


def _expand(e: Expander[S]) -> tuple[S, ...]:
    def number(v: float) -> S:
        return e.add("full", shape=(), value=float(v), dtype=DType.F32)

    x, *factor = e.sources
    for f in factor:
        x = e.add("mul", x, f)
    dim, half = e.node.inputs[0].rank - 1, number(0.5)
    high, low = (e.add("mul", e.add(op, x, dim=dim, keepdim=True), half) for op in ("amax", "amin"))
    middle, greatest = e.add("add", high, low), number(GREATEST)
    top = e.add("maximum", e.add("sub", high, low), number(LEAST))
    q = e.add("round", e.add("mul", e.add("sub", x, middle), e.add("div", greatest, top)))
    # where a row is narrow beside its middle, the difference's rounding is more than half a step
    q = e.add("minimum", e.add("maximum", q, number(-GREATEST)), greatest)
    return e.add("cast", q, dtype=DType.I8), e.add("div", top, greatest), middle


def _count(node: Bound) -> int:
    counter = Counter(node)
    _expand(counter)
    return counter.made


def _lower(ctx: Lowering) -> None:
    dims = ctx.node.inputs[0].dims
    factor = ctx.dense(1).slot if len(ctx.node.inputs) == 2 else None
    ctx.emit("quantise_rows", x=ctx.dense(0).slot, factor=factor, q=ctx.result().slot,
             step=ctx.result(1).slot, middle=ctx.result(2).slot, rows=prod(dims[:-1]), n=dims[-1])  # fmt: skip


def _samples() -> Iterator[Sample]:
    for seed, shape in enumerate([(3, 1), (2, 5, 16), (4, 17), (1, 129), (3, 200), (7,), (0, 3)]):
        factor = np.exp2(np.random.default_rng(seed).integers(-3, 4, shape[-1])).astype(np.float32)
        for name, x in patterns(shape, seed):
            yield Sample(f"{shape}/{name}", (x,))
            yield Sample(f"{shape}/{name}/factor", (x, factor))
    ties: Array = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, 63.5, -126.5]], np.float32)
    yield Sample("ties", (ties,))
    yield Sample("narrow", (np.float32(1e6) + np.linspace(0, 1, 33, dtype=np.float32)[None],))
    yield Sample("equal", (np.full((2, 20), -3.3, np.float32),))
    yield Sample("wide", (np.array([[3e38, -3e38, 0, 1e38]], np.float32),))
    yield Sample("one of many", (np.where(np.arange(40) == 33, 1e-20, 0).astype(np.float32),))


register(Macro("quantise_rows", RULE, NONE, 2, _infer, _count, _expand, _samples, _lower))
