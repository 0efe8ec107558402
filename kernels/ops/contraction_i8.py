"""The contraction of 8-bit integers: exact, so that no order is part of its rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from ree.kernels.opdef import (
    Array,
    Attrs,
    Bound,
    Cost,
    Form,
    Lowering,
    OpDef,
    Sample,
    bytes_moved,
    register,
)
from ree.kernels.ops.contraction import linear_rule
from ree.kernels.ops.movement import one
from ree.kernels.schema import NONE
from ree.kernels.types import DType, TensorType

LONGEST = (
    1 << 17
) - 1  # of a contraction: k * 2^14, the greatest total there can be, stays below 2^31


def _infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, w = one(types, 2), types[1]
    for t in types:
        if t.dtype is not DType.I8:
            raise ValueError(f"expected i8 sources, got {t}")
    if x.rank < 1 or w.rank != 2 or x.shape[-1] != w.shape[1]:
        raise ValueError(f"linear_i8: {x} does not contract with {w}")
    k = w.shape[1]
    if isinstance(k, int) and k > LONGEST:
        raise ValueError(f"linear_i8: at most {LONGEST} products make one i32, got {k}")
    return (TensorType(DType.I32, (*x.shape[:-1], w.shape[0])),)


def _reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    x, w = (a.astype(np.int64) for a in inputs)
    return (np.matmul(x, w.T).astype(np.int32),)


def _lower(ctx: Lowering) -> None:
    n, k = ctx.node.inputs[1].dims
    x, w, y = ctx.dense(0), ctx.source(1), ctx.result()
    m = prod(x.dims[:-1])
    packed, group = ctx.packed_i8(1, k, n, w.strides[1], w.strides[0])
    ctx.emit("gemm_i8", a=x.slot, packed=packed, c=y.slot, m=m, n=n, k=k, group=group,
             tile=ctx.epilogue(m, n))  # fmt: skip


def _samples() -> Iterator[Sample]:
    """Shapes at every boundary of the kernels; extremes alone, mixed, and whatever there is."""
    shapes = [((3, 5), 7), ((2, 3, 128), 33), ((4, 129), 5), ((1, 200), 64), ((15, 384), 31),
              ((29, 127), 50), ((2, 0), 3), ((0, 4), 3), ((5, 1), 40), ((4,), 3),
              ((2, 1 << 16), 3), ((1, LONGEST), 2)]  # fmt: skip
    for seed, (xs, n) in enumerate(shapes):
        rng = np.random.default_rng(seed)
        ends = np.array([-128, 127], np.int8)
        for name, x, w in (
            ("any", rng.integers(-128, 128, xs), rng.integers(-128, 128, (n, xs[-1]))),
            ("ends", rng.choice(ends, xs), rng.choice(ends, (n, xs[-1]))),
            ("least", np.full(xs, -128), np.full((n, xs[-1]), -128)),
            ("opposite", np.full(xs, 127), np.full((n, xs[-1]), -128)),
        ):
            yield Sample(f"{xs}x{n}/{name}", (x.astype(np.int8), w.astype(np.int8)))


register(
    OpDef("linear_i8", 203, Form.INTEGER_CONTRACTION,
          f"the sum of all a * b, an integer; exact, since at most {LONGEST} of them are added", _infer,
          lambda node: Cost(2 * node.out.numel * node.inputs[0].dims[-1], bytes_moved(node)), _samples, "exact",
          _reference, linear_rule, lower=_lower, schema=NONE)
)  # fmt: skip
