"""Sorts: the defender names an index, and only what does not follow from it is false."""

import numpy as np
import pytest

from ree.compiler.ir import Builder
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.verde.fault import Fault, Liar, recompute, with_bits
from ree.verde.game import Game
from ree.verde.moves import State
from ree.verde.party import Party, play, run_of
from ree.verde.scope import VALUES
from ree.verde.witness import Choice


class Chooser(Liar):
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


def false_entries(choice, lie, rng):
    """Entries of a liar. All but the last kind let the claim about the place of a wrong index stand."""
    d = choice.d
    wrong = int(rng.choice(np.flatnonzero(np.arange(d.n) != choice.right)))
    if lie in ("index", "count") and d.result == 0:  # one that gives another element
        x = choice.x.reshape(-1)[d.base : d.base + d.n]
        other = np.flatnonzero(x != x[choice.right])
        wrong = int(rng.choice(other))
    entries = choice.entries(choice.right if lie == "element" else wrong)
    if lie == "count":  # wrong by as much as the claim needs, from somewhere on
        off, at = d.position - entries[d.n], int(rng.integers(1, d.n + 1))
        entries[at : d.n + 1] = [(e + off) % 2**64 for e in entries[at : d.n + 1]]
    if lie == "range":
        entries[0] = d.n + int(rng.integers(1 << 40))
        entries[-1] = entries[0] if d.result else 0x3F800001
    if lie == "element":
        entries[-1] ^= 1
    if lie == "hidden":  # the index is another one than the last entry says
        entries[0] = choice.right
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
            choice = Choice(run.scope.derivation(VALUES, result, element), run.sources(result))
            x = choice.x.reshape(-1)[choice.d.base : choice.d.base + n]
            if lie in ("index", "count") and result == 0 and (x == x[choice.right]).all():
                continue
            entries = false_entries(choice, lie, rng)
            if entries[-1] == choice.entries(choice.right)[-1]:
                continue  # of equal elements: no lie about the value
            liar = Chooser(run, result, element, entries, instance)
            end = play(game, State(liar.statement), liar, honest)
            assert end.winner == "challenger", (result, end.reason, end.trail)
            assert end.reason.startswith("executed"), end.reason
            end = play(game, State(honest.statement), honest, liar)
            assert end.winner == "defender", end.reason
            played += 1
    assert played


def test_entries_by_choice_are_those_of_the_rules():
    run, _ = sorting(200, True)
    honest = Party(run, bytes(32))
    for result in (0, 1):
        for element in (0, 7, 399, 599):
            d = run.scope.derivation(VALUES, result, element)
            choice = Choice(d, run.sources(result))
            mine = honest.derived(State(honest.statement), d, run.sources(result))
            assert choice.entries(choice.right) == mine
            assert choice.false_entry(choice.right) is None
