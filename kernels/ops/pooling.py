"""Movement that convolution and pooling need: pad, window, flip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ree.kernels.index import Access, Coord, IndexRule, access_by_dims, contiguous_strides, read
from ree.kernels.opdef import (
    Array,
    Attrs,
    AttrValue,
    Bound,
    Form,
    Lowering,
    OpDef,
    Sample,
    register,
)
from ree.kernels.ops.movement import axis_attr, dim_attr, move_cost, move_reference, one, shape_attr
from ree.kernels.schema import ALONG, AXIS, Attr, AttrKind, check_element
from ree.kernels.types import LARGEST, DType, TensorType, floordiv

# pad: a negative amount cuts


def _amounts(attrs: Attrs, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    low, high = shape_attr(attrs, "low"), shape_attr(attrs, "high")
    for v in (low, high):
        if len(v) != rank or not all(isinstance(d, int) for d in v):
            raise ValueError(f"pad: expected {rank} integers low and high, got {low} and {high}")
    return low, high  # type: ignore[return-value]


def _pad_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x = one(types)
    low, high = _amounts(attrs, x.rank)
    check_element("pad", attrs["value"], x.dtype)
    out = tuple(d + (a + b) for d, a, b in zip(x.shape, low, high, strict=True))
    if any(isinstance(d, int) and d < 0 for d in out):
        raise ValueError(f"pad: {x} has no room to be cut by {low} and {high}")
    return (TensorType(x.dtype, out),)


def _pad_rule(node: Bound) -> IndexRule:
    x, out = node.inputs[0], node.out.dims
    low, _ = _amounts(node.attrs, x.rank)
    terms: list[tuple[int | None, int, int]] = [(i, 1, -a) for i, a in enumerate(low)]
    return IndexRule(out, (access_by_dims(x.dims, len(out), terms),))


def _pad_reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    rule = _pad_rule(node)
    inside = read(rule, 0, [np.ones(node.inputs[0].dims, bool)])
    value = np.asarray(node.attrs["value"]).astype(node.out.dtype.numpy)
    return (np.where(inside, read(rule, 0, inputs), value).reshape(node.out.dims),)


def _pad_lower(ctx: Lowering) -> None:
    x, y = ctx.source(0), ctx.result()
    low, _ = _amounts(ctx.node.attrs, len(x.dims))
    size = x.dtype.size
    bits = np.asarray(ctx.node.attrs["value"]).astype(x.dtype.numpy).tobytes()
    pattern = int.from_bytes(bits, "little", signed=size == 8)
    extents, source, target = [], 0, 0
    for i, a in enumerate(low):
        extents.append(max(min(x.dims[i], y.dims[i] - a) - max(-a, 0), 0))
        source += max(-a, 0) * x.strides[i]
        target += max(a, 0) * y.strides[i]
    if ctx.node.out.numel == 0:
        return
    if tuple(extents) != y.dims:
        ctx.emit("fill", y=y.slot, n=ctx.node.out.numel, element_bytes=size, pattern=pattern)
    if 0 not in extents:
        ctx.emit("strided_copy", x=ctx.offset(x.slot, source * size),
                 y=ctx.offset(y.slot, target * size), element_bytes=size, rank=len(extents),
                 extents=extents, x_strides=x.strides, y_strides=y.strides)  # fmt: skip


def _array(shape: tuple[int, ...], dtype: DType = DType.F32) -> Array:
    x = np.random.default_rng(len(shape)).integers(-50, 50, shape)
    return x.astype(dtype.numpy)


def _pad_samples() -> Iterator[Sample]:
    cases: list[tuple[DType, tuple[int, ...], tuple[int, ...], tuple[int, ...], AttrValue]] = [
        (DType.F32, (2, 3, 5), (0, 1, 2), (0, 0, 3), 0.0),
        (DType.F32, (4, 33), (1, 1), (1, 1), -np.inf),
        (DType.F32, (5, 6), (-1, 2), (2, -3), -0.0),
        (DType.I64, (3, 2), (0, -1), (1, 0), -7),
        (DType.BOOL, (3,), (2,), (1,), True),
        (DType.F32, (0, 3), (1, 0), (0, 2), 1.5),
        (DType.F32, (2, 3), (-2, 0), (0, 0), 1.0),
        (DType.F32, (3,), (5,), (-4,), 2.0),
    ]
    for dtype, shape, low, high, value in cases:
        attrs = {"low": low, "high": high, "value": value}
        yield Sample(f"{shape}/{low}{high}", (_array(shape, dtype),), attrs)


register(
    OpDef("pad", 303, Form.PAD, "x inside its bounds, the value outside; a negative amount cuts",
          _pad_infer, move_cost, _pad_samples, "exact", _pad_reference, _pad_rule,
          lower=_pad_lower,
          schema={"high": Attr(AttrKind.INTS, -LARGEST), "low": Attr(AttrKind.INTS, -LARGEST),
                  "value": Attr(AttrKind.NUMBER)})
)  # fmt: skip


# window: a last axis of `size` elements, `dilation` apart, from every `step`-th element of an axis


def _window_ints(attrs: Attrs, rank: int) -> tuple[int, int, int, int]:
    axis = axis_attr(attrs, "dim", rank)
    size, step, dilation = (dim_attr(attrs, k) for k in ("size", "step", "dilation"))
    return axis, size, step, dilation  # type: ignore[return-value]


def _window_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x = one(types)
    axis, size, step, dilation = _window_ints(attrs, x.rank)
    room = x.shape[axis] - (dilation * (size - 1) + 1)
    if isinstance(room, int) and room < 0:
        raise ValueError(f"window: {size} elements do not fit axis {axis} of {x}")
    n = floordiv(room, step) + 1
    return (TensorType(x.dtype, (*x.shape[:axis], n, *x.shape[axis + 1 :], size)),)


def _window_rule(node: Bound) -> IndexRule:
    src, out = node.inputs[0].dims, node.out.dims
    axis, _, step, dilation = _window_ints(node.attrs, len(src))
    coords = []
    for i, (d, s) in enumerate(zip(src, contiguous_strides(src), strict=True)):
        coeffs = [0] * len(out)
        coeffs[i] = step if i == axis else 1
        if i == axis:
            coeffs[-1] = dilation
        coords.append(Coord(tuple(coeffs), d, s))
    return IndexRule(out, (Access(tuple(coords)),))


def _window_samples() -> Iterator[Sample]:
    for shape, dim, size, step, dilation in [((3, 9), 1, 3, 2, 1), ((7, 2, 3), 0, 2, 1, 3),
                                             ((2, 65), 1, 2, 2, 1), ((0, 4), 1, 4, 1, 1)]:  # fmt: skip
        attrs = {"dim": dim, "size": size, "step": step, "dilation": dilation}
        yield Sample(f"{shape}@{dim}/{size},{step},{dilation}", (_array(shape),), attrs)


_STEP = Attr(AttrKind.INT, 1)
register(
    OpDef("window", 265, Form.MOVEMENT,
          "windows of `size` elements, `dilation` apart, every `step` elements of one axis, as a last axis",
          _window_infer, move_cost, _window_samples, "exact", move_reference, _window_rule,
          schema={"dilation": _STEP, "dim": AXIS, "size": _STEP, "step": _STEP})
)  # fmt: skip


# flip


def _flip_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x = one(types)
    axis_attr(attrs, "dim", x.rank)
    return (x,)


def _flip_rule(node: Bound) -> IndexRule:
    dims, axis = node.out.dims, node.int_attr("dim")
    terms: list[tuple[int | None, int, int]] = [
        (i, -1, max(d - 1, 0)) if i == axis else (i, 1, 0) for i, d in enumerate(dims)
    ]
    return IndexRule(dims, (access_by_dims(dims, len(dims), terms),))


def _flip_samples() -> Iterator[Sample]:
    for shape, dim in [((3, 5), 1), ((4, 3, 65), 0), ((2, 33, 3), 1), ((0, 2), 0), ((1,), 0)]:
        yield Sample(f"{shape}@{dim}", (_array(shape),), {"dim": dim})


register(
    OpDef("flip", 266, Form.MOVEMENT, "one axis reversed", _flip_infer, move_cost, _flip_samples,
          "exact", move_reference, _flip_rule, schema=ALONG)
)  # fmt: skip
