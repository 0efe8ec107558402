"""Steps as plain functions: states become inputs."""

from __future__ import annotations

from ree.compiler.ir import Graph, Kind, Node, Ref


def states_as_inputs(g: Graph) -> Graph:
    """The graph whose first inputs are g's states, followed by g's inputs."""
    n = len(g.states)

    def move(r: Ref) -> Ref:
        if r.kind is Kind.STATE:
            return Ref(Kind.INPUT, r.index)
        return Ref(Kind.INPUT, r.index + n) if r.kind is Kind.INPUT else r

    nodes = tuple(
        Node(x.op, tuple(move(s) for s in x.sources), x.attrs, x.results, x.first, x.origin)
        for x in g.nodes
    )
    return Graph(g.symbols, (*g.states, *g.inputs), g.weights, g.consts, nodes,
                 tuple(move(r) for r in g.outputs), g.contract)  # fmt: skip
