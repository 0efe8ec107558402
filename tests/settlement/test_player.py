"""A player who knows a dispute by its state on chain and the moves so far answers as its party does."""

import numpy as np
import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.compiler.ir import Builder, Kind, Ref
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.settlement.evidence import Evidence
from ree.settlement.player import VerdePlayer
from ree.settlement.testing.referee import step
from ree.settlement.watcher import Standing
from ree.settlement.work import call_facts
from ree.verde.fault import Fault, FaultyParty
from ree.verde.game import Game
from ree.verde.moves import Phase, State
from ree.verde.party import Party, run_of
from ree.verde.protocol import Reason
from ree.verde.testing import last_fault

N = 2500  # a sort's element has 40 leaves of entries, two reveals


@pytest.fixture(scope="module")
def sorting():
    """A linear layer, softmax and a sort with many ties."""
    b = Builder()
    x = b.input(TensorType(DType.F32, (2, 300)))
    w = b.weight(TensorType(DType.F32, (N, 300)))
    y = b.add("softmax", b.add("relu", b.add("linear", x, w)), dim=1)
    node = b.add_node("sort", (y,), {"dim": 1, "descending": False})
    outs = (node.value, Ref(Kind.VALUE, node.first + 1))
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((N, 300)).astype(np.float32)
    program = Program(b.finish(outs), Names(("x",), ("v", "i"), ("w",)), (weight,))
    given = rng.standard_normal((2, 300)).astype(np.float32)
    return program, {"x": given}, *run_of(program, (given,))


@pytest.mark.parametrize("fault", [
    Fault(0, 2500, 200, 1 << 22),
    None,  # the last operation of a row of softmax
    Fault(3, 4000, 0),  # another index, and its true place claimed to be the right one
    Fault(4, 4999, 0, 2),
    Fault(4, 4999, N + 2, 2),
], ids=str)  # fmt: skip
def test_a_player_answers_as_its_party(sorting, fault):
    program, inputs, run, instance = sorting
    fault = fault or last_fault(run.scope, 2, 2499)
    honest, liar = Party(run, instance.digest), FaultyParty(run, fault, instance.digest)
    facts = call_facts(program, inputs).encode()
    evidence = Evidence(Game(run.scope), instance)
    players = {"defender": VerdePlayer(liar, instance), "challenger": VerdePlayer(honest, instance)}
    s, moves, left = State(liar.statement), [], 0
    while s.phase is not Phase.OVER:
        state = evidence.state(s)
        standing = Standing(liar.statement.outputs, facts, state, tuple(moves))
        move = (liar if s.player == "defender" else honest).move(s)
        data = evidence.move(s, move)
        assert players[s.player].move(standing) == data, s.phase
        if s.player == "challenger":
            known = s.phase in (Phase.PICK, Phase.ENTRY) and s.chosen >= 0
            assert players["challenger"].state(standing).chosen == (s.chosen if known else -1)
            left += known
        moves.append(data)
        s = step(evidence, s, move)
    assert s.winner == "challenger"
    assert s.cause is Reason.EXECUTED
    assert left or fault.value < 3
