"""An honest party against pointers: descents from the claim down, and every operation of an element that a
challenger may point at. And what compiled code has made, against single operations in exact arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product

import numpy as np

from ree.compiler.ir import Kind, Ref
from ree.traces.tensor import LEAF_BYTES
from ree.verde.derivation import load_bits
from ree.verde.game import Game
from ree.verde.moves import FAN, Move, Phase, Point, State
from ree.verde.party import Party
from ree.verde.scope import ROW, VALUES, ProgramScope, computed

Step = Callable[[State, Move], State]
Ask = Callable[[State], Move]  # a party's move


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


def picked(party: Party, step: Step, value: int, element: int, rng: np.random.Generator) -> State:
    """The dispute about an element of a value; of a composite, about one at random of its row program."""
    s = shown(party, in_values(party), value, element)
    if s.phase is not Phase.ROWS:
        return s
    s = step(s, party.move(s))
    inner = party.game.scope(s)
    i = int(rng.choice(computed(inner, ROW)))
    return shown(party, s, i, int(rng.integers(inner.type(ROW, i).numel)))


def prove(
    party: Party, step: Step, s: State, at: Iterable[int] | None = None, ask: Ask | None = None
) -> Iterator[tuple[int, State]]:
    """Each operation of the element in s with the end of the dispute when a challenger points at it; at:
    which, the borders by default. What step and party raise is not caught."""
    ask = ask or party.move
    s = step(s, ask(s))
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
        yield i, step(there, ask(there))


def rehearse(party: Party, step: Step, ask: Ask | None = None) -> Iterator[tuple[str, State]]:
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
            there = shown(party, s, v, element)
            yield from _element(party, step, there, f"{node.op} %{v}", ask or party.move)


def _way(scope: ProgramScope, ref: Ref) -> tuple[object, ...]:
    """The moves between an operator and what is committed, and the kind of that."""
    hops: list[object] = []
    while ref.kind is Kind.VALUE and scope.is_move(VALUES, ref.index):
        node = scope.producers[ref.index]
        hops.append((node.op, node.attrs, node.results))
        ref = node.sources[0]
    return (*hops, ref.kind)


def _element(
    party: Party, step: Step, s: State, name: str, ask: Ask
) -> Iterator[tuple[str, State]]:
    if s.phase is not Phase.ROWS:
        for i, end in prove(party, step, s, ask=ask):
            yield f"operation {i} of element {s.element} of {name}", end
        return
    outer = s.element
    s = step(s, ask(s))
    inner = party.game.scope(s)
    for i in range(inner.count(s.tree)):
        t = inner.type(s.tree, i)
        if inner.is_move(s.tree, i) or t.numel == 0:
            continue
        within = f"row node {i} in element {outer} of {name}"
        for element in sorted({0, t.numel - 1}):
            yield from _element(party, step, shown(party, s, i, element), within, ask)


def descents(game: Game, s: State, step: Step, ask: Ask) -> Iterator[tuple[str, State]]:
    """Disputes from their first state to the end: among the values, the outputs and, of a run, the losses, with
    a challenger that always points at the first there is, and one that always points at the last."""
    trees = ("values", "outputs", "loss") if s.run else ("values", "outputs")
    for last, (choice, tree) in product((False, True), enumerate(trees)):
        if tree == "values" and not game.program.count(VALUES):
            continue
        end = s
        while end.phase is not Phase.OVER:
            own = end.player == "defender"
            end = step(end, ask(end) if own else Point(_pointed(game, end, choice, last)))
        yield f"the {'last' if last else 'first'} of all in the {tree}", end


def _pointed(game: Game, s: State, choice: int, last: bool) -> int:
    """What such a challenger points at."""
    if s.phase is Phase.CHOOSE:
        return choice
    if not last:
        return 0
    if s.phase is Phase.PICK:
        assert s.node is not None
        down = min(FAN, s.node.level)
        return ((s.node.count - 1) >> (s.node.level - down)) - (s.node.index << down)
    if s.phase is Phase.ELEMENT:
        t = game.scope(s).type(s.tree, s.tensor)
        per, count = LEAF_BYTES // t.dtype.size, t.numel
    else:
        d = game.derivation(s)
        per, count = LEAF_BYTES // d.width, d.count
    return min(per, count - s.leaf_index * per) - 1


def sampled(party: Party, rng: np.random.Generator, seconds: float) -> int:
    """Executes operations at random, of elements at random of every value in turn, by exact integer arithmetic,
    for so many seconds; how many. ValueError, with its place, for one that gives something else."""
    scope, done, end = party.run.scope, 0, time.monotonic() + seconds
    values = computed(scope, VALUES)
    while values:
        for v in values:
            element = int(rng.integers(scope.type(VALUES, v).numel))
            s = picked(party, party.game.apply, v, element, rng)
            d = party.game.derivation(s)
            for i in {*map(int, rng.integers(0, d.count, 8)), d.count - 1}:
                party.execute(s, i)
                done += 1
            if time.monotonic() > end:
                return done
    return done
