"""Contractions: linear and matmul, by the segmented FMA chain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import prod

import numpy as np

from ree.kernels.constants import STORED_F32
from ree.kernels.index import IndexRule, access_by_dims
from ree.kernels.numerics import contract
from ree.kernels.opdef import (
    Array,
    Attrs,
    Bound,
    Cost,
    Form,
    Lowering,
    OpDef,
    Sample,
    StoredOperand,
    View,
    bytes_moved,
    register,
)
from ree.kernels.ops.movement import one
from ree.kernels.samples import patterns
from ree.kernels.schema import NONE
from ree.kernels.types import DType, TensorType, broadcast_shapes

RULE = (
    "total = +0; per 128 consecutive k: s = +0, s = fma(a, b, s) for k ascending, total = total + s"
)
# |y - exact| <= bound * sum |a_k b_k|: 128 roundings in a segment, then one addition a segment
BOUND = "(min(K,128) + ceil(K/128)) * 2^-24 * sum|a*b|"


def _cost(node: Bound) -> Cost:
    return Cost(2 * node.out.numel * node.inputs[0].dims[-1], bytes_moved(node))


def _want_f32(types: Sequence[TensorType]) -> None:
    for t in types:
        if t.dtype is not DType.F32:
            raise ValueError(f"expected f32 sources, got {t}")


def _linear_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, w = one(types, 2), types[1]
    _want_f32(types)
    if x.rank < 1 or w.rank != 2 or x.shape[-1] != w.shape[1]:
        raise ValueError(f"linear: {x} does not contract with {w}")
    return (TensorType(DType.F32, (*x.shape[:-1], w.shape[0])),)


def _linear_reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    x, w = (np.asarray(a, np.float32) for a in inputs)
    return (contract(x[..., None, :], w),)


def linear_rule(node: Bound) -> IndexRule:
    x, w, out = node.inputs[0].dims, node.inputs[1].dims, node.out.dims
    n, k = len(out), len(out)  # digit of the reduction
    xs: list[tuple[int | None, int, int]] = [*((i, 1, 0) for i in range(n - 1)), (k, 1, 0)]
    return IndexRule(
        out,
        (access_by_dims(x, n + 1, xs), access_by_dims(w, n + 1, [(n - 1, 1, 0), (k, 1, 0)])),
        (x[-1],),
    )


def _emit_gemm(ctx: Lowering, k: int, n: int, stride_k: int, stride_n: int) -> None:
    """Rows of source 0 times source 1, shared by all: a weight is packed once, anything else on the way,
    and then the rows may lie anyhow."""
    x, y = ctx.source(0), ctx.result()
    m = prod(x.dims[:-1])
    if ctx.is_weight(1):
        w = ctx.stored_operand(1, k, n)
        if w is None:
            w = StoredOperand(ctx.packed(1, k, n, stride_k, stride_n), None, None, STORED_F32, 0)
        x = ctx.dense(0)
        ctx.emit("gemm", a=x.slot, packed=w.packed, scale=w.scale, offset=w.offset, c=y.slot, batch=1, m=m,
                 n=n, k=k, a_batch=0, a_row=k, b_batch=0, c_batch=0, c_row=n, storage=w.storage,
                 block=w.block, tile=ctx.epilogue(m, n))  # fmt: skip
        return
    b = ctx.source(1)
    row = _row_stride(x)
    if row is None:
        x = ctx.dense(0)
        row = k
    ctx.emit("bmm", a=x.slot, b=b.slot, c=y.slot, batch0=1, batch1=1, m=m, n=n, k=k, a_batch0=0,
             a_batch1=0, a_row=row, a_k=x.strides[-1], b_batch0=0, b_batch1=0, b_k=stride_k,
             b_n=stride_n, c_batch0=0, c_batch1=0, c_row=n, tile=ctx.epilogue(m, n))  # fmt: skip


def _row_stride(x: View) -> int | None:
    """The stride of all axes but the last seen as one, or None."""
    live = [(d, s) for d, s in zip(x.dims[:-1], x.strides[:-1], strict=True) if d != 1]
    if any(a[1] != b[0] * b[1] for a, b in pairwise(live)):
        return None
    return live[-1][1] if live else 0


def _linear_lower(ctx: Lowering) -> None:
    n, k = ctx.node.inputs[1].dims
    w = ctx.source(1)
    _emit_gemm(ctx, k, n, w.strides[1], w.strides[0])


def _linear_samples() -> Iterator[Sample]:
    shapes = [((3, 5), 7), ((2, 3, 128), 33), ((4, 129), 5), ((1, 200), 64), ((15, 384), 31),
              ((2, 0), 3), ((0, 4), 3)]  # fmt: skip
    for seed, (xs, n) in enumerate(shapes):
        w = np.random.default_rng(seed).standard_normal((n, xs[-1]), np.float32)
        for name, x in patterns(xs, seed):
            yield Sample(f"{xs}x{n}/{name}", (x, w))


register(
    OpDef("linear", 200, Form.CONTRACTION, RULE, _linear_infer, _cost, _linear_samples, BOUND,
          _linear_reference, linear_rule, lower=_linear_lower, schema=NONE)
)  # fmt: skip


def _matmul_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    a, b = one(types, 2), types[1]
    _want_f32(types)
    if a.rank < 2 or b.rank < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: {a} does not contract with {b}")
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return (TensorType(DType.F32, (*batch, a.shape[-2], b.shape[-1])),)


def _matmul_reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    a, b = (np.asarray(x, np.float32) for x in inputs)
    return (contract(a[..., :, None, :], np.swapaxes(b, -1, -2)[..., None, :, :]),)


def _matmul_rule(node: Bound) -> IndexRule:
    out = node.out.dims
    n, k = len(out), len(out)

    def access(dims: tuple[int, ...], last: tuple[int, int]) -> list[tuple[int | None, int, int]]:
        shift = n - len(dims)
        batch: list[tuple[int | None, int, int]] = [
            (None, 0, 0) if d == 1 else (i + shift, 1, 0) for i, d in enumerate(dims[:-2])
        ]
        return [*batch, (last[0], 1, 0), (last[1], 1, 0)]

    a, b = node.inputs[0].dims, node.inputs[1].dims
    return IndexRule(
        out,
        (
            access_by_dims(a, n + 1, access(a, (n - 2, k))),
            access_by_dims(b, n + 1, access(b, (k, n - 1))),
        ),
        (a[-1],),
    )


def _matmul_lower(ctx: Lowering) -> None:
    a_dims, b_dims, out = (*(t.dims for t in ctx.node.inputs), ctx.node.out.dims)
    m, n, k = out[-2], out[-1], a_dims[-1]
    if prod(b_dims[:-2]) == 1 and len(a_dims) == len(out):
        b = ctx.source(1)
        _emit_gemm(ctx, k, n, b.strides[-2], b.strides[-1])
        return
    batch = out[:-2]
    views = []
    for i in range(2):
        v = ctx.source(i)
        strides = _batch_strides(v, batch)
        if strides is None:  # does not merge to two batch digits: copy
            v = ctx.dense(i)
            strides = _batch_strides(v, batch)
        views.append((v, strides))
    (a, sa), (b, sb) = views
    if sa is None or sb is None or sa[0] != sb[0]:
        raise ValueError(f"matmul: batch {batch} with {a_dims} and {b_dims} is not supported")
    (b0, b1) = sa[0]
    y = ctx.result()
    (a_batch0, a_batch1), (b_batch0, b_batch1) = sa[1], sb[1]
    ctx.emit("bmm", a=a.slot, b=b.slot, c=y.slot, batch0=b0, batch1=b1, m=m, n=n, k=k,
             a_batch0=a_batch0, a_batch1=a_batch1, a_row=a.strides[-2], a_k=a.strides[-1],
             b_batch0=b_batch0, b_batch1=b_batch1, b_k=b.strides[-2], b_n=b.strides[-1],
             c_batch0=b1 * m * n, c_batch1=m * n, c_row=n,
             tile=ctx.epilogue(b0 * b1 * m, n))  # fmt: skip


def _batch_strides(
    v: View, batch: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Batch extents as (all but the last merged, last), and v's strides over the two."""
    dims = (1,) * (len(batch) - (len(v.dims) - 2)) + v.dims[:-2]
    strides = (0,) * (len(batch) - (len(v.dims) - 2)) + v.strides[:-2]
    steps = [0 if d == 1 else s for d, s in zip(dims, strides, strict=True)]
    if not batch:
        return (1, 1), (0, 0)
    outer = batch[:-1]
    for i in range(len(outer) - 1):
        if outer[i] != 1 and outer[i + 1] != 1 and steps[i] != steps[i + 1] * outer[i + 1]:
            return None
    live = [s for d, s in zip(outer, steps[:-1], strict=True) if d != 1]
    return (prod(outer), batch[-1]), (live[-1] if live else 0, steps[-1])


def _matmul_samples() -> Iterator[Sample]:
    shapes = [((3, 5), (5, 4)), ((2, 3, 200), (2, 200, 17)), ((2, 3, 4, 6), (6, 5)),
              ((2, 1, 4, 6), (1, 3, 6, 5)), ((1, 20, 1), (1, 1, 7)), ((2, 3, 130), (2, 130, 33)),
              ((2, 0, 3), (2, 3, 1))]  # fmt: skip
    for seed, (sa, sb) in enumerate(shapes):
        b = np.random.default_rng(seed).standard_normal(sb, np.float32)
        for name, a in patterns(sa, seed + 50):
            yield Sample(f"{sa}x{sb}/{name}", (a, b))


register(
    OpDef("matmul", 201, Form.CONTRACTION, RULE, _matmul_infer, _cost, _matmul_samples, BOUND,
          _matmul_reference, _matmul_rule, lower=_matmul_lower, schema=NONE)
)  # fmt: skip
