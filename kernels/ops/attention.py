"""The attention operator: its record in the registry, around the rule in attention.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np

from ree.kernels.constants import BOOL_MASK, FLOAT_MASK, NO_MASK
from ree.kernels.index import IndexRule, access_by_dims, broadcast_access
from ree.kernels.numerics import SEGMENT
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
from ree.kernels.ops.attention_rule import attention
from ree.kernels.rowprogram import Affine, RowBuilder, RowLocal, RowProgram
from ree.kernels.samples import patterns
from ree.kernels.schema import FLAG, Attr, AttrKind, Schema
from ree.kernels.types import DType, TensorType, broadcast_shapes

RULE = (
    "s = (q.k by the contraction) * scale [+ mask]; per 128 keys: m = max s, p = exp(s - m), "
    "l = sum p, o = chain p*v; segments fold left with M, l, o; o / l, +0 if l = 0"
)


def _infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    if len(types) not in (3, 4):
        raise ValueError(f"attention: expected 3 or 4 sources, got {len(types)}")
    q, k, v = types[:3]
    if any(t.rank != 4 or t.dtype is not DType.F32 for t in (q, k, v)):
        raise ValueError("attention: expected f32 q, k, v of rank 4")
    if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"attention: {q}, {k} and {v} do not fit")
    heads, kv = q.shape[1], k.shape[1]
    if heads != kv and not (
        isinstance(heads, int) and isinstance(kv, int) and kv > 0 and heads % kv == 0
    ):
        raise ValueError(f"attention: {heads} heads cannot share {kv} key heads")
    scores = (*q.shape[:3], k.shape[2])
    if len(types) == 4:
        mask = types[3]
        if mask.dtype not in (DType.F32, DType.BOOL) or mask.rank > 4:
            raise ValueError(f"attention: expected a bool or f32 mask, got {mask}")
        if broadcast_shapes(mask.shape, scores) != scores:
            raise ValueError(f"attention: mask {mask} does not broadcast to {scores}")
    return (TensorType(DType.F32, (*q.shape[:3], v.shape[3])),)


def _reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    q, k, v = (np.asarray(x, np.float32) for x in inputs[:3])
    causal = node.attrs["causal"]
    y = attention(
        q, k, v, inputs[3] if len(inputs) == 4 else None, scale=node.f32_attr("scale"),
        causal=bool(causal), window=node.int_attr("window"), q_offset=node.int_attr("q_offset"),
    )  # fmt: skip
    return (np.ascontiguousarray(y),)


def _index_rule(node: Bound) -> IndexRule:
    """Digits: batch, key head, head within its group, query, value column; then key, feature."""
    q, k, v = (t.dims for t in node.inputs[:3])
    kv = k[1]
    group = q[1] // max(kv, 1)
    out = (q[0], kv, group, q[2], v[3])
    red = (k[2], q[3])
    n = 7
    query = access_by_dims(q, n, [(0, 1, 0), (1, group, 0), (3, 1, 0), (6, 1, 0)])
    head = query.coords[1]
    joined = type(head)(
        tuple(c + (i == 2) for i, c in enumerate(head.coeffs)), head.bound, head.stride
    )
    query = type(query)((query.coords[0], joined, *query.coords[2:]))
    key = access_by_dims(k, n, [(0, 1, 0), (1, 1, 0), (5, 1, 0), (6, 1, 0)])
    value = access_by_dims(v, n, [(0, 1, 0), (1, 1, 0), (5, 1, 0), (4, 1, 0)])
    accesses = [query, key, value]
    if len(node.inputs) == 4:
        mask = broadcast_access(node.inputs[3].dims, (q[0], q[1], q[2], k[2]))
        coords = []
        for c in mask.coords:
            b, h, i, j = c.coeffs
            coords.append(type(c)((b, h * group, h, i, 0, j, 0), c.bound, c.stride))
        accesses.append(type(mask)(tuple(coords)))
    return IndexRule(out, tuple(accesses), red)


def _lower(ctx: Lowering) -> None:
    node = ctx.node
    q, k, v = (ctx.source(i) for i in range(3))
    q, k, v = (x if x.strides[3] == 1 or x.dims[3] == 1 else ctx.dense(i)
               for i, x in enumerate((q, k, v)))  # fmt: skip
    y = ctx.result()
    mask: int | None = None
    mask_kind, mask_strides = NO_MASK, [0, 0, 0, 0]
    if len(node.inputs) == 4:
        m = ctx.source(3)
        mask, mask_kind = m.slot, BOOL_MASK if m.dtype is DType.BOOL else FLOAT_MASK
        steps = [0 if d == 1 else s for d, s in zip(m.dims, m.strides, strict=True)]
        mask_strides = [0] * (4 - len(steps)) + steps
    batch, heads, queries, width = q.dims
    ctx.emit("attention", q=q.slot, k=k.slot, v=v.slot, mask=mask, o=y.slot, batch=batch, heads=heads,
             kv_heads=k.dims[1], queries=queries, keys=k.dims[2], width=width, value_width=v.dims[3],
             scale=node.f32_attr("scale"), causal=bool(node.attrs["causal"]),
             q_offset=node.int_attr("q_offset"), window=node.int_attr("window"), mask_kind=mask_kind,
             q_strides=q.strides[:3], k_strides=k.strides[:3], v_strides=v.strides[:3],
             mask_strides=mask_strides, o_strides=y.strides[:3])  # fmt: skip


def _row_program(node: Bound) -> RowProgram:
    """One output element: its query row, all keys, its value column, its mask row."""
    q, k, v = (t.dims for t in node.inputs[:3])
    keys, width, group = k[2], q[3], q[1] // k[1]
    # batch, key head, head within its group, query, value column
    r = RowBuilder((q[0], k[1], group, q[2], v[3]))
    b, kv_head, i, d = (r.digit(j) for j in (0, 1, 3, 4))
    h = Affine((0, group, 1, 0, 0))
    zero_ = r.fixed()
    f32 = DType.F32
    query = r.row(0, TensorType(f32, (width,)), q, [b, h, i, zero_], (3,))
    key = r.row(1, TensorType(f32, (keys, width)), k, [b, kv_head, zero_, zero_], (2, 3))
    value = r.row(2, TensorType(f32, (keys,)), v, [b, kv_head, zero_, d], (2,))
    inf = r.constant(np.array(-np.inf, np.float32))
    zero = r.constant(np.array(0, np.float32))
    s = r.add("linear", key, r.add("view", query, shape=(1, width)))
    s = r.add("view", s, shape=(keys,))
    s = r.add("mul", s, r.constant(np.array(node.f32_attr("scale"), np.float32)))
    if len(node.inputs) == 4:
        mask = _mask_row(r, node, (b, h, i), keys)
        s = (
            r.add("where", mask, s, inf)
            if node.inputs[3].dtype is DType.BOOL
            else r.add("add", s, mask)
        )
    s = _positions(r, node, s, keys, inf)
    return _folded(r, s, value, keys, inf, zero)


def _mask_row(r: RowBuilder, node: Bound, at: tuple[Affine, Affine, Affine], keys: int) -> RowLocal:
    """The mask of one query over the keys; a broadcast axis stays at 0."""
    t = node.inputs[3]
    whole = (*at, r.fixed())[4 - t.rank :]
    starts = [r.fixed() if d == 1 else a for d, a in zip(t.dims, whole, strict=True)]
    last = t.dims[-1] if t.rank else 1
    if t.rank == 0 or last == 1:
        row = r.row(3, TensorType(t.dtype, ()), t.dims, starts, ())
        return r.add("expand", row, shape=(keys,))
    return r.row(3, TensorType(t.dtype, (keys,)), t.dims, starts, (t.rank - 1,))


def _positions(r: RowBuilder, node: Bound, s: RowLocal, keys: int, inf: RowLocal) -> RowLocal:
    """-inf at keys that causality or the window exclude."""
    offset, window = node.int_attr("q_offset"), node.int_attr("window")
    if not node.attrs["causal"] and not window:
        return s
    j = r.add("iota", n=keys, start=0, step=1)
    if node.attrs["causal"]:
        s = r.add("where", r.add("le", j, r.number(r.digit(3, 1, offset))), s, inf)
    if window:
        s = r.add("where", r.add("gt", j, r.number(r.digit(3, 1, offset - window))), s, inf)
    return s


def _folded(
    r: RowBuilder, s: RowLocal, value: RowLocal, keys: int, inf: RowLocal, zero: RowLocal
) -> RowProgram:
    """Segments of 128 keys, folded left."""
    big_m, big_l, big_o = inf, zero, zero
    for t in range(ceil(keys / SEGMENT)):
        start, stop = t * SEGMENT, min((t + 1) * SEGMENT, keys)
        cut = {"dim": 0, "start": start, "stop": stop, "step": 1}
        part = r.add("slice", s, **cut)
        valid = r.add("ne", part, inf)
        m = r.add("amax", part, dim=0, keepdim=False)
        p = r.add("exp", r.add("sub", part, _shift(r, m, inf, zero)))
        p = r.add("where", valid, p, zero)
        seg_l = r.add("sum", p, dim=0, keepdim=False)
        column = r.add("where", valid, r.add("slice", value, **cut), zero)
        seg_o = r.add("matmul", r.add("view", p, shape=(1, stop - start)),
                      r.add("view", column, shape=(stop - start, 1)))  # fmt: skip
        seg_o = r.add("view", seg_o, shape=())
        new_m = r.add("maximum", big_m, m)
        u = _shift(r, new_m, inf, zero)
        a, b = (r.add("exp", r.add("sub", x, u)) for x in (big_m, m))
        big_l = r.add("fma", big_l, a, r.add("mul", seg_l, b))
        big_o = r.add("add", r.add("fma", big_o, a, r.add("mul", seg_o, b)), zero)
        big_m = new_m
    r.add("where", r.add("eq", big_l, zero), zero, r.add("div", big_o, big_l))
    return r.finish()


def _shift(r: RowBuilder, m: RowLocal, inf: RowLocal, zero: RowLocal) -> RowLocal:
    return r.add("where", r.add("eq", m, inf), zero, m)


def _cost(node: Bound) -> Cost:
    q, k, v = (t.dims for t in node.inputs[:3])
    pairs = q[0] * q[1] * q[2] * k[2]
    if node.attrs["causal"]:
        pairs //= 2
    return Cost(pairs * (2 * q[3] + 2 * v[3] + 20), bytes_moved(node))


def _samples() -> Iterator[Sample]:
    def attrs(width: int, **more: object) -> dict[str, object]:
        scale = float(np.float32(1 / np.sqrt(width)))
        return {"causal": False, "scale": scale, "window": 0, "q_offset": 0} | more

    cases = [  # B, H, HK, Tq, Tk, D, DV, mask, attributes
        (1, 2, 2, 5, 5, 8, 8, "", {"causal": True}),
        (2, 4, 2, 3, 129, 16, 16, "bool", {}),
        (1, 1, 1, 2, 300, 32, 7, "f32", {}),
        (1, 2, 1, 130, 130, 8, 8, "", {"causal": True, "window": 20}),
        (1, 2, 2, 1, 257, 8, 8, "", {"causal": True, "q_offset": 256}),
        (1, 1, 1, 3, 4, 160, 8, "", {}),
        (1, 1, 1, 3, 300, 4, 4, "none-valid", {}),
    ]
    for seed, (b, h, hk, tq, tk, d, dv, mask, more) in enumerate(cases):
        rng = np.random.default_rng(seed)
        k = rng.standard_normal((b, hk, tk, d), np.float32)
        for name, v in patterns((b, hk, tk, dv), seed):
            q = rng.standard_normal((b, h, tq, d), np.float32)
            extra: tuple[Array, ...] = ()
            if mask == "bool":
                extra = (rng.random((b, 1, tq, tk)) < 0.7,)
            elif mask == "f32":
                m = rng.standard_normal((tq, tk)).astype(np.float32)
                extra = (np.where(rng.random((tq, tk)) < 0.3, np.float32(-np.inf), m),)
            elif mask:
                extra = (np.arange(tk)[None, :] >= np.array([[tk], [200], [0]]),)
            yield Sample(f"{seed}/{name}", (q, k, v, *extra), attrs(d, **more))  # type: ignore[arg-type]


# positions and the keys of a window stay within 32 bits
_NEAR = 2**30
SCHEMA: Schema = {"causal": FLAG, "q_offset": Attr(AttrKind.DIM, -_NEAR, _NEAR), "scale": Attr(AttrKind.F32),
                  "window": Attr(AttrKind.DIM, 0, _NEAR)}  # fmt: skip


register(
    OpDef("attention", 344, Form.COMPOSITE, RULE, _infer, _cost, _samples,
          "2e-6 * max|v| * (1 + T/1024)", _reference, _index_rule, lower=_lower,
          row_program=_row_program, schema=SCHEMA)
)  # fmt: skip
