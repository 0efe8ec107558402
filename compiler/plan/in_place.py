"""Which states may be overwritten by their new values: those whose old values nobody reads later."""

from __future__ import annotations

from collections import Counter, defaultdict

from ree.compiler.ir import Graph, Kind, Node, Ref
from ree.compiler.plan.fusion import Group, bases
from ree.kernels import opdef
from ree.kernels.opdef import Form


def in_place_states(g: Graph, groups: list[Group], commit: int) -> dict[Ref, int]:
    """Values that can be written over a state, with its index; an unchanged state is one too.

    A new value lies there if its group runs after group `commit` and after every other reader of the old
    one, and reads the old value at the place it writes, not through a view. It is made by pointwise work,
    or by a chain of scatters, whose kernels may write over their first source: each of them then stands in the
    state's memory, under the same conditions. A reshape of a whole value is the same memory, and counts as that
    value. No other output may be an old value or a view of one.
    """
    return _Finder(g, groups, commit).run()


class _Finder:
    def __init__(self, g: Graph, groups: list[Group], commit: int) -> None:
        self.g, self.groups, self.commit = g, groups, commit
        self.producers, self.base = g.producers(), bases(g)
        self.uses = Counter(map(self._whole, g.outputs))
        self.seen = Counter(map(self.base, g.outputs))
        self.home = {n.first: i for i, grp in enumerate(groups) for n in grp.nodes}
        self.readers: dict[Ref, list[tuple[int, Node, Ref]]] = defaultdict(list)  # by what is read
        for i, grp in enumerate(groups):
            for n in grp.nodes:
                for s in n.sources:
                    self.readers[self.base(s)].append((i, n, s))

    def run(self) -> dict[Ref, int]:
        found: dict[Ref, int] = {}
        for i, ref in enumerate(self.g.outputs[: len(self.g.states)]):
            old = Ref(Kind.STATE, i)
            if ref == old:
                found[ref] = i
            elif ref.kind is Kind.VALUE and self.uses[whole := self._whole(ref)] == 1:
                versions = self._versions(whole, old)
                if all(map(self._may_follow, versions, versions[1:])):
                    found |= dict.fromkeys((*versions[1:], ref), i)
        return found

    def _whole(self, ref: Ref) -> Ref:
        """What a source is a reshape of, as a whole: the same elements in the same order."""
        while ref.kind is Kind.VALUE and (node := self.producers[ref.index]).op == "view":
            ref = node.sources[0]
        return ref

    def _versions(self, new: Ref, old: Ref) -> list[Ref]:
        """What lies in a state's memory one after the other, from the old value to the new one."""
        chain = [new]
        while chain[-1].kind is Kind.VALUE and self._updates(
            node := self.producers[chain[-1].index]
        ):
            chain.append(self._whole(node.sources[0]))
        return chain[::-1] if chain[-1] == old else [old, new]

    def _updates(self, node: Node) -> bool:
        return opdef.form_of(node.op) is Form.SCATTER and node.first in self.home

    def _may_follow(self, old: Ref, new: Ref) -> bool:
        """Whether `new` may be written where `old` lies."""
        node = self.producers[new.index]
        at = self.home.get(node.first, -1)
        if at <= self.commit or self.seen[old]:  # an output that is a view is copied at the end
            return False
        reads = self.readers[old]
        if self._updates(node) and self._whole(node.sources[0]) == old:
            mine = [self._whole(s) for _, n, s in reads if n is node]
            return mine == [old] and all(i < at for i, n, _ in reads if n is not node)
        if node not in self.groups[at].pointwise:
            return False
        return all(i < at or (i == at and self._direct(n, s, old)) for i, n, s in reads)

    def _direct(self, n: Node, s: Ref, old: Ref) -> bool:
        """Whether a node of a group reads the old value element by element where the group writes."""
        grp = self.groups[self.home[n.first]]
        same = n.results[0].dims == self.g.type_of(old).dims
        return s == old and same and n in grp.pointwise
