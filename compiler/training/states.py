"""States and weights that become inputs: steps as plain functions, programs of any weights."""

from __future__ import annotations

from collections.abc import Callable

from ree.compiler.ir import Graph, Kind, Node, Ref


def states_as_inputs(g: Graph) -> Graph:
    """The graph whose first inputs are g's states, followed by g's inputs."""
    n = len(g.states)

    def move(r: Ref) -> Ref:
        if r.kind is Kind.STATE:
            return Ref(Kind.INPUT, r.index)
        return Ref(Kind.INPUT, r.index + n) if r.kind is Kind.INPUT else r

    return Graph(g.symbols, (*g.states, *g.inputs), g.weights, g.consts, _moved(g, move),
                 tuple(move(r) for r in g.outputs), g.contract)  # fmt: skip


def weights_as_inputs(g: Graph) -> Graph:
    """The graph whose first inputs are g's weights, followed by g's inputs."""
    n = len(g.weights)

    def move(r: Ref) -> Ref:
        if r.kind is Kind.WEIGHT:
            return Ref(Kind.INPUT, r.index)
        return Ref(Kind.INPUT, r.index + n) if r.kind is Kind.INPUT else r

    return Graph(g.symbols, (*g.weights, *g.inputs), (), g.consts, _moved(g, move),
                 tuple(move(r) for r in g.outputs), g.contract)  # fmt: skip


def _moved(g: Graph, move: Callable[[Ref], Ref]) -> tuple[Node, ...]:
    return tuple(
        Node(x.op, tuple(move(s) for s in x.sources), x.attrs, x.results, x.first, x.origin)
        for x in g.nodes
    )
