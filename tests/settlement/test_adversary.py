"""Legal programs at random: compiled code, interpreter and contracts agree on bytes, and lies lose. For longer:
benchmarks/adversary.py."""

import collections

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.settlement.testing import adversary
from ree.verde.derivation import run_all
from ree.verde.selections import ArgExtreme

SEEDS = range(20)
FOUND: list[int] = []  # seeds that have found something


@pytest.mark.parametrize("seed", [*SEEDS, *FOUND])
def test_a_program_at_random(seed):
    assert adversary.check(seed) in ("played", "refused", "no such index", "nothing")


def test_most_programs_are_played_and_all_sources_occur():
    kinds, ops = collections.Counter(), set()
    for seed in range(300):
        try:
            case = adversary.Maker(seed).make()
        except adversary.Nothing:
            continue
        g = case.program.graph
        ops |= {n.op for n in g.nodes}
        moves = any(n.op in ("permute", "slice", "flip", "expand") for n in g.nodes)
        kinds.update(all=1, constants=bool(g.consts), weights=bool(g.weights), moves=moves)
    assert kinds["all"] > 250
    assert min(kinds["constants"], kinds["weights"], kinds["moves"]) > 50
    assert len(ops) > 60


def test_a_fault_is_found(monkeypatch):
    """A derivation that is not that of the contracts."""
    monkeypatch.setattr(ArgExtreme, "entries", lambda d, x: d.packed([1, *run_all(d, x)[1:]]))
    for seed in range(2000):
        try:
            case = adversary.Maker(seed).make()
        except adversary.Nothing:
            continue
        if not any(n.op in ("argmax", "argmin") for n in case.program.graph.nodes):
            continue
        with pytest.raises(AssertionError) as found:
            adversary.check(seed)
        assert f"seed {seed}" in found.value.__notes__[0]
        return
    pytest.fail("not found")
