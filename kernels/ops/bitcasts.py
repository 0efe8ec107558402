"""An element's bits as another element type of the same width; what is not canonical becomes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from ree.kernels.canonical import FLOATS, canonical
from ree.kernels.numerics import CANONICAL_NAN
from ree.kernels.opdef import (
    Array,
    Attrs,
    Bound,
    Cost,
    Form,
    OpDef,
    Sample,
    bytes_moved,
    register,
)
from ree.kernels.ops.casts import SCALAR, load, store
from ree.kernels.ops.pointwise import index_rule
from ree.kernels.samples import SPECIAL
from ree.kernels.scalar.emit_numpy import evaluate
from ree.kernels.scalar.language import (
    I32,
    U32,
    Expr,
    Function,
    bitcast,
    convert,
    ne,
    param,
    select,
)
from ree.kernels.schema import Attr, AttrKind
from ree.kernels.types import DType, TensorType


@lru_cache(maxsize=128)
def _function(source: DType, to: DType) -> Function:
    """The bits of a loaded element as an element of `to` to be stored."""
    x = param(0, SCALAR[source])
    body = x if source is to else _as(_pattern(x, source), to)
    return Function(f"bitcast_{to.text}", (SCALAR[source],), body)


def _pattern(x: Expr, d: DType) -> Expr:
    """A loaded element's bits, zero-extended to u32; of a NaN, which within a fused group may be any, the
    canonical ones."""
    if d is DType.BOOL:
        x = convert(x, I32)
    u = bitcast(x, U32)
    if d is DType.F32:
        return select((u & 0x7FFFFFFF) <= 0x7F800000, u, CANONICAL_NAN)
    return u if d.size == 4 else u & ((1 << 8 * d.size) - 1)


def _as(u: Expr, d: DType) -> Expr:
    """Bits as an element of d: a NaN is the canonical one, and true is what is not 0."""
    if d in FLOATS:
        _, infinity, nan = FLOATS[d]
        magnitude = u & ((1 << (8 * d.size - 1)) - 1)
        return bitcast(select(magnitude <= infinity, u, nan), SCALAR[d])
    if d is DType.BOOL:
        return ne(u, 0)
    y = bitcast(u, I32)
    shift = 32 - 8 * d.size
    return (y << shift) >> shift if d in (DType.I16, DType.I8) else y


def _target(attrs: Attrs) -> DType:
    to = attrs["dtype"]
    if not isinstance(to, DType):
        raise ValueError("bitcast: expected a dtype")
    return to


def _infer(types: Sequence[TensorType], attrs: Attrs) -> tuple[TensorType, ...]:
    if len(types) != 1:
        raise ValueError(f"bitcast: expected 1 source, got {len(types)}")
    source, to = types[0].dtype, _target(attrs)
    if source.size != to.size:
        raise ValueError(f"bitcast: {source.text} and {to.text} are of different widths")
    return (TensorType(to, types[0].shape),)


def _scalar(dtypes: Sequence[DType], attrs: Attrs) -> Function:
    return _function(dtypes[0], _target(attrs))


def _reference(inputs: Sequence[Array], node: Bound) -> tuple[Array, ...]:
    source, to = node.inputs[0].dtype, node.out.dtype
    return (store(evaluate(_function(source, to), load(inputs[0], source)), to),)


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(6)
    edges = {
        1: [0, 1, 2, 127, 128, 255],
        2: [0, 1, 0x8000, 0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFE01, 0x7F80, 0xFF80, 0x7F81, 0xFFFF],
        4: [0x80000000, 0x7F800001, 0xFF800001, 0x7FC00000, 0xFFC00000, 0xFFFFFFFF],
    }
    for source in DType:
        for to in DType:
            if source.size != to.size or source is to:
                continue
            width = np.dtype(f"u{source.size}")
            raw = rng.integers(0, 1 << 8 * source.size, 145, dtype=np.uint64).astype(width)
            if source.size == 4:
                raw = np.concatenate([raw, SPECIAL.view(np.uint32)])
            raw = np.concatenate([np.array(edges[source.size], width), raw])
            x = raw > 127 if source is DType.BOOL else raw.view(source.numpy)
            yield Sample(f"{source.text}->{to.text}", (canonical(x),), {"dtype": to})
    yield Sample("i64", (rng.integers(-(2**63), 2**63 - 1, (3, 5)),), {"dtype": DType.I64})


register(
    OpDef("bitcast", 105, Form.POINTWISE,
          "the element's bits as another type of its width; NaN is canonical, bool is != 0",
          _infer, lambda node: Cost(0, bytes_moved(node)), _samples, "exact", _reference, index_rule,
          _scalar, schema={"dtype": Attr(AttrKind.DTYPE)})
)  # fmt: skip
