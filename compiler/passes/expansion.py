"""Expansion: macro nodes of a bound graph become the ordinary nodes that they stand for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from ree.compiler.ir import Builder, Graph, Kind, Node, Ref, bound_node
from ree.kernels import macro, opdef
from ree.kernels.opdef import AttrValue, Bound
from ree.kernels.types import TensorType

MOST_NODES = 1 << 18  # of a graph with expansions


def has_any(g: Graph, names: Collection[str]) -> bool:
    """Whether a graph has nodes of these operators."""
    return any(n.op in names for n in g.nodes)


def expand(g: Graph, kept: Collection[str] = ()) -> Graph:
    """A bound graph with every macro written out but those in `kept`, the rest as it was; ValueError for too
    many nodes.

    Values are numbered anew; constants, weights, inputs and states keep their places. A node of an expansion
    has its macro's origin, with the step behind the module.
    """

    def macro_of(op: str) -> macro.Macro | None:
        return None if op in kept else macro.get(op)

    if not any(macro_of(n.op) for n in g.nodes):
        return g
    typer = g.typer()
    total = len(g.nodes)
    for n in g.nodes:
        m = macro_of(n.op)
        if m is not None:
            total += m.count(bound_node(n, typer)) - 1
            if total > MOST_NODES:
                raise ValueError(
                    f"{n.op} of {typer(n.sources[0])} written out is {total:,} nodes, at most {MOST_NODES:,}"
                )
    b = Builder(g.contract)
    b.inputs, b.weights, b.states, b.consts = map(list, (g.inputs, g.weights, g.states, g.consts))  # type: ignore[assignment]
    new: dict[Ref, Ref] = {}
    for n in g.nodes:
        sources = tuple(new.get(s, s) for s in n.sources)
        m = macro_of(n.op)
        results: Sequence[Ref]
        if m is None:
            first = len(b.values)
            b.nodes.append(Node(n.op, sources, n.attrs, n.results, first, n.origin))
            b.values.extend(n.results)
            results = [Ref(Kind.VALUE, first + i) for i in range(len(n.results))]
        else:
            results = m.expand(_Expander(b, n, bound_node(n, typer), sources))
        new.update({Ref(Kind.VALUE, n.first + i): r for i, r in enumerate(results)})
    return b.finish(tuple(new.get(r, r) for r in g.outputs))


class _Expander:
    """Appends the nodes of one macro; their types are inferred once for all that are alike."""

    def __init__(self, b: Builder, n: Node, node: Bound, sources: tuple[Ref, ...]) -> None:
        self.node, self.sources = node, sources
        self._b, self._origin, self._here = b, n.origin, n.origin
        self._known: dict[tuple[object, ...], tuple[TensorType, ...]] = {}

    def at(self, step: int | None) -> None:
        if step is None:
            self._here = self._origin
            return
        module = f"{self._origin.module}, step {step}".removeprefix(", ")
        self._here = replace(self._origin, module=module)

    def add(self, op: str, *sources: Ref, **attrs: AttrValue) -> Ref:
        b, pairs = self._b, tuple(sorted(attrs.items()))
        types = tuple(map(b.type_of, sources))
        key = (op, types, pairs)
        if key not in self._known:
            self._known[key] = opdef.get(op).infer(types, attrs)
        node = Node(op, sources, pairs, self._known[key], len(b.values), self._here)
        b.nodes.append(node)
        b.values.extend(node.results)
        return node.value

    def result(self, first: Ref, i: int) -> Ref:
        return replace(first, index=first.index + i)
