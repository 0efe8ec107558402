"""Grouping: which nodes run as one kernel.

A group is a contraction or nothing, followed by pointwise nodes of one iteration shape. A node joins
the group that produces its latest source if every other source is already there when that group
runs. Fusing cannot change bits: no operation is reassociated or contracted across nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ree.compiler.ir import Graph, Kind, Node, Ref
from ree.kernels import opdef
from ree.kernels.opdef import Form

MAX_GROUP = 32  # nodes; keeps compile time and register pressure bounded
MAX_EXTERNAL = 24  # distinct sources from outside


@dataclass
class Group:
    """Nodes that run as one kernel, in program order."""

    nodes: list[Node] = field(default_factory=list)

    @property
    def anchor(self) -> Node | None:
        """The node with a kernel of its own, if any; always the first."""
        first = self.nodes[0]
        return None if opdef.form_of(first.op) is Form.POINTWISE else first

    @property
    def pointwise(self) -> list[Node]:
        """The pointwise nodes, in order."""
        return self.nodes if self.anchor is None else self.nodes[1:]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.nodes[0].results[0].dims

    def external(self) -> list[Ref]:
        """Sources of the pointwise nodes that are not results of pointwise nodes of the group."""
        inside = {n.value for n in self.pointwise}
        out = [s for n in self.pointwise for s in n.sources if s not in inside]
        return list(dict.fromkeys(out))


def group(g: Graph, fuse: bool = True) -> list[Group]:
    """Groups in execution order. Moves belong to no group: they are views until somebody needs a
    copy. `g` must be bound."""
    groups: list[Group] = []
    home: dict[int, int] = {}  # value -> index of the group that makes it available
    base = bases(g)
    for n in g.nodes:
        form = opdef.form_of(n.op)
        ready = max((home[s.index] for s in n.sources if s.kind is Kind.VALUE), default=-1)
        if form is Form.MOVEMENT:
            home[n.first] = ready
            continue
        if form is Form.POINTWISE and fuse and ready >= 0 and _joins(n, groups[ready], base):
            groups[ready].nodes.append(n)
            home[n.first] = ready
            continue
        groups.append(Group([n]))
        for i in range(len(n.results)):
            home[n.first + i] = len(groups) - 1
    return groups


def _joins(n: Node, target: Group, base: Callable[[Ref], Ref]) -> bool:
    first = target.nodes[0]
    form = opdef.form_of(first.op)
    if (form is not Form.POINTWISE and (form is None or form.chain is None)) or len(
        target.nodes
    ) >= MAX_GROUP:
        return False
    if n.results[0].dims != target.shape or n.results[0].numel == 0:
        return False
    members = {m.value for m in target.nodes}
    if not any(s in members for s in n.sources):
        return False
    trial = Group([*target.nodes, n])
    if len(trial.external()) > MAX_EXTERNAL:
        return False
    # a member read through a view would be read before it is complete
    return not any(base(s) in members for s in n.sources if s not in members)


def bases(g: Graph) -> Callable[[Ref], Ref]:
    """What the chain of moves behind a source starts from, of any source; one walk finds them all."""
    found: dict[Ref, Ref] = {}
    for n in g.nodes:
        if opdef.form_of(n.op) is Form.MOVEMENT:
            found[n.value] = found.get(n.sources[0], n.sources[0])
    return lambda ref: found.get(ref, ref)
