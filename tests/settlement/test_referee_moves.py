"""Moves that prove nothing revert, in every phase; sources of every kind are found."""

import numpy as np
import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.compiler.ir import Builder
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.settlement.decidable import obstacles
from ree.settlement.evidence import Evidence
from ree.settlement.proof_size import refusals
from ree.settlement.terms import UNREAD
from ree.settlement.testing.evm import Reverted
from ree.settlement.testing.referee import play_for, referee
from ree.verde.fault import Fault, FaultyParty
from ree.verde.game import Game
from ree.verde.moves import Phase, State
from ree.verde.party import Party, run_of
from ree.verde.testing import dispute


def moved():
    """K = 301, both operands of a contraction behind moves, constants, a weight; then softmax rows."""
    b = Builder()
    x = b.input(TensorType(DType.F32, (301, 5)))
    w = b.weight(TensorType(DType.F32, (2, 7, 301)))
    c = b.const(np.linspace(-2, 2, 7, dtype=np.float32))
    left = b.add("permute", x, dims=(1, 0))
    right = b.add("slice", w, dim=0, start=1, stop=2, step=1)
    right = b.add("view", right, shape=(7, 301))
    y = b.add("linear", left, right)
    y = b.add("add", y, c)
    y = b.add("softmax", b.add("permute", y, dims=(1, 0)), dim=1)
    g = b.finish((y, b.add("flip", y, dim=1)))
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((2, 7, 301)).astype(np.float32)
    program = Program(g, Names(("x",), ("y", "z"), ("w",)), (weight,))
    return run_of(program, (rng.standard_normal((301, 5)).astype(np.float32),))


@pytest.fixture(scope="module")
def run():
    return moved()


def test_every_value_behind_moves_is_disputed(run):
    """A lie in contraction, addition of a constant and softmax; all operands are views or constants."""
    run, instance = run
    assert obstacles(instance.graph) == []
    rng, play = np.random.default_rng(4), play_for(run, instance)
    for v, n in enumerate(instance.graph.nodes):
        if n.op in ("linear", "add", "softmax"):
            lies = [x for _ in range(3) for x in dispute(run, instance, v, rng, play)]
            assert len(lies) >= 3
            assert any(x.inner for x in lies), n.op


def test_altered_moves_revert_or_change_nothing(run):
    run, instance = run
    evidence = Evidence(Game(run.scope), instance)
    honest = Party(run, instance.digest)
    value = next(i for i, n in enumerate(instance.graph.nodes) if n.op == "linear")
    liar = FaultyParty(run, Fault(value, 17, 129, 1 << 21), instance.digest)
    s, rng, seen = State(liar.statement), np.random.default_rng(5), set()
    while s.phase is not Phase.OVER:
        move = (liar if s.player == "defender" else honest).move(s)
        before, data = evidence.state(s), evidence.move(s, move)
        referee().call("respond", *UNREAD, before, data)
        pointing = {Phase.CHOOSE: 1, Phase.PICK: 1, Phase.ELEMENT: 2, Phase.ENTRY: 1}.get(
            s.phase, 0
        )
        if s.phase not in (Phase.OPEN, Phase.ENTRY):  # any values root may be opened
            seen.add(s.phase)
            cuts = [data[:n] for n in {0, len(data) // 2, len(data) - 33} if n < len(data)]
            cuts += [data + b"\0", data + bytes(32), data + b"\1"]  # one move has one encoding
            flips = []
            for at in rng.integers(pointing, len(data), 40):
                altered = bytearray(data)
                altered[at] ^= 1 << int(rng.integers(8))
                flips.append(bytes(altered))
            for bad in [*cuts, *flips]:
                with pytest.raises(Reverted):
                    referee().call("respond", *UNREAD, before, bad)
        s = evidence.game.apply(s, move)
    assert {Phase.TENSOR, Phase.REVEAL, Phase.PICK, Phase.BODY, Phase.ELEMENT, Phase.DERIVE,
            Phase.PROVE} <= seen  # fmt: skip


def test_a_statement_of_another_numeric_id_is_refused(run):
    run, instance = run
    evidence = Evidence(Game(run.scope), instance)
    data = evidence.statement(Party(run, instance.digest).statement)
    assert len(referee().call("begin", data)) == 384
    with pytest.raises(Reverted):
        referee().call("begin", bytes(32) + data[32:])
    with pytest.raises(Reverted):
        referee().call("begin", data[:-1])


def test_no_move_after_the_verdict(run):
    run, instance = run
    evidence = Evidence(Game(run.scope), instance)
    s = Game(run.scope).timeout(State(Party(run, instance.digest).statement))
    with pytest.raises(Reverted):
        referee().call("respond", *UNREAD, evidence.state(s), bytes(600))


def test_a_job_whose_proofs_do_not_fit_is_refused(run):
    run, instance = run
    assert refusals(Evidence(Game(run.scope), instance)) == []
    long, instance, _ = behind(13)
    (why,) = refusals(Evidence(Game(long.scope), instance))
    assert "13 moves" in why
    long, instance, value = behind(12)
    assert refusals(Evidence(Game(long.scope), instance)) == []
    dispute(long, instance, value, np.random.default_rng(6), play_for(long, instance))


def behind(moves):
    """A value that reads another through so many moves."""
    b = Builder()
    y = b.add("neg", b.input(TensorType(DType.F32, (4, 3))))
    for _ in range(moves):
        y = b.add("permute", y, dims=(1, 0))
    y = b.add("neg", y)
    program = Program(b.finish((y,)), Names(("x",), ("y",), ()), ())
    return *run_of(program, (np.ones((4, 3), np.float32),)), y.index
