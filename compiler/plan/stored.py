"""Weights that a program keeps narrower than float32 and widens before it multiplies by them.

    bf16, f16:  linear(x, cast[f32](w))
    i8:         linear(x, view[n, k](cast[f32](q) * scale (+ offset)))    q [n, k / block, block],
                scale and offset [n, k / block, 1]

The widened weight is a value like any other, and a traced run makes it. Any other run need not: contractions
read the narrow one and widen what they use, with the same operations on each element.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ree.compiler.ir import Graph, Kind, Node, Ref, users
from ree.kernels.constants import SEGMENT, STORED_BF16, STORED_F16, STORED_I8
from ree.kernels.types import DType

LEAST = 16  # elements of a block: those that a kernel takes at once
_HALF = {DType.BF16: STORED_BF16, DType.F16: STORED_F16}


@dataclass(frozen=True)
class Stored:
    """How a matrix [n, k] is kept.

    elements: a weight. scale, offset: of STORED_I8, float32 weights, one element for `block` consecutive k;
    offset may be None.
    """

    storage: int
    elements: Ref
    scale: Ref | None = None
    offset: Ref | None = None
    block: int = 0

    @property
    def weights(self) -> tuple[Ref, ...]:
        return tuple(r for r in (self.elements, self.scale, self.offset) if r is not None)


def stored_matrices(g: Graph) -> dict[Ref, Stored]:
    """Values that only products read, as their matrix, and that follow from narrow weights as above, with
    nothing on the way that others read."""
    producers, readers = g.producers(), Counter(r for r, _ in users(g))
    readers.update(g.outputs)
    multiplied = {n.sources[1] for n in g.nodes if n.op == "linear"}
    read_otherwise = {r for r, n in users(g) if n.op != "linear" or n.sources[0] == r}
    read_otherwise |= set(g.outputs)

    def made_by(ref: Ref, op: str) -> Node | None:
        """The node of an operator that makes a value for one reader."""
        node = producers[ref.index] if ref.kind is Kind.VALUE and readers[ref] == 1 else None
        return node if node is not None and node.op == op else None

    out = {}
    for ref in sorted(multiplied - read_otherwise):
        if ref.kind is Kind.VALUE:
            node = producers[ref.index]
            found = _half(g, node) if node.op == "cast" else _blocks(g, node, made_by)
            if found is not None:
                out[ref] = found
    return out


def _half(g: Graph, cast: Node) -> Stored | None:
    source = cast.sources[0]
    storage = _HALF.get(g.type_of(source).dtype) if source.kind is Kind.WEIGHT else None
    f32 = cast.results[0].dtype is DType.F32
    return Stored(storage, source) if storage is not None and f32 else None


def _blocks(g: Graph, view: Node, made_by: Callable[[Ref, str], Node | None]) -> Stored | None:
    """The parts of a matrix that is i8 in blocks, or None where it is not written so."""
    if view.op != "view":
        return None
    added, offset = made_by(view.sources[0], "add"), None
    product = made_by(view.sources[0], "mul")
    if added is not None:
        product, offset = made_by(added.sources[0], "mul"), added.sources[1]
    if product is None:
        return None
    cast, scale = made_by(product.sources[0], "cast"), product.sources[1]
    terms = [r for r in (scale, offset) if r is not None]
    if cast is not None:  # as torch widens: by way of i64
        cast = made_by(cast.sources[0], "cast") or cast
    if (
        cast is None
        or cast.results[0].dtype not in (DType.F32, DType.I64)
        or any(r.kind is not Kind.WEIGHT for r in (cast.sources[0], *terms))
    ):
        return None
    t = g.type_of(cast.sources[0])
    n, k = view.results[0].shape
    if t.dtype is not DType.I8 or t.rank != 3:
        return None
    rows, blocks, block = t.dims
    term = (rows, blocks, 1)
    fits = (rows, blocks * block) == (n, k) and block >= LEAST and SEGMENT % block == 0
    if not fits or any(
        g.type_of(r).shape != term or g.type_of(r).dtype is not DType.F32 for r in terms
    ):
        return None
    return Stored(STORED_I8, cast.sources[0], scale, offset, block)
