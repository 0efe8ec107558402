"""Operators that read an index (embedding, index, gather), and those without sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from ree.kernels.index import (
    Access,
    Coord,
    IndexRule,
    Indirect,
    broadcast_access,
    contiguous_strides,
    flat_access,
)
from ree.kernels.opdef import (
    Array,
    Attrs,
    Bound,
    Form,
    Lowering,
    OpDef,
    Sample,
    register,
)
from ree.kernels.ops.movement import axis_attr, dim_attr, move_cost, move_reference, one, shape_attr
from ree.kernels.schema import ALONG, NONE, WHOLE, Attr, AttrKind, check_element
from ree.kernels.types import DType, TensorType, broadcast_shapes


def _want_i64(t: TensorType) -> None:
    if t.dtype is not DType.I64:
        raise ValueError(f"expected i64 indices, got {t}")


# embedding


def _embedding_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    table = one(types, 2)
    _want_i64(types[1])
    if table.rank != 2:
        raise ValueError(f"embedding: expected a table of rank 2, got {table}")
    return (TensorType(table.dtype, (*types[1].shape, table.shape[1])),)


def _embedding_rule(node: Bound) -> IndexRule:
    (rows, width), out = node.inputs[0].dims, node.out.dims
    n = len(out)
    column = Coord((*(0,) * (n - 1), 1), width, 1)
    table = Access((column,), (Indirect(1, rows, width),))
    return IndexRule(out, (table, flat_access(node.inputs[1].numel, out[:-1], n)))


def _embedding_lower(ctx: Lowering) -> None:
    (table, panel), idx, y = ctx.table(0), ctx.dense(1), ctx.result()
    t = ctx.node.inputs[0]
    rows, width = t.dims
    ctx.emit("gather_rows", table=table, index=idx.slot, y=y.slot, count=ctx.node.inputs[1].numel,
             row_elements=width, table_rows=rows, element_bytes=t.dtype.size, panel=panel)  # fmt: skip


def _embedding_samples() -> Iterator[Sample]:
    table = np.random.default_rng(1).standard_normal((11, 5), np.float32)
    for idx in (np.array([[0, 10, 3], [3, 3, 1]]), np.zeros((0,), np.int64), np.array(7)):
        yield Sample(f"idx{idx.shape}", (table, idx))


register(
    OpDef("embedding", 300, Form.TABLE, "row index[i] of the table", _embedding_infer, move_cost,
          _embedding_samples, "exact", move_reference, _embedding_rule, lower=_embedding_lower,
          schema=NONE)
)  # fmt: skip


# index: the leading axes of x, one index tensor each


def _index_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, indices = types[0], types[1:]
    for t in indices:
        _want_i64(t)
    if not 1 <= len(indices) <= x.rank:
        raise ValueError(f"index: {len(indices)} index tensors for {x}")
    shape = broadcast_shapes(*(t.shape for t in indices))
    return (TensorType(x.dtype, (*shape, *x.shape[len(indices) :])),)


def _index_split(node: Bound) -> tuple[tuple[int, ...], tuple[int, ...]]:
    k = len(node.inputs) - 1
    block = node.inputs[0].dims[k:]
    return node.out.dims[: node.out.rank - len(block)], block


def _index_rule(node: Bound) -> IndexRule:
    x, out = node.inputs[0].dims, node.out.dims
    k = len(node.inputs) - 1
    head, block = _index_split(node)
    strides = contiguous_strides(x)
    n = len(out)
    coords = []
    for j, (size, stride) in enumerate(zip(block, strides[k:], strict=True)):
        coeffs = [0] * n
        coeffs[len(head) + j] = 1
        coords.append(Coord(tuple(coeffs), size, stride))
    terms = tuple(Indirect(i + 1, x[i], strides[i], wrap=True) for i in range(k))
    rest = tuple(broadcast_access(t.dims, head, n) for t in node.inputs[1:])
    return IndexRule(out, (Access(tuple(coords), terms), *rest))


def _index_lower(ctx: Lowering) -> None:
    x, y = ctx.dense(0), ctx.result()
    k = len(ctx.node.inputs) - 1
    head, block = _index_split(ctx.node)
    slots, strides = [], []
    for i in range(k):
        v = ctx.source(i + 1)
        pad = len(head) - len(v.dims)
        slots.append(v.slot)
        strides += [0] * pad + [0 if d == 1 else s for d, s in zip(v.dims, v.strides, strict=True)]
    ctx.emit("index_nd", x=x.slot, y=y.slot, index=slots, element_bytes=x.dtype.size, indices=k,
             rank=len(head), block=prod(block), extents=head, index_strides=strides,
             x_steps=x.strides[:k], x_sizes=x.dims[:k])  # fmt: skip


def _index_samples() -> Iterator[Sample]:
    x = np.random.default_rng(2).standard_normal((4, 5, 3), np.float32)
    yield Sample("rows", (x, np.array([0, -1, 2])))
    yield Sample("pairs", (x, np.array([[0], [3]]), np.array([[1, 4, -5]])))
    yield Sample("triples", (x, np.array([1, 2]), np.array([0]), np.array([2, 0])))
    yield Sample("bool", (x > 0, np.array([[[1]], [[2]]]), np.array([[[0, 1]]])))


register(
    OpDef("index", 301, Form.TABLE, "leading axes read at index tensors, which broadcast",
          _index_infer, move_cost, _index_samples, "exact", move_reference, _index_rule,
          lower=_index_lower, schema=NONE)
)  # fmt: skip


# gather


def _gather_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, idx = one(types, 2), types[1]
    _want_i64(idx)
    axis = axis_attr(attrs, "dim", x.rank)
    ok = x.rank == idx.rank and all(
        a == b for i, (a, b) in enumerate(zip(x.shape, idx.shape, strict=True)) if i != axis
    )
    if not ok:
        raise ValueError(f"gather: index {idx} does not fit {x} along axis {axis}")
    return (TensorType(x.dtype, idx.shape),)


def _gather_rule(node: Bound) -> IndexRule:
    x, out, axis = node.inputs[0].dims, node.out.dims, node.int_attr("dim")
    strides = contiguous_strides(x)
    coords = tuple(
        Coord(tuple(int(j == i) for j in range(len(out))), x[i], strides[i])
        for i in range(len(x))
        if i != axis
    )
    table = Access(coords, (Indirect(1, x[axis], strides[axis]),))
    return IndexRule(out, (table, broadcast_access(out, out)))


def _gather_lower(ctx: Lowering) -> None:
    x, idx, y = ctx.dense(0), ctx.dense(1), ctx.result()
    axis = ctx.node.int_attr("dim")
    ctx.emit("gather_axis", x=x.slot, index=idx.slot, y=y.slot, element_bytes=x.dtype.size,
             outer=prod(y.dims[:axis]), x_n=x.dims[axis], index_n=y.dims[axis],
             inner=prod(y.dims[axis + 1 :]))  # fmt: skip


def _gather_samples() -> Iterator[Sample]:
    x = np.random.default_rng(3).standard_normal((3, 6, 4), np.float32)
    rng = np.random.default_rng(4)
    for axis, n in ((0, 2), (1, 9), (2, 1)):
        shape = list(x.shape)
        shape[axis] = n
        yield Sample(f"dim{axis}", (x, rng.integers(0, x.shape[axis], shape)), {"dim": axis})


register(
    OpDef("gather", 302, Form.TABLE, "one axis read at an index per element", _gather_infer,
          move_cost, _gather_samples, "exact", move_reference, _gather_rule, lower=_gather_lower,
          schema=ALONG)
)  # fmt: skip


# full, iota


def _full_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    dtype = attrs["dtype"]
    assert isinstance(dtype, DType)  # by the schema
    if types:
        raise ValueError("full: expected no sources")
    check_element("full", attrs["value"], dtype)
    return (TensorType(dtype, shape_attr(attrs, "shape")),)


def _full_reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    value = node.attrs["value"]
    assert isinstance(value, bool | int | float)
    return (np.full(node.out.dims, value, node.out.dtype.numpy),)


def _full_lower(ctx: Lowering) -> None:
    (x,) = _full_reference((), Bound("full", (), (TensorType(ctx.node.out.dtype, ()),),
                                     ctx.node.attrs))  # fmt: skip
    pattern = int.from_bytes(x.tobytes(), "little", signed=x.dtype.itemsize == 8)
    ctx.emit("fill", y=ctx.result().slot, n=ctx.node.out.numel, element_bytes=x.dtype.itemsize,
             pattern=pattern)  # fmt: skip


def _full_samples() -> Iterator[Sample]:
    for dtype, value in ((DType.F32, -0.0), (DType.I64, -3), (DType.BOOL, True)):
        yield Sample(dtype.text, (), {"shape": (3, 5), "value": value, "dtype": dtype})


register(
    OpDef("full", 320, Form.CREATE, "every element is the value", _full_infer, move_cost,
          _full_samples, "exact", _full_reference, lower=_full_lower,
          schema={"dtype": Attr(AttrKind.DTYPE), "shape": Attr(AttrKind.DIMS), "value": Attr(AttrKind.NUMBER)})
)  # fmt: skip


def _iota_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    if types:
        raise ValueError("iota: expected no sources")
    return (TensorType(DType.I64, (dim_attr(attrs, "n"),)),)


def _iota_reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    n, start, step = (node.int_attr(k) for k in ("n", "start", "step"))
    return (start + step * np.arange(n, dtype=np.int64),)


def _iota_lower(ctx: Lowering) -> None:
    size = {k: ctx.node.int_attr(k) for k in ("n", "start", "step")}
    ctx.emit("iota", y=ctx.result().slot, **size)


def _iota_samples() -> Iterator[Sample]:
    for n, start, step in ((7, 0, 1), (5, 10, -3), (0, 0, 1)):
        yield Sample(f"{n},{start},{step}", (), {"n": n, "start": start, "step": step})


register(
    OpDef("iota", 321, Form.CREATE, "start + step * i, i64", _iota_infer, move_cost,
          _iota_samples, "exact", _iota_reference, lower=_iota_lower,
          schema={"n": Attr(AttrKind.DIM), "start": WHOLE, "step": WHOLE})
)  # fmt: skip
