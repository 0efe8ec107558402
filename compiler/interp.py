"""The interpreter: runs a bound graph through the references. Slow, and the oracle for all else."""

from __future__ import annotations

from collections.abc import Sequence

from ree.compiler.ir import Graph, Kind, Ref, bound_node
from ree.kernels import opdef
from ree.kernels.opdef import Array


def run(
    g: Graph, inputs: Sequence[Array], weights: Sequence[Array], states: Sequence[Array] = ()
) -> list[Array]:
    """Every value of a bound graph, in program order; inputs are canonical already."""
    typer = g.typer()
    values: list[Array] = []
    consts = [c.array() for c in g.consts]
    for n in g.nodes:
        sources = [lookup(s, values, inputs, weights, consts, states) for s in n.sources]
        reference = opdef.get(n.op).reference
        assert reference is not None  # checked at registration
        values.extend(reference(sources, bound_node(n, typer)))
    return values


def lookup(
    ref: Ref,
    values: Sequence[Array],
    inputs: Sequence[Array],
    weights: Sequence[Array],
    consts: Sequence[Array],
    states: Sequence[Array] = (),
) -> Array:
    """The array a source refers to."""
    match ref.kind:
        case Kind.VALUE:
            return values[ref.index]
        case Kind.WEIGHT:
            return weights[ref.index]
        case Kind.STATE:
            return states[ref.index]
        case Kind.INPUT:
            return inputs[ref.index]
        case Kind.CONST:
            return consts[ref.index]
    raise IndexError(f"source {ref} has no array")


def outputs(
    g: Graph, inputs: Sequence[Array], weights: Sequence[Array], states: Sequence[Array] = ()
) -> list[Array]:
    """The outputs of a bound graph."""
    values = run(g, inputs, weights, states)
    consts = [c.array() for c in g.consts]
    return [lookup(r, values, inputs, weights, consts, states) for r in g.outputs]
