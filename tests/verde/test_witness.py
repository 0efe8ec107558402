"""Sorts: the defender names an index, and only what does not follow from it is false."""

from dataclasses import replace

import numpy as np
import pytest

from ree.compiler.ir import Builder
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.traces.encoding import ZERO, sha256
from ree.traces.merkle import leaf_hash, node_hash
from ree.verde.fault import Fault, FaultyParty, recompute, with_bits
from ree.verde.game import Game
from ree.verde.moves import Phase, State
from ree.verde.party import Party, play, run_of
from ree.verde.protocol import Reason
from ree.verde.rehearsal import in_values, shown
from ree.verde.scope import VALUES
from ree.verde.selections import Sort


class Chooser(FaultyParty):
    """A liar about an element of a sort who commits to given entries."""

    def __init__(self, run, value, element, entries, instance):
        self.fault, self.false = Fault(value, element, 0), entries
        x = run.values[value]
        Party.__init__(
            self, recompute(run, value, with_bits(x, element, entries[-1])), instance.digest
        )

    def derived(self, s, d, sources):
        if (s.tree, s.tensor, s.element) == (VALUES, self.fault.value, self.fault.element):
            return list(self.false)
        return super().derived(s, d, sources)


def sorting(n, ties):
    b = Builder()
    x = b.input(TensorType(DType.F32, (3, n)))
    node = b.add_node("sort", (x,), {"dim": 1, "descending": True})
    values = node.value
    indices = type(values)(values.kind, node.first + 1)
    program = Program(b.finish((b.add("neg", values), indices)), Names(("x",), ("v", "i"), ()), ())
    rng = np.random.default_rng(n)
    given = rng.standard_normal((3, n)).astype(np.float32)
    return run_of(program, (np.maximum(given, 0.25) if ties else given,))


def false_entries(d, sources, lie, rng):
    """Entries of a liar. All but the last kind let the claim about the place of a wrong index stand."""
    right = d.choose(0, sources)
    wrong = int(rng.choice(np.flatnonzero(np.arange(d.n) != right)))
    if lie in ("index", "count") and d.result == 0:  # one that gives another element
        x = sources[0].reshape(-1)[d.base : d.base + d.n]
        other = np.flatnonzero(x != x[right])
        wrong = int(rng.choice(other))
    entries = d.naming(right if lie == "element" else wrong, sources).tolist()
    if lie == "count":  # wrong by as much as the claim needs, from somewhere on
        off, at = d.position - entries[d.n], int(rng.integers(1, d.n + 1))
        entries[at : d.n + 1] = [(e + off) % 2**64 for e in entries[at : d.n + 1]]
    if lie == "range":
        entries[0] = d.n + int(rng.integers(1 << 40))
        entries[-1] = entries[0] if d.result else 0x3F800001
    if lie == "element":
        entries[-1] ^= 1
    if lie == "hidden":  # the index is another one than the last entry says
        entries[0] = right
    if lie == "any":
        entries[1 : d.n + 1] = map(int, rng.integers(0, d.n, d.n))
    return entries


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 60, 61, 62, 63, 64, 190, 1300])
@pytest.mark.parametrize("lie", ["index", "count", "range", "element", "hidden", "any"])
def test_a_liar_about_a_sort_loses(n, ties, lie):
    run, instance = sorting(n, ties)
    rng, played = np.random.default_rng(n), 0
    honest, game = Party(run, instance.digest), Game(run.scope)
    for result in (0, 1):
        for _ in range(1 if n > 1000 else 3):
            element = int(rng.integers(3 * n))
            d, sources = run.scope.derivation(VALUES, result, element), run.sources(result)
            x = sources[0].reshape(-1)[d.base : d.base + n]
            if lie in ("index", "count") and result == 0 and (x == x[d.choose(0, sources)]).all():
                continue
            entries = false_entries(d, sources, lie, rng)
            if entries[-1] == d.entries(sources)[-1]:
                continue  # of equal elements: no lie about the value
            liar = Chooser(run, result, element, entries, instance)
            end = play(game, State(liar.statement), liar, honest)
            assert end.winner == "challenger", (result, end.reason, end.trail)
            assert end.cause is Reason.EXECUTED, end.reason
            end = play(game, State(honest.statement), honest, liar)
            assert end.winner == "defender", end.reason
            played += 1
    assert played


class Silent(Chooser):
    """Commits to a derivation whose first leaf it does not open."""

    def _derive(self, s):
        return replace(super()._derive(s), first=None)


def test_a_choice_that_is_not_opened_loses_at_once():
    run, instance = sorting(1300, False)
    d, sources = run.scope.derivation(VALUES, 1, 5), run.sources(1)
    entries = false_entries(d, sources, "index", np.random.default_rng(0))
    liar, honest = Silent(run, 1, 5, entries, instance), Party(run, instance.digest)
    end = play(Game(run.scope), State(liar.statement), liar, honest)
    assert (end.winner, end.reason[:8]) == ("challenger", "no proof")
    assert play(Game(run.scope), State(honest.statement), honest, liar).winner == "defender"


class Hidden(Chooser):
    """Opens its choice, and commits to leaves whose bytes nobody has but in the first and the last."""

    def _make(self, s):
        tree = self.entries(s).tree
        hashes = [sha256(b"nothing", i.to_bytes(8, "big")) for i in range(tree.count)]
        for i in (0, tree.count - 1):
            hashes[i] = leaf_hash(tree.leaf(i))
        return Digests(hashes)

    def _derive(self, s):
        move, tree, last = super()._derive(s), self._make(s), self.entries(s).tree.count - 1
        return replace(move, entries=tree.root(), last=replace(move.last, proof=tree.prove(last)),
                       first=replace(move.first, proof=tree.prove(0)))  # fmt: skip

    def _tree(self, s):
        return self._make(s) if s.node.kind == "entries" else super()._tree(s)


class Digests:
    """A tree of which only the hashes of the leaves are known."""

    def __init__(self, hashes):
        self.levels = [hashes]
        while len(self.levels[-1]) > 1:
            row = [*self.levels[-1], *[ZERO] * (len(self.levels[-1]) % 2)]
            self.levels.append([node_hash(a, b) for a, b in zip(row[::2], row[1::2], strict=True)])

    def node(self, level, index):
        return self.levels[level][index] if index < len(self.levels[level]) else ZERO

    def root(self):
        return self.node(len(self.levels) - 1, 0)

    def prove(self, index):
        return tuple(self.node(i, index >> i ^ 1) for i in range(len(self.levels) - 1))


def test_nothing_is_searched(monkeypatch):
    """The derivation that follows from a liar's choice is made once, however little of it is shown."""
    made, naming = [], Sort.naming
    monkeypatch.setattr(Sort, "naming", lambda d, i, x: made.append(i) or naming(d, i, x))
    run, instance = sorting(20000, False)
    d, sources = run.scope.derivation(VALUES, 1, 5), run.sources(1)
    entries = false_entries(d, sources, "index", np.random.default_rng(0))
    liar, honest = Hidden(run, 1, 5, entries, instance), Party(run, instance.digest)
    made.clear()
    end = play(Game(run.scope), State(liar.statement), liar, honest)
    assert end.winner == "challenger"
    assert made == [d.choose(0, sources), entries[0]]


def test_a_leaf_that_nobody_asked_for_is_refused():
    """A derivation of one leaf, and one whose entries nobody chooses."""
    run, instance = sorting(20, False)
    party, game = Party(run, instance.digest), Game(run.scope)
    for value in (0, 2):
        s = shown(party, in_values(party), value, 7)
        move = party.move(s)
        assert move.first is None
        assert game.apply(s, move).phase is not Phase.OVER
        assert game.apply(s, replace(move, first=move.last)).winner == "challenger"
