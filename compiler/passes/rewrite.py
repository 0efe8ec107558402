"""Rebuilding a graph node by node, the base of every pass."""

from __future__ import annotations

from collections.abc import Callable

from ree.compiler.ir import Builder, Graph, Kind, Node, Ref

Visit = Callable[[Builder, Node, tuple[Ref, ...]], tuple[Ref, ...]]


def rebuild(g: Graph, visit: Visit) -> Graph:
    """A new graph in which each node is what `visit(builder, node, new_sources)` returns for it:
    one new source per result. Inputs, weights and symbols keep their places."""
    b = start(g)
    new: dict[Ref, Ref] = {}
    for n in g.nodes:
        b.origin = n.origin
        sources = tuple(translate(b, g, new, s) for s in n.sources)
        for i, ref in enumerate(visit(b, n, sources)):
            new[Ref(Kind.VALUE, n.first + i)] = ref
    return b.finish(tuple(translate(b, g, new, r) for r in g.outputs))


def start(g: Graph) -> Builder:
    """A builder with g's interface and no nodes."""
    b = Builder(g.contract)
    b.symbols, b.inputs, b.weights = list(g.symbols), list(g.inputs), list(g.weights)
    b.states = list(g.states)
    return b


def translate(b: Builder, g: Graph, new: dict[Ref, Ref], ref: Ref) -> Ref:
    """The new graph's name of an old source."""
    if ref.kind is Kind.VALUE:
        return new[ref]
    return b.const(g.consts[ref.index]) if ref.kind is Kind.CONST else ref


def copy_node(b: Builder, n: Node, sources: tuple[Ref, ...]) -> tuple[Ref, ...]:
    """Append n with new sources; its new results."""
    m = b.add_node(n.op, sources, n.attr_map)
    return tuple(Ref(Kind.VALUE, m.first + i) for i in range(len(m.results)))
