"""An honest party against pointers: every operation of an element that a challenger may point at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ree.traces.tensor import LEAF_BYTES
from ree.verde.committed import entry_leaves
from ree.verde.derivation import load_bits
from ree.verde.moves import Move, Phase, State
from ree.verde.party import Party
from ree.verde.scope import VALUES

Step = Callable[[State, Move], State]


def borders(count: int, width: int) -> list[int]:
    """First and last operations, and those beside the borders of the leaves that hold their results: of
    the first two leaves and the last two."""
    per = LEAF_BYTES // width
    at = {0, 1, count - 2, count - 1}
    for leaf in {1, 2, count // per - 1, count // per}:
        at |= {leaf * per + d for d in (-1, 0, 1)}
    return sorted(i for i in at if 0 <= i < count)


def at_derive(party: Party, tensor: int, element: int) -> State:
    """The dispute about an element of a value, once its bytes are shown."""
    tensors = party.committed[VALUES]
    t = party.run.scope.type(VALUES, tensor)
    at, size = element * t.dtype.size, t.dtype.size
    raw = tensors.leaf(tensor, at // LEAF_BYTES)[at % LEAF_BYTES :][:size]
    return State(party.statement, Phase.DERIVE, values=tensors.root, tensor=tensor, element=element,
                 bits=load_bits(raw, t.dtype))  # fmt: skip


def prove(
    party: Party, step: Step, tensor: int, element: int, at: Iterable[int] | None = None
) -> Iterator[tuple[int, State]]:
    """Each operation of an element with the end of the dispute when a challenger points at it; at: which,
    the borders by default. What step and party raise is not caught."""
    s = at_derive(party, tensor, element)
    s = step(s, party.move(s))
    d = party.game.derivation(s)
    leaves = entry_leaves(party.entries(s), d.width)
    per = LEAF_BYTES // d.width
    for i in borders(d.count, d.width) if at is None else at:
        shown = replace(
            s, phase=Phase.PROVE, node=None, leaf=leaves[i // per], leaf_index=i // per, entry=i
        )
        yield i, step(shown, party.move(shown))
