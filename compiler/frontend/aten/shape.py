"""Importers of data movement and creation: views, slices, concatenation, gathers, constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from ree.compiler.frontend.aten.reduce import sum_of
from ree.compiler.frontend.importer import IMPORTERS, Importer, RefusedCall, Scalar, aten
from ree.compiler.ir import Ref
from ree.kernels.ops.casts import WIDE
from ree.kernels.types import (
    Dim,
    DType,
    Sym,
    TensorType,
    broadcast_shapes,
    dim_min,
    floordiv,
    product,
)

END = 2**63 - 1  # what torch writes for "to the end"


@aten("view", "reshape", "_unsafe_view")
def _view(m: Importer, x: Ref, sizes: Any) -> Ref:
    shape = m.shape(x, tuple(sizes))
    cut = [d for d in shape if "floordiv" in str(d)]
    if cut and product(m.type(x).shape) != product(shape):
        raise RefusedCall(
            f"cannot view {m.type(x)} with a dimension of {cut[0]}: expected one that divides without rest; "
            "declare the axis as a multiple in dynamic_shapes, such as 4 * Dim('n')"
        )
    return m.view(x, shape)


@aten("permute")
def _permute(m: Importer, x: Ref, dims: Any) -> Ref:
    rank = m.type(x).rank
    return m.add("permute", x, dims=tuple(m.axis(d, rank) for d in dims))


@aten("transpose.int")
def _transpose(m: Importer, x: Ref, a: int, b: int) -> Ref:
    rank = m.type(x).rank
    return m.transpose(x, m.axis(a, rank), m.axis(b, rank))


@aten("t")
def _t(m: Importer, x: Ref) -> Ref:
    return m.transpose(x, 0, 1) if m.type(x).rank == 2 else x


@aten("expand")
def _expand(m: Importer, x: Ref, sizes: Any, *, implicit: bool = False) -> Ref:
    have = m.type(x).shape
    pad = len(sizes) - len(have)
    shape = tuple(
        have[i - pad] if isinstance(d, int) and d == -1 else d for i, d in enumerate(sizes)
    )
    return m.add("expand", x, shape=shape)


@aten("unsqueeze")
def _unsqueeze(m: Importer, x: Ref, dim: int) -> Ref:
    shape = list(m.type(x).shape)
    shape.insert(m.axis(dim, len(shape) + 1), 1)
    return m.view(x, tuple(shape))


@aten("squeeze.dim", "squeeze.dims", "squeeze")
def _squeeze(m: Importer, x: Ref, dims: Any = None) -> Ref:
    t = m.type(x)
    listed = range(t.rank) if dims is None else [dims] if isinstance(dims, int) else dims
    axes = {m.axis(d, t.rank) for d in listed}
    return m.view(x, tuple(d for i, d in enumerate(t.shape) if i not in axes or d != 1))


def _bound(d: Dim | None, size: Dim, default: Dim) -> Dim:
    """A slice bound in [0, size], as Python does it."""
    if d is None or d == END:
        return default
    if isinstance(d, int) and d < 0:
        d = d + size
        if isinstance(d, int):
            return max(d, 0)
        return d
    if isinstance(d, int) and d == 0:
        return 0
    if isinstance(d, int) and isinstance(size, Sym):
        return d  # torch.export has proved it, or recorded it as a range of the symbol
    if isinstance(d, Sym) and isinstance(size, int):
        return d
    return d if d == size else (dim_min(d, size) if isinstance(d, int) else d)


@aten("slice.Tensor")
def _slice(
    m: Importer, x: Ref, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Ref:
    t = m.type(x)
    axis = m.axis(dim, t.rank)
    size = t.shape[axis]
    lo, hi = _bound(start, size, 0), _bound(end, size, size)
    if isinstance(lo, int) and isinstance(hi, int):
        hi = max(lo, hi)
    return m.add("slice", x, dim=axis, start=lo, stop=hi, step=step)


@aten("select.int")
def _select(m: Importer, x: Ref, dim: int, index: Any) -> Ref:
    t = m.type(x)
    axis = m.axis(dim, t.rank)
    at = index + t.shape[axis] if isinstance(index, int) and index < 0 else index
    y = m.add("slice", x, dim=axis, start=at, stop=at + 1, step=1)
    return m.view(y, (*t.shape[:axis], *t.shape[axis + 1 :]))


@aten("split_with_sizes")
def _split_sizes(m: Importer, x: Ref, sizes: Any, dim: int = 0) -> tuple[Ref, ...]:
    axis = m.axis(dim, m.type(x).rank)
    out, at = [], 0
    for n in sizes:
        out.append(m.add("slice", x, dim=axis, start=at, stop=at + n, step=1))
        at = at + n
    return tuple(out)


@aten("split.Tensor")
def _split(m: Importer, x: Ref, n: int, dim: int = 0) -> tuple[Ref, ...]:
    axis = m.axis(dim, m.type(x).rank)
    size = m.type(x).shape[axis]
    if not isinstance(size, int):
        raise RefusedCall("split of a symbolic axis")
    sizes = [min(n, size - i) for i in range(0, size, n)]
    return tuple(_split_sizes(m, x, sizes, axis))


@aten("chunk")
def _chunk(m: Importer, x: Ref, chunks: int, dim: int = 0) -> tuple[Ref, ...]:
    size = m.type(x).shape[m.axis(dim, m.type(x).rank)]
    if not isinstance(size, int):
        raise RefusedCall("chunk of a symbolic axis")
    return _split(m, x, -(-size // chunks), dim)  # type: ignore[no-any-return]


@aten("getitem", "<built-in function getitem>")
def _getitem(m: Importer, x: tuple[Ref, ...], i: int) -> Ref:
    return x[i]


@aten("cat")
def _cat(m: Importer, xs: Any, dim: int = 0) -> Ref:
    kept = [x for x in xs if m.type(x).shape != (0,)] or list(xs[:1])
    kept, _ = m.promote(*kept)
    axis = m.axis(dim, m.type(kept[0]).rank)
    while len(kept) > 1:  # a node has at most four sources
        kept = [m.add("cat", *kept[i : i + 4], dim=axis) for i in range(0, len(kept), 4)]
    return kept[0]


@aten("stack")
def _stack(m: Importer, xs: Any, dim: int = 0) -> Ref:
    axis = m.axis(dim, m.type(xs[0]).rank + 1)
    return _cat(m, [_unsqueeze(m, x, axis) for x in xs], axis)  # type: ignore[no-any-return]


@aten("embedding")
def _embedding(m: Importer, table: Ref, idx: Ref, padding_idx: int = -1, by_frequency: bool = False,
               sparse: bool = False) -> Ref:  # fmt: skip
    """Rows of a table; no gradient flows to the row at padding_idx."""
    idx = m.cast(idx, DType.I64)
    y = m.add("embedding", table, idx)
    if m.random is None:  # no gradients are asked for
        return y
    if by_frequency:
        raise RefusedCall("gradients scaled by frequency")
    if padding_idx < 0:
        return y
    padding = m.add("eq", idx, m.scalar(padding_idx, DType.I64))
    shape = m.type(y).shape
    return m.add("where", m.view(padding, (*shape[:-1], 1)), m.stop(m.view(y, shape)), y)


@aten("unfold")
def _unfold(m: Importer, x: Ref, dim: int, size: int, step: int) -> Ref:
    rank = m.type(x).rank
    x = x if rank else m.view(x, (1,))
    y = m.add("window", x, dim=m.axis(dim, rank), size=size, step=step, dilation=1)
    return y if rank else m.view(y, (size,))


def _wide_index(m: Importer, idx: Ref) -> Ref:
    return m.cast(idx, DType.I64) if m.type(idx).dtype in WIDE else idx


@aten("index.Tensor")
def _index(m: Importer, x: Ref, indices: Any) -> Ref:
    t = m.type(x)
    axes = [i for i, idx in enumerate(indices) if idx is not None]
    kept = [_wide_index(m, idx) for idx in indices if idx is not None]
    if any(m.type(i).dtype is not DType.I64 for i in kept):
        raise RefusedCall("boolean-mask indexing: its result's shape depends on data")
    if len(kept) > 3:
        raise RefusedCall(f"{len(kept)} index tensors: expected at most 3")
    rest = [i for i in range(t.rank) if i not in axes]
    if axes != list(range(len(axes))):
        x = m.add("permute", x, dims=tuple(axes + rest))
    y = m.add("index", x, *kept)
    adjacent = axes == list(range(axes[0], axes[0] + len(axes)))
    if adjacent and axes[0] > 0:  # torch puts the indexed axes back where the first one was
        n = len(broadcast_shapes(*(m.type(i).shape for i in kept)))
        rank = m.type(y).rank
        before = list(range(n, n + axes[0]))
        dims = before + list(range(n)) + list(range(n + axes[0], rank))
        y = m.add("permute", y, dims=tuple(dims))
    return y


@aten("gather")
def _gather(m: Importer, x: Ref, dim: int, idx: Ref, *, sparse_grad: bool = False) -> Ref:
    t, it = m.type(x), m.type(idx)
    axis = m.axis(dim, t.rank)
    if product(it.shape) == 0:
        return m.zeros(TensorType(t.dtype, it.shape))
    if 0 in (t.rank, it.rank):
        y = m.add("gather", *(m.view(v, (1,)) for v in (x, _wide_index(m, idx))), dim=0)
        return m.view(y, it.shape)
    for i in range(t.rank):
        if i != axis and t.shape[i] != it.shape[i]:  # gather may read a leading part of x
            x = m.add("slice", x, dim=i, start=0, stop=it.shape[i], step=1)
    return m.add("gather", x, _wide_index(m, idx), dim=axis)


@aten("repeat")
def _repeat(m: Importer, x: Ref, sizes: Any) -> Ref:
    have = (1,) * (len(sizes) - m.type(x).rank) + m.type(x).shape
    inner = tuple(v for r, d in zip(sizes, have, strict=True) for v in (1, d))
    wide = tuple(v for r, d in zip(sizes, have, strict=True) for v in (r, d))
    y = m.add("expand", m.view(x, inner), shape=wide)
    return m.view(y, tuple(r * d for r, d in zip(sizes, have, strict=True)))


@aten("as_strided")
def _as_strided(m: Importer, x: Ref, sizes: Any, strides: Any, offset: int | None = None) -> Ref:
    """Elements of x, taken as contiguous, at a grid of flat positions."""
    numbers = (*sizes, *strides, *m.type(x).shape)
    if not all(isinstance(v, int) for v in numbers):
        raise RefusedCall("as_strided with symbolic sizes")
    at = np.full(tuple(sizes), offset or 0, np.int64)
    for axis, (n, stride) in enumerate(zip(sizes, strides, strict=True)):
        shape = [1] * len(sizes)
        shape[axis] = n
        at = at + np.arange(n, dtype=np.int64).reshape(shape) * stride
    total = product(m.type(x).shape)
    if at.size and at.max() >= total:
        raise RefusedCall("as_strided reads beyond its tensor")
    return m.add("index", m.view(x, (total,)), m.builder.const(at))


# creation


@aten("full")
def _full(
    m: Importer, sizes: Any, value: Any, *, dtype: DType | None = None, **ignored: Any
) -> Ref:
    if dtype is None:
        kinds = {bool: DType.BOOL, int: DType.I64, float: DType.F32}
        dtype = DType.I64 if isinstance(value, Sym) else kinds[type(value)]
    if dtype not in (DType.F32, DType.I64, DType.BOOL):
        raise RefusedCall(f"dtype {dtype.text}")
    if isinstance(value, Sym):
        return m.cast(m.add("full", shape=tuple(sizes), value=value, dtype=DType.I64), dtype)
    exact: Scalar = (
        bool(value) if dtype is DType.BOOL else int(value) if dtype is DType.I64
        else float(np.float32(value))
    )  # fmt: skip
    return m.add("full", shape=tuple(sizes), value=exact, dtype=dtype)


@aten("full_like")
def _full_like(m: Importer, x: Ref, value: Any, *, dtype: Any = None, **ignored: Any) -> Ref:
    t: TensorType = m.type(x)
    return _full(m, t.shape, value, dtype=dtype or t.dtype)  # type: ignore[no-any-return]


@aten("empty.memory_format")
def _empty(m: Importer, sizes: Any, *, dtype: DType | None = None, **ignored: Any) -> Ref:
    """What nobody wrote reads as zero."""
    return _full(m, sizes, 0, dtype=dtype or DType.F32)  # type: ignore[no-any-return]


for _name, _value in (("zeros", 0), ("ones", 1)):
    IMPORTERS[_name] = lambda m, sizes, dtype=None, _v=_value, **kw: _full(
        m, sizes, _v, dtype=dtype or DType.F32
    )
    IMPORTERS[f"{_name}_like"] = lambda m, x, dtype=None, _v=_value, **kw: _full_like(
        m, x, _v, dtype=dtype
    )
    IMPORTERS[f"new_{_name}"] = lambda m, x, sizes, dtype=None, _v=_value, **kw: _full(
        m, sizes, _v, dtype=dtype or m.type(x).dtype
    )


@aten("scalar_tensor")
def _scalar_tensor(m: Importer, value: Any, *, dtype: DType | None = None, **ignored: Any) -> Ref:
    return _full(m, (), value, dtype=dtype)  # type: ignore[no-any-return]


# the bits of elements

_INTEGER = {1: DType.I8, 2: DType.I16, 4: DType.I32, 8: DType.I64}  # by width in bytes


def _bits(m: Importer, x: Ref, dtype: DType) -> Ref:
    return x if m.type(x).dtype is dtype else m.add("bitcast", x, dtype=dtype)


@aten("view.dtype")
def _view_dtype(m: Importer, x: Ref, dtype: DType) -> Ref:
    """The bits as another type. Of another width: integers that are cut or put together, the lowest bits
    first, as they lie in the memory of a little-endian machine. torch takes no gradient through it."""
    t = m.type(x)
    have, want = t.dtype.size, dtype.size
    if dtype is t.dtype:
        return m.stop(m.view(x, t.shape))  # x itself goes on
    if have == want:
        return m.stop(_bits(m, x, dtype))
    x = m.cast(_bits(m, x, _INTEGER[have]), DType.I64)
    *lead, n = t.shape
    count = max(have, want) // min(have, want)
    steps = np.arange(count, dtype=np.int64) * 8 * min(have, want)
    shifts = m.builder.const(steps)
    if have > want:
        x = m.add("bitwise_right_shift", m.view(x, (*lead, n, 1)), shifts)
        x = m.view(m.cast(x, _INTEGER[want]), (*lead, n * count))
    else:
        x = m.view(x, (*lead, floordiv(n, count), count))
        low = m.add("bitwise_and", x, m.scalar((1 << 8 * have) - 1, DType.I64))
        parts = m.add("bitwise_left_shift", low, shifts)
        x = m.cast(sum_of(m, parts, (-1,), False), _INTEGER[want])
    return m.stop(_bits(m, x, dtype))
