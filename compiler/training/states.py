"""States and weights that become inputs, inputs that become states."""

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


def inputs_as_states(g: Graph, first: int) -> Graph:
    """The graph whose inputs from `first` on are its states instead."""

    def move(r: Ref) -> Ref:
        moves = r.kind is Kind.INPUT and r.index >= first
        return Ref(Kind.STATE, r.index - first) if moves else r

    return Graph(g.symbols, g.inputs[:first], g.weights, g.consts, _moved(g, move),
                 tuple(move(r) for r in g.outputs), g.contract, g.inputs[first:])  # fmt: skip


def _moved(g: Graph, move: Callable[[Ref], Ref]) -> tuple[Node, ...]:
    return tuple(
        Node(x.op, tuple(move(s) for s in x.sources), x.attrs, x.results, x.first, x.origin)
        for x in g.nodes
    )
