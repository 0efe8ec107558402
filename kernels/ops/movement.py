"""Data movement: operators that are an index rule and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from ree.kernels.index import (
    Access,
    Coord,
    IndexRule,
    access_by_dims,
    broadcast_access,
    contiguous_strides,
    flat_access,
    read,
)
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
from ree.kernels.schema import ALONG, AXIS, Attr, AttrKind
from ree.kernels.types import MAX_RANK, Dim, Shape, Sym, TensorType, floordiv, product


def shape_attr(attrs: Attrs, name: str) -> Shape:
    """Attribute `name` as a tuple of dimensions; ValueError if it is not one."""
    v = attrs[name]
    if not isinstance(v, tuple) or not all(_is_dim(d) for d in v):
        raise ValueError(f"attribute {name}: expected a tuple of dimensions")
    return v  # type: ignore[return-value]


def dim_attr(attrs: Attrs, name: str) -> Dim:
    """Attribute `name` as a dimension; ValueError if it is not one."""
    v = attrs[name]
    if not _is_dim(v):
        raise ValueError(f"attribute {name}: expected an integer")
    return v  # type: ignore[return-value]


def axis_attr(attrs: Attrs, name: str, rank: int) -> int:
    """Attribute `name` as an axis of a tensor of `rank`; ValueError outside [0, rank)."""
    v = dim_attr(attrs, name)
    if not isinstance(v, int) or not 0 <= v < rank:
        raise ValueError(f"attribute {name}: expected an axis in [0, {rank}), got {v}")
    return v


def _is_dim(v: AttrValue) -> bool:
    return isinstance(v, int | Sym) and not isinstance(v, bool)


def one(types: Sequence[TensorType], n: int = 1) -> TensorType:
    """The first of exactly n source types; ValueError otherwise."""
    if len(types) != n:
        raise ValueError(f"expected {n} sources, got {len(types)}")
    return types[0]


def move_reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    """Reference of any operator that only moves elements by its index rule."""
    from ree.kernels.opdef import get

    index_rule = get(node.op).index_rule
    assert index_rule is not None
    rule = index_rule(node)
    out = node.out
    if len(rule.accesses) == 1 or rule.accesses[0].indirect:
        return (read(rule, 0, inputs).reshape(out.dims),)
    # pieces: each output element is inside the bounds of exactly one source
    from ree.kernels.index import flat_indices

    result = np.zeros(out.numel, out.dtype.numpy)
    for i, x in enumerate(inputs):
        where = flat_indices(rule, i).reshape(-1)
        inside = where >= 0
        result[inside] = np.ascontiguousarray(x).reshape(-1)[where[inside]]
    return (result.reshape(out.dims),)


def move_cost(node: Bound) -> Cost:
    return Cost(0, bytes_moved(node))


def _arange(shape: tuple[int, ...]) -> Array:
    return np.arange(prod(shape), dtype=np.float32).reshape(shape)


# view


def _view_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, shape = one(types), shape_attr(attrs, "shape")
    if product(x.shape) != product(shape):
        raise ValueError(f"cannot view {x} as [{','.join(map(str, shape))}]")
    return (TensorType(x.dtype, shape),)


def _view_rule(node: Bound) -> IndexRule:
    src, out = node.inputs[0].dims, node.out.dims
    digits = _refine(src, out)
    if digits is None:
        return IndexRule(out, (flat_access(prod(src), out),))
    # a coordinate of the source is spelled by the digits that make up its extent
    coords, at = [], 0
    for size, stride in zip(src, contiguous_strides(src), strict=True):
        coeffs = [0] * len(digits)
        run, extent = [], 1
        while extent < size:
            run.append(at)
            extent *= digits[at]
            at += 1
        for d, weight in zip(run, contiguous_strides([digits[j] for j in run]), strict=True):
            coeffs[d] = weight
        coords.append(Coord(tuple(coeffs), size, stride))
    return IndexRule(digits, (Access(tuple(coords)),))


def _refine(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...] | None:
    """The coarsest common refinement of two shapes of equal size, without ones; None if none."""
    x, y = [d for d in a if d != 1], [d for d in b if d != 1]
    if 0 in x or 0 in y:
        return None
    digits: list[int] = []
    i = j = 0
    p, q = (x[0], y[0]) if x and y else (1, 1)
    while i < len(x) and j < len(y):
        # peel the smaller from the most significant side
        small, large = min(p, q), max(p, q)
        if large % small:
            return None
        # the most significant digit of the larger is large // small of the *remaining* product
        digits.append(small)
        if p == q:
            i, j = i + 1, j + 1
            p, q = (x[i] if i < len(x) else 1), (y[j] if j < len(y) else 1)
        elif p > q:
            p, j = p // q, j + 1
            q = y[j] if j < len(y) else 1
        else:
            q, i = q // p, i + 1
            p = x[i] if i < len(x) else 1
    return tuple(digits)


def _view_samples() -> Iterator[Sample]:
    for src, dst in [((2, 6, 4), (2, 24)), ((6, 4), (2, 3, 4)), ((3, 4), (4, 3)), ((5,), (1, 5, 1)),
                     ((0, 3), (3, 0)), ((1,), ()), ((2, 130, 3), (260, 3))]:  # fmt: skip
        yield Sample(f"{src}->{dst}", (_arange(src),), {"shape": dst})


register(
    OpDef("view", 260, Form.MOVEMENT, "the same elements in row-major order", _view_infer, move_cost,
          _view_samples, "exact", move_reference, _view_rule, schema={"shape": Attr(AttrKind.DIMS)})
)  # fmt: skip


# permute


def _permute_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, dims = one(types), shape_attr(attrs, "dims")
    if sorted(d for d in dims if isinstance(d, int)) != list(range(x.rank)):
        raise ValueError(f"dims {dims} is not a permutation of {x.rank} axes")
    return (TensorType(x.dtype, tuple(x.shape[d] for d in dims if isinstance(d, int))),)


def _permute_rule(node: Bound) -> IndexRule:
    src, out = node.inputs[0].dims, node.out.dims
    dims = shape_attr(node.attrs, "dims")
    terms: list[tuple[int | None, int, int]] = [(dims.index(i), 1, 0) for i in range(len(src))]
    return IndexRule(out, (access_by_dims(src, len(out), terms),))


def _permute_samples() -> Iterator[Sample]:
    for shape, dims in [((2, 3, 4), (2, 0, 1)), ((5, 7), (1, 0)), ((2, 0, 3), (1, 2, 0)),
                        ((2, 3, 4, 5), (0, 2, 1, 3)), ((33, 65), (1, 0))]:  # fmt: skip
        yield Sample(f"{shape}/{dims}", (_arange(shape),), {"dims": dims})


register(
    OpDef("permute", 261, Form.MOVEMENT, "axes reordered", _permute_infer, move_cost,
          _permute_samples, "exact", move_reference, _permute_rule,
          schema={"dims": Attr(AttrKind.INTS, 0, MAX_RANK - 1)})
)  # fmt: skip


# expand


def _expand_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x, shape = one(types), shape_attr(attrs, "shape")
    if len(shape) < x.rank:
        raise ValueError(f"cannot expand {x} to rank {len(shape)}")
    for have, want in zip(x.shape, shape[len(shape) - x.rank :], strict=True):
        if have not in (1, want):
            raise ValueError(f"cannot expand {x} to [{','.join(map(str, shape))}]")
    return (TensorType(x.dtype, shape),)


def _expand_rule(node: Bound) -> IndexRule:
    out = node.out.dims
    return IndexRule(out, (broadcast_access(node.inputs[0].dims, out),))


def _expand_samples() -> Iterator[Sample]:
    for src, dst in [((1, 3), (4, 3)), ((3, 1), (2, 3, 5)), ((), (2, 2)), ((1,), (0,))]:
        yield Sample(f"{src}->{dst}", (_arange(src),), {"shape": dst})


register(
    OpDef("expand", 262, Form.MOVEMENT, "axes of size 1 repeated", _expand_infer, move_cost,
          _expand_samples, "exact", move_reference, _expand_rule,
          schema={"shape": Attr(AttrKind.DIMS)})
)  # fmt: skip


# slice


def _slice_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    x = one(types)
    axis = axis_attr(attrs, "dim", x.rank)
    start, stop, step = (dim_attr(attrs, k) for k in ("start", "stop", "step"))
    assert isinstance(step, int)  # by the schema
    size = x.shape[axis]
    if all(isinstance(d, int) for d in (start, stop, size)) and not (0 <= start <= stop <= size):  # type: ignore[operator]
        raise ValueError(f"slice [{start}:{stop}] of {x}: out of range")
    length = floordiv(stop - start + (step - 1), step)
    return (TensorType(x.dtype, (*x.shape[:axis], length, *x.shape[axis + 1 :])),)


def _slice_rule(node: Bound) -> IndexRule:
    src, out = node.inputs[0].dims, node.out.dims
    axis, start, step = (node.int_attr(k) for k in ("dim", "start", "step"))
    terms: list[tuple[int | None, int, int]] = [
        (i, step, start) if i == axis else (i, 1, 0) for i in range(len(src))
    ]
    return IndexRule(out, (access_by_dims(src, len(out), terms),))


def _slice_samples() -> Iterator[Sample]:
    for shape, dim, start, stop, step in [((5, 6), 0, 1, 4, 1), ((5, 6), 1, 0, 6, 2),
                                          ((4,), 0, 2, 2, 1), ((3, 130, 2), 1, 127, 130, 1)]:  # fmt: skip
        attrs = {"dim": dim, "start": start, "stop": stop, "step": step}
        yield Sample(f"{shape}[{start}:{stop}:{step}]@{dim}", (_arange(shape),), attrs)


register(
    OpDef("slice", 263, Form.MOVEMENT, "elements start, start+step, ... of one axis", _slice_infer,
          move_cost, _slice_samples, "exact", move_reference, _slice_rule,
          schema={"dim": AXIS, "start": Attr(AttrKind.DIM), "step": Attr(AttrKind.INT, 1),
                  "stop": Attr(AttrKind.DIM)})
)  # fmt: skip


# cat: hashed as a value of its own, since several sources meet in it


def _cat_infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    if not types:
        raise ValueError("cat needs a source")
    first = types[0]
    axis = axis_attr(attrs, "dim", first.rank)
    total: Dim = 0
    for t in types:
        rest = (*t.shape[:axis], *t.shape[axis + 1 :])
        if t.dtype != first.dtype or rest != (*first.shape[:axis], *first.shape[axis + 1 :]):
            raise ValueError(f"cannot concatenate {first} and {t} along axis {axis}")
        total = total + t.shape[axis]
    return (TensorType(first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :])),)


def _cat_rule(node: Bound) -> IndexRule:
    out, axis = node.out.dims, node.int_attr("dim")
    accesses, before = [], 0
    for t in node.inputs:
        terms: list[tuple[int | None, int, int]] = [
            (i, 1, -before if i == axis else 0) for i in range(t.rank)
        ]
        accesses.append(access_by_dims(t.dims, len(out), terms))
        before += t.dims[axis]
    return IndexRule(out, tuple(accesses))


def _cat_lower(ctx: Lowering) -> None:
    axis, y = ctx.node.int_attr("dim"), ctx.result()
    before = 0
    for i, t in enumerate(ctx.node.inputs):
        if t.numel:
            x = ctx.source(i)
            slot = ctx.offset(y.slot, before * y.strides[axis] * t.dtype.size)
            ctx.emit("strided_copy", x=x.slot, y=slot, element_bytes=t.dtype.size, rank=t.rank,
                     extents=t.dims, x_strides=x.strides, y_strides=y.strides)  # fmt: skip
        before += t.dims[axis]


def _cat_samples() -> Iterator[Sample]:
    for shapes, dim in [(((2, 3), (2, 5)), 1), (((2, 3), (1, 3), (4, 3)), 0), (((0, 2), (3, 2)), 0),
                        (((2, 1, 64), (2, 7, 64)), 1), (((4,),), 0)]:  # fmt: skip
        arrays = tuple(_arange(s) + 100 * i for i, s in enumerate(shapes))
        yield Sample(f"{shapes}@{dim}", arrays, {"dim": dim})


register(
    OpDef("cat", 264, Form.CAT, "sources side by side along one axis", _cat_infer, move_cost,
          _cat_samples, "exact", move_reference, _cat_rule, lower=_cat_lower, schema=ALONG)
)  # fmt: skip
