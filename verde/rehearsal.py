"""An honest party against pointers: every operation of an element that a challenger may point at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ree.compiler.ir import Kind, Ref
from ree.traces.tensor import LEAF_BYTES
from ree.verde.derivation import load_bits
from ree.verde.moves import Move, Phase, State
from ree.verde.party import Party
from ree.verde.scope import VALUES, ProgramScope

Step = Callable[[State, Move], State]


def borders(count: int, width: int) -> list[int]:
    """First and last operations, and those beside the borders of the leaves that hold their results: of
    the first two leaves and the last two."""
    per = LEAF_BYTES // width
    at = {0, 1, count - 2, count - 1}
    for leaf in {1, 2, count // per - 1, count // per}:
        at |= {leaf * per + d for d in (-1, 0, 1)}
    return sorted(i for i in at if 0 <= i < count)


def shown(party: Party, s: State, tensor: int, element: int) -> State:
    """The dispute about an element, once its bytes are shown; s: where it stands in that tree of tensors."""
    scope = party.game.scope(s)
    t = scope.type(s.tree, tensor)
    at = element * t.dtype.size
    raw = party.tensors(s).leaf(tensor, at // LEAF_BYTES)[at % LEAF_BYTES :][: t.dtype.size]
    s = replace(s, tensor=tensor, element=element, bits=load_bits(raw, t.dtype))
    inside = scope.row_program(s.tree, tensor) is not None
    return replace(s, phase=Phase.ROWS if inside else Phase.DERIVE)


def in_values(party: Party) -> State:
    """The dispute among the values of a call."""
    return State(party.statement, values=party.committed[VALUES].root)


def prove(
    party: Party, step: Step, s: State, at: Iterable[int] | None = None
) -> Iterator[tuple[int, State]]:
    """Each operation of the element in s with the end of the dispute when a challenger points at it; at:
    which, the borders by default. What step and party raise is not caught."""
    s = step(s, party.move(s))
    d = party.game.derivation(s)
    entries, per = party.entries(s), LEAF_BYTES // d.width
    for i in borders(d.count, d.width) if at is None else at:
        there = replace(
            s,
            phase=Phase.PROVE,
            node=None,
            leaf=entries.leaf(i // per),
            leaf_index=i // per,
            entry=i,
        )
        yield i, step(there, party.move(there))


def rehearse(party: Party, step: Step) -> Iterator[tuple[str, State]]:
    """Pointers at the first and the last element of every value, of one among nodes that are alike, and in
    them at `borders`; the name of each and how the dispute ends."""
    s, scope, seen = in_values(party), party.run.scope, set[object]()
    for v, node in enumerate(scope.producers):
        t = scope.type(VALUES, v)
        sources = tuple((scope.typer(x), _way(scope, x)) for x in node.sources)
        key = (node.op, node.attrs, sources, v - node.first)
        if scope.is_move(VALUES, v) or t.numel == 0 or key in seen:
            continue
        seen.add(key)
        for element in sorted({0, t.numel - 1}):
            yield from _element(party, step, shown(party, s, v, element), f"{node.op} %{v}")


def _way(scope: ProgramScope, ref: Ref) -> tuple[object, ...]:
    """The moves between an operator and what is committed, and the kind of that."""
    hops: list[object] = []
    while ref.kind is Kind.VALUE and scope.is_move(VALUES, ref.index):
        node = scope.producers[ref.index]
        hops.append((node.op, node.attrs, node.results))
        ref = node.sources[0]
    return (*hops, ref.kind)


def _element(party: Party, step: Step, s: State, name: str) -> Iterator[tuple[str, State]]:
    if s.phase is not Phase.ROWS:
        for i, end in prove(party, step, s):
            yield f"operation {i} of element {s.element} of {name}", end
        return
    outer = s.element
    s = step(s, party.move(s))
    inner = party.game.scope(s)
    for i in range(inner.count(s.tree)):
        t = inner.type(s.tree, i)
        if inner.is_move(s.tree, i) or t.numel == 0:
            continue
        within = f"row node {i} in element {outer} of {name}"
        for element in sorted({0, t.numel - 1}):
            yield from _element(party, step, shown(party, s, i, element), within)
