"""What follows from the weights alone: computed once, when a program is loaded, not in every run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ree.compiler.ir import Builder, Graph, Kind, Node, Ref
from ree.compiler.passes.canonical import drop_dead
from ree.compiler.passes.rewrite import copy_node, rebuild, start, translate
from ree.compiler.plan.fusion import bases
from ree.compiler.plan.stored import Stored, stored_matrices
from ree.kernels import opdef
from ree.kernels.opdef import Form
from ree.kernels.types import Sym


@dataclass(frozen=True)
class Prelude:
    """What a program that only runs has in place of nodes: further weights, `values` first, then those
    of `stored`, which are never made: a run reads the narrow weights that they follow from."""

    values: tuple[int, ...]
    stored: Mapping[Ref, Stored]

    def __bool__(self) -> bool:
        return bool(self.values or self.stored)


def prelude(g: Graph) -> Prelude:
    """Values that depend on weights and constants alone and that other nodes read, ascending, and matrices
    that are kept narrow.

    Moves are not among the values, since a view costs nothing, nor macros, nor anything whose size a symbol
    decides.
    """
    stored = stored_matrices(g)
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
            if s in stored:
                continue
            if root.kind is Kind.VALUE and root.index in from_weights:
                read.add(root.index)
    chosen = tuple(sorted(v for v in read if opdef.form_of(producers[v].op) is not Form.MOVEMENT))
    return Prelude(chosen, stored)


def prelude_graph(g: Graph, values: tuple[int, ...]) -> Graph:
    """The program that makes the values of g's prelude: no inputs, one output per value."""
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


def without_prelude(g: Graph, made: Prelude) -> Graph:
    """g with its prelude as further weights, in its order; it is for running alone, as its values are
    numbered anew."""
    types = g.value_types()

    def visit(b: Builder, n: Node, sources: tuple[Ref, ...]) -> tuple[Ref, ...]:
        results = range(n.first, n.first + len(n.results))
        old = iter(copy_node(b, n, sources)) if any(v not in weights for v in results) else iter(())
        return tuple(weights[v] if v in weights else next(old) for v in results)

    values = further(made)
    weights = {v: Ref(Kind.WEIGHT, len(g.weights) + i) for i, v in enumerate(values)}
    wide = Graph(g.symbols, g.inputs, (*g.weights, *(types[v] for v in values)), g.consts, g.nodes,
                 g.outputs, g.contract, g.states)  # fmt: skip
    return drop_dead(rebuild(wide, visit))


def further(made: Prelude) -> tuple[int, ...]:
    """The values that become weights, in their order."""
    return (*made.values, *(r.index for r in made.stored))


def stored_weights(made: Prelude, weights: int) -> dict[int, Stored]:
    """How those of the further weights that are kept narrow are kept, by index; the program has `weights`
    of its own."""
    return dict(enumerate(made.stored.values(), weights + len(made.values)))


def _has_symbol(v: object) -> bool:
    return any(map(_has_symbol, v)) if isinstance(v, tuple) else isinstance(v, Sym)
