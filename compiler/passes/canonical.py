"""Canonicalisation: what happens before a program gets its hash.

Identity moves, redundant casts and choices between equals disappear, moves of moves merge, subgraphs of
constants are folded through our own references, equal nodes are shared, RMS normalisation written out is
recognised, dead nodes and unused constants are dropped. Repeated to a fixed point, so that it is idempotent.
"""

from __future__ import annotations

import numpy as np

from ree.compiler import legal
from ree.compiler.ir import Builder, Graph, Kind, Node, Ref, bound_node
from ree.compiler.passes.rewrite import copy_node, rebuild, start, translate
from ree.compiler.text import print_attrs
from ree.kernels import opdef
from ree.kernels.opdef import Bound, Form
from ree.kernels.ops.casts import WIDE
from ree.kernels.types import DType, Sym, TensorType

FOLD_ELEMENTS = 1 << 16  # larger results are computed at run time


def canonicalise(g: Graph) -> Graph:
    """The canonical form of g; its outputs have the same bits."""
    while True:
        legal.check(g)
        new = drop_dead(recognise_norms(simplify(g)))
        if new == g:
            return g
        g = new


def simplify(g: Graph) -> Graph:
    """Identity moves, merged moves, folding and common subexpressions, in one walk."""
    seen: dict[tuple[object, ...], tuple[Ref, ...]] = {}

    def visit(b: Builder, n: Node, sources: tuple[Ref, ...]) -> tuple[Ref, ...]:
        if _is_identity(b, n, sources):
            return (sources[0],)
        if n.op == "where" and sources[1] == sources[2] and b.type_of(sources[1]) == n.results[0]:
            return (sources[1],)
        if n.op == "view" and sources[0].kind is Kind.VALUE:
            inner = b.nodes[_producer(b, sources[0])]
            if inner.op == "view":
                sources = inner.sources
                if b.type_of(sources[0]) == n.results[0]:
                    return (sources[0],)
        if n.op == "cast" and sources[0].kind is Kind.VALUE:
            sources = _unwidened(b, sources[0])
            if b.type_of(sources[0]) == n.results[0]:
                return sources
        key = (n.op, sources, print_attrs(n))
        if key not in seen:
            folded = _fold(b, n, sources)
            seen[key] = folded if folded is not None else copy_node(b, n, sources)
        return seen[key]

    return rebuild(g, visit)


def _unwidened(b: Builder, source: Ref) -> tuple[Ref]:
    """What a narrow integer was widened from, which a cast takes to any type as well."""
    n = b.nodes[_producer(b, source)]
    if n.op == "cast" and n.results[0].dtype is DType.I64:
        narrow = b.type_of(n.sources[0]).dtype
        if WIDE.get(narrow) is DType.I64:
            return (n.sources[0],)
    return (source,)


def _producer(b: Builder, ref: Ref) -> int:
    """Index of the node that defines a value; nodes with one result come one value each."""
    lo, hi = 0, len(b.nodes) - 1
    while lo < hi:
        mid = (lo + hi + 1) // 2
        if b.nodes[mid].first <= ref.index:
            lo = mid
        else:
            hi = mid - 1
    return lo


def _is_identity(b: Builder, n: Node, sources: tuple[Ref, ...]) -> bool:
    if n.op in ("view", "expand", "slice", "cast", "cat") and len(sources) == 1:
        return b.type_of(sources[0]) == n.results[0]
    if n.op == "permute":
        dims = n.attr_map["dims"]
        return isinstance(dims, tuple) and list(dims) == sorted(dims)  # type: ignore[type-var]
    return False


def _fold(b: Builder, n: Node, sources: tuple[Ref, ...]) -> tuple[Ref, ...] | None:
    """The node's results as constants when all is known and small; None otherwise."""
    if not all(s.kind is Kind.CONST for s in sources) or opdef.form_of(n.op) is None:
        return None
    if not all(t.is_static and t.numel <= FOLD_ELEMENTS for t in n.results):
        return None
    if any(isinstance(v, Sym) for v in n.attr_map.values()):
        return None  # a number that an input's size gives
    types = tuple(b.type_of(s) for s in sources)
    largest = max((t.numel for t in types), default=1)
    op = opdef.get(n.op)
    if op.form is Form.MOVEMENT and n.results[0].numel > largest:
        return None  # expanding a constant is free at run time, and not as a constant
    try:
        node = opdef.bind(n.op, types, n.attr_map, {})
    except (ValueError, TypeError):
        return None
    assert op.reference is not None
    try:
        arrays = op.reference([b.consts[s.index].array() for s in sources], node)
    except IndexError:
        return None  # an error of the run
    return tuple(b.const(np.asarray(a)) for a in arrays)


def recognise_norms(g: Graph) -> Graph:
    """x * rsqrt(mean(x*x) + eps) [* w] as rms_norm, which has the same bits by its rule."""
    producers = g.producers()
    typer = g.typer()

    def node(ref: Ref, op: str) -> Node | None:
        if ref.kind is not Kind.VALUE:
            return None
        n = producers[ref.index]
        return n if n.op == op else None

    def match(n: Node) -> tuple[Ref, float] | None:
        """(x, eps) when n is x * rsqrt(mean(x*x, last, keepdim) + eps)."""
        for x, r in (n.sources, n.sources[::-1]):
            rsqrt = node(r, "rsqrt")
            add = node(rsqrt.sources[0], "add") if rsqrt else None
            mean = node(add.sources[0], "mean") if add else None
            square = node(mean.sources[0], "mul") if mean else None
            if not (add and mean and square) or square.sources != (x, x):
                continue
            t = typer(x)
            eps = add.sources[1]
            if mean.attr_map != {"dim": t.rank - 1, "keepdim": True}:
                continue
            if eps.kind is Kind.CONST and g.consts[eps.index].type.shape == ():
                return x, float(g.consts[eps.index].array())
        return None

    def visit(b: Builder, n: Node, sources: tuple[Ref, ...]) -> tuple[Ref, ...]:
        if n.op != "mul":
            return copy_node(b, n, sources)
        for i in (0, 1):  # (x * r) * w, with w over the last axis
            inner, w = n.sources[i], n.sources[1 - i]
            m = node(inner, "mul")
            found = match(m) if m else None
            if found and typer(w) == TensorType(typer(found[0]).dtype, typer(found[0]).shape[-1:]):
                x = translate(b, g, new, found[0])
                return (b.add("rms_norm", x, sources[1 - i], eps=found[1], weight=True),)
        found = match(n)
        if found:
            x = translate(b, g, new, found[0])
            return (b.add("rms_norm", x, eps=found[1], weight=False),)
        return copy_node(b, n, sources)

    # as rebuild(), but `visit` needs the translation of sources further back
    b = start(g)
    new: dict[Ref, Ref] = {}
    for n in g.nodes:
        b.origin = n.origin
        results = visit(b, n, tuple(translate(b, g, new, s) for s in n.sources))
        new.update({Ref(Kind.VALUE, n.first + i): r for i, r in enumerate(results)})
    return b.finish(tuple(translate(b, g, new, r) for r in g.outputs))


def drop_dead(g: Graph) -> Graph:
    """Without nodes whose results nobody needs, and without unused constants."""
    live = {r.index for r in g.outputs if r.kind is Kind.VALUE}
    keep: list[Node] = []
    for n in reversed(g.nodes):
        if any(n.first + i in live for i in range(len(n.results))):
            keep.append(n)
            live.update(s.index for s in n.sources if s.kind is Kind.VALUE)
    kept = {n.first for n in keep}
    b = start(g)
    new: dict[Ref, Ref] = {}
    for n in g.nodes:
        if n.first in kept:
            b.origin = n.origin
            results = copy_node(b, n, tuple(translate(b, g, new, s) for s in n.sources))
            new.update({Ref(Kind.VALUE, n.first + i): r for i, r in enumerate(results)})
    return b.finish(tuple(translate(b, g, new, r) for r in g.outputs))


def bound_nodes(g: Graph) -> list[Bound]:
    """Operator views of all nodes of a bound graph."""
    typer = g.typer()
    return [bound_node(n, typer) for n in g.nodes]
