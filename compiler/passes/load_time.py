"""What follows from the weights alone: computed once, when a program is loaded, not in every run."""

from __future__ import annotations

from ree.compiler.ir import Builder, Graph, Kind, Node, Ref
from ree.compiler.passes.canonical import drop_dead
from ree.compiler.passes.rewrite import copy_node, rebuild, start, translate
from ree.compiler.plan.fusion import bases
from ree.kernels import opdef
from ree.kernels.opdef import Form
from ree.kernels.types import Sym


def prelude(g: Graph) -> tuple[int, ...]:
    """Values that depend on weights and constants alone and that other nodes read, ascending.

    Moves are not among them, since a view costs nothing, nor macros, nor anything whose size a symbol decides.
    """
    known: set[int] = set()  # values that follow from weights and constants
    from_weights: set[int] = set()  # those in which a weight has part
    for n in g.nodes:
        values = {s.index for s in n.sources if s.kind is Kind.VALUE}
        others = {s.kind for s in n.sources} - {Kind.VALUE}
        fixed = values <= known and others <= {Kind.WEIGHT, Kind.CONST}
        symbolic = any(not t.is_static for t in n.results) or any(
            _has_symbol(v) for _, v in n.attrs
        )
        if not fixed or not n.sources or symbolic or opdef.form_of(n.op) is None:
            continue
        results = range(n.first, n.first + len(n.results))
        known.update(results)
        if any(s.kind is Kind.WEIGHT for s in n.sources) or values & from_weights:
            from_weights.update(results)
    producers, base = g.producers(), bases(g)
    read: set[int] = set()
    for n in g.nodes:
        if n.first in known:
            continue
        for s in n.sources:
            root = base(s)
            if root.kind is Kind.VALUE and root.index in from_weights:
                read.add(root.index)
    return tuple(sorted(v for v in read if opdef.form_of(producers[v].op) is not Form.MOVEMENT))


def prelude_graph(g: Graph, values: tuple[int, ...]) -> Graph:
    """The program of g's prelude: no inputs, one output per value."""
    needed = set(values)
    keep = []
    for n in reversed(g.nodes):
        if any(v in needed for v in range(n.first, n.first + len(n.results))):
            keep.append(n)
            needed.update(s.index for s in n.sources if s.kind is Kind.VALUE)
    b = start(g)
    b.symbols, b.inputs, b.states = [], [], []
    new: dict[Ref, Ref] = {}
    for n in reversed(keep):
        results = copy_node(b, n, tuple(translate(b, g, new, s) for s in n.sources))
        new.update({Ref(Kind.VALUE, n.first + i): r for i, r in enumerate(results)})
    return b.finish(tuple(new[Ref(Kind.VALUE, v)] for v in values))


def without_prelude(g: Graph, values: tuple[int, ...]) -> Graph:
    """g with the values of its prelude as further weights, in their order; it is for running alone, as
    its values are numbered anew."""
    types = g.value_types()

    def visit(b: Builder, n: Node, sources: tuple[Ref, ...]) -> tuple[Ref, ...]:
        results = range(n.first, n.first + len(n.results))
        old = iter(copy_node(b, n, sources)) if any(v not in weights for v in results) else iter(())
        return tuple(weights[v] if v in weights else next(old) for v in results)

    weights = {v: Ref(Kind.WEIGHT, len(g.weights) + i) for i, v in enumerate(values)}
    wide = Graph(g.symbols, g.inputs, (*g.weights, *(types[v] for v in values)), g.consts, g.nodes,
                 g.outputs, g.contract, g.states)  # fmt: skip
    return drop_dead(rebuild(wide, visit))


def _has_symbol(v: object) -> bool:
    return any(map(_has_symbol, v)) if isinstance(v, tuple) else isinstance(v, Sym)
