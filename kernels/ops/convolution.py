"""Convolution: the contraction's chain over a window of the input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from ree.kernels.index import Access, Coord, IndexRule, contiguous_strides
from ree.kernels.numerics import contract
from ree.kernels.opdef import (
    Array,
    Attrs,
    AttrValue,
    Bound,
    Cost,
    Form,
    Lowering,
    OpDef,
    Sample,
    bytes_moved,
    register,
)
from ree.kernels.ops.contraction import BOUND
from ree.kernels.ops.contraction import RULE as CHAIN
from ree.kernels.ops.movement import one, shape_attr
from ree.kernels.samples import patterns
from ree.kernels.schema import Attr, AttrKind, Schema
from ree.kernels.types import Dim, DType, TensorType, check_extents, floordiv

# Taps outside x are executed: a finite weight times +0 cannot be seen in the total, but an infinite or
# NaN weight makes it NaN.
RULE = (
    f"{CHAIN}; k runs over (input channel of the group, window position) row-major; a = x, read as +0 "
    "outside its bounds (the fma is executed there too), b = w"
)

MAX_PADDING = 2**16 - 1  # of an axis, on each side: padded images are made whole


def windows(attrs: Attrs, name: str, n: int, low: int) -> tuple[int, ...]:
    """Attribute `name`: one integer of at least `low` for each of n axes."""
    v = shape_attr(attrs, name)
    if len(v) != n or not all(isinstance(d, int) and d >= low for d in v):
        raise ValueError(f"attribute {name}: expected {n} integers of at least {low}, got {v}")
    return v  # type: ignore[return-value]


def _infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, w = one(types, 2), types[1]
    groups = attrs["groups"]
    assert isinstance(groups, int)  # by the schema
    if x.dtype is not DType.F32 or w.dtype is not DType.F32:
        raise ValueError(f"expected f32 sources, got {x} and {w}")
    if x.rank not in (3, 4, 5) or w.rank != x.rank:
        raise ValueError(f"convolution: {x} with {w}, expected ranks 3, 4 or 5 alike")
    n = x.rank - 2
    out_channels = w.shape[0]
    if x.shape[1] != w.shape[1] * groups or (
        isinstance(out_channels, int) and out_channels % groups
    ):
        raise ValueError(f"convolution: {x} with {w} in {groups} groups")
    stride, dilation = (windows(attrs, k, n, 1) for k in ("stride", "dilation"))
    padding = windows(attrs, "padding", n, 0)
    out: list[Dim] = []
    padded = (d + 2 * p for d, p in zip(x.shape[2:], padding, strict=True))
    check_extents(TensorType(x.dtype, (*x.shape[:2], *padded)))
    for i in range(n):
        room = x.shape[i + 2] + (2 * padding[i] - 1) - dilation[i] * (w.shape[i + 2] - 1)
        if isinstance(room, int) and room < 0:
            raise ValueError(f"convolution: the window of {w} does not fit {x}")
        out.append(floordiv(room, stride[i]) + 1)
    return (TensorType(DType.F32, (x.shape[0], out_channels, *out)),)


def _ints(node: Bound) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
    """stride, padding, dilation, groups."""
    n = node.out.rank - 2
    return (windows(node.attrs, "stride", n, 1), windows(node.attrs, "padding", n, 0),
            windows(node.attrs, "dilation", n, 1), node.int_attr("groups"))  # fmt: skip


def _reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    x, w = (np.asarray(a, np.float32) for a in inputs)
    stride, padding, dilation, groups = _ints(node)
    n = len(stride)
    out, kernel = node.out.dims, w.shape[2:]
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    span = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    v = np.lib.stride_tricks.sliding_window_view(x, span, axis=tuple(range(2, n + 2)))
    for axis, step in enumerate((*stride, *dilation)):
        v = np.moveaxis(np.moveaxis(v, axis + 2, 0)[::step], 0, axis + 2)
    # [N, C, *out, *kernel] to [N, groups, 1, pixels, K]
    v = v.reshape(out[0], groups, w.shape[1], prod(out[2:]), prod(kernel))
    k = prod(w.shape[1:])
    v = v.transpose(0, 1, 3, 2, 4).reshape(out[0], groups, 1, prod(out[2:]), k)
    b = w.reshape(1, groups, w.shape[0] // groups, 1, k)
    return (contract(v, b).reshape(out),)


def _rule(node: Bound) -> IndexRule:
    x, w, out = node.inputs[0].dims, node.inputs[1].dims, node.out.dims
    stride, padding, dilation, groups = _ints(node)
    n = len(stride)
    # digits: image, group, channel of the group, pixel; then input channel, window position
    digits = (out[0], groups, w[0] // groups, *out[2:])
    total = len(digits) + 1 + n

    def coord(size: int, step: int, offset: int, *terms: tuple[int, int]) -> Coord:
        coeffs = [0] * total
        for digit, c in terms:
            coeffs[digit] = c
        return Coord(tuple(coeffs), size, step, offset)

    ci = len(digits)
    steps = contiguous_strides(x)
    xs = [coord(x[0], steps[0], 0, (0, 1)), coord(x[1], steps[1], 0, (1, w[1]), (ci, 1))]
    for i in range(n):
        xs.append(coord(x[i + 2], steps[i + 2], -padding[i], (3 + i, stride[i]),
                        (ci + 1 + i, dilation[i])))  # fmt: skip
    steps = contiguous_strides(w)
    ws = [coord(w[0], steps[0], 0, (1, w[0] // groups), (2, 1))]
    ws += [coord(w[i + 1], steps[i + 1], 0, (ci + i, 1)) for i in range(n + 1)]
    return IndexRule(digits, (Access(tuple(xs)), Access(tuple(ws))), w[1:])


def _cost(node: Bound) -> Cost:
    return Cost(2 * node.out.numel * prod(node.inputs[1].dims[1:]), bytes_moved(node))


def _lower(ctx: Lowering) -> None:
    stride, padding, dilation, groups = _ints(ctx.node)
    x, w, y = ctx.dense(0), ctx.dense(1), ctx.result()
    if ctx.node.out.numel == 0:
        return

    def three(v: Sequence[int], fill: int) -> list[int]:
        return [fill] * (3 - len(v)) + list(v)

    # the step of an axis with one position is never taken, and must not cost memory
    stride = tuple(s if d > 1 else 1 for s, d in zip(stride, y.dims[2:], strict=True))
    ctx.emit("convolution", w=w.slot, x=x.slot, y=y.slot, images=x.dims[0], channels=x.dims[1],
             x_size=three(x.dims[2:], 1), y_channels=y.dims[1], y_size=three(y.dims[2:], 1),
             window=three(w.dims[2:], 1), stride=three(stride, 1), padding=three(padding, 0),
             dilation=three(dilation, 1), groups=groups,
             tile=ctx.epilogue(y.dims[0] * y.dims[1], prod(y.dims[2:])))  # fmt: skip


# x, w, stride, padding, dilation, groups
CASES: list[tuple[tuple[int, ...], tuple[int, ...], int, int, int, int]] = [
    ((2, 3, 5, 6), (5, 3, 3, 3), 1, 1, 1, 1),
    ((1, 15, 6, 7), (4, 15, 3, 3), 1, 1, 1, 1),  # K = 135
    ((1, 64, 3, 4), (17, 64, 2, 2), 1, 0, 1, 1),  # K = 256
    ((2, 4, 9, 8), (6, 2, 3, 3), 2, 1, 1, 2),
    ((1, 6, 7, 19), (6, 1, 3, 3), 1, 1, 1, 6),
    ((1, 4, 9, 9), (8, 1, 5, 5), 2, 2, 1, 4),
    ((1, 2, 11, 9), (3, 2, 3, 3), 1, 2, 3, 1),
    ((2, 130, 5, 7), (6, 130, 1, 1), 1, 0, 1, 1),
    ((1, 6, 5, 7), (15, 6, 1, 1), 2, 0, 1, 1),
    ((2, 3, 40), (7, 3, 5), 3, 2, 2, 1),
    ((1, 2, 3, 4, 5), (3, 2, 2, 3, 2), 1, 1, 1, 1),
    ((0, 3, 4, 4), (2, 3, 3, 3), 1, 1, 1, 1),
    ((1, 140, 4, 3), (2, 140, 1, 2), 1, 1, 1, 1),  # few channels, two chains and more
]


def _samples() -> Iterator[Sample]:
    for seed, (xs, ws, stride, padding, dilation, groups) in enumerate(CASES):
        n = len(xs) - 2
        attrs: dict[str, AttrValue] = {"stride": (stride,) * n, "padding": (padding,) * n,
                                       "dilation": (dilation,) * n, "groups": groups}  # fmt: skip
        w = np.random.default_rng(seed).standard_normal(ws, np.float32)
        every = seed in (0, 4)
        for name, x in patterns(xs, seed):
            if every or name in ("gaussian", "special")[: 1 + seed % 2]:
                yield Sample(f"{xs}*{ws}/{name}", (x, w), attrs)
        if every:  # a tap outside x is +0 * w
            for name, v in list(patterns(ws, seed + 20))[3:]:
                x = np.random.default_rng(seed).standard_normal(xs, np.float32)
                yield Sample(f"{xs}*{ws}/weight {name}", (x, v), attrs)
    x, w = (np.random.default_rng(9).standard_normal(s, np.float32)
            for s in ((1, 2, 6, 9), (3, 2, 2, 3)))  # fmt: skip
    attrs = {"stride": (1, 2), "padding": (0, 3), "dilation": (2, 1), "groups": 1}
    yield Sample("axes apart", (x, w), attrs)


SCHEMA: Schema = {"dilation": Attr(AttrKind.INTS, 1), "groups": Attr(AttrKind.INT, 1),
                  "padding": Attr(AttrKind.INTS, 0, MAX_PADDING), "stride": Attr(AttrKind.INTS, 1)}  # fmt: skip


register(
    OpDef("convolution", 202, Form.CONTRACTION, RULE, _infer, _cost, _samples,
          f"{BOUND}, K = channels of a group * window", _reference, _rule, lower=_lower, schema=SCHEMA)
)  # fmt: skip
