"""Which states of a step may be overwritten by their new values: those that nobody reads later."""

from __future__ import annotations

from collections import Counter

from ree.compiler.fusion import Group, bases
from ree.compiler.ir import Graph, Kind, Ref


def in_place_states(g: Graph, groups: list[Group]) -> frozenset[int]:
    """Indices of states whose new value can be written over the old one.

    The new value is computed by pointwise work, in a group that runs after every other reader of the
    old one and after the loss (so that a loss that is not finite leaves the state as it was), and that
    group reads the old value at the place it writes, not through a view; no other output is the old
    value or a view of it. An unchanged state is one too.
    """
    producers, base, uses = g.producers(), bases(g), Counter(g.outputs)
    home = {n.first: i for i, grp in enumerate(groups) for n in grp.nodes}
    last: dict[int, int] = {}  # state -> last group that reads it
    elsewhere: dict[
        int, set[int]
    ] = {}  # state -> groups that read it in another way than place by place
    for i, grp in enumerate(groups):
        for n in grp.nodes:
            for s in n.sources:
                root = base(s)
                if root.kind is not Kind.STATE:
                    continue
                last[root.index] = max(last.get(root.index, -1), i)
                direct = (
                    s == root
                    and n in grp.pointwise
                    and n.results[0].dims == g.states[root.index].dims
                )
                if not direct:
                    elsewhere.setdefault(root.index, set()).add(i)
    n_states = len(g.states)
    loss = -1
    if len(g.outputs) > n_states:
        ref = base(g.outputs[n_states])
        loss = home.get(producers[ref.index].first, -1) if ref.kind is Kind.VALUE else -1
    copied = {
        root.index
        for i, ref in enumerate(g.outputs)
        if (root := base(ref)).kind is Kind.STATE and ref != Ref(Kind.STATE, i)
    }  # outputs that are views of old values are copied when all else is done
    found = set()
    for i, ref in enumerate(g.outputs[:n_states]):
        if ref == Ref(Kind.STATE, i):
            found.add(i)
            continue
        if ref.kind is not Kind.VALUE or uses[ref] > 1 or i in copied:
            continue
        node = producers[ref.index]
        at = home.get(node.first, -1)
        if at < 0 or node not in groups[at].pointwise:
            continue
        if at > loss and at >= last.get(i, -1) and at not in elsewhere.get(i, ()):
            found.add(i)
    return frozenset(found)
