"""The referee on a chain in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

from ree.compiler.instance import Instance, numeric_id
from ree.settlement.compile import compile_contract
from ree.settlement.evidence import Evidence
from ree.settlement.terms import UNREAD
from ree.settlement.testing.evm import Chain, Contract
from ree.verde.game import Game
from ree.verde.moves import Move, Phase, State
from ree.verde.party import Party, Run
from ree.verde.testing import Play

PARTS = ("elements.vy", "planner.vy", "arithmetic.vy", "proofs.vy", "referee.vy")


@lru_cache(maxsize=1)
def referee() -> Contract:
    """Deployed with its parts, for the numeric id of this version."""
    return deploy(Chain())


def deploy(chain: Chain) -> Contract:
    """A referee of one's own on a chain."""
    elements = Contract(compile_contract("elements.vy"), beside=chain)
    planner = Contract(compile_contract("planner.vy"), beside=elements)
    arithmetic = Contract(compile_contract("arithmetic.vy"), beside=elements)
    proofs = Contract(
        compile_contract("proofs.vy"), planner.address, arithmetic.address, beside=elements
    )
    return Contract(
        compile_contract("referee.vy"),
        numeric_id(),
        elements.address,
        proofs.address,
        beside=elements,
    )


class Mismatch(AssertionError):
    """Chain and rules disagree; the message says where."""


# a move, and the gas of a transaction that asks the referee about it
Note = Callable[[Phase, int], None]


def play(
    evidence: Evidence, s: State, defender: Party, challenger: Party, *, note: Note | None = None
) -> State:
    """A dispute to its end, each move also on chain; Mismatch if states or winners differ."""
    while s.phase is not Phase.OVER:
        move = (defender if s.player == "defender" else challenger).move(s)
        after = step(evidence, s, move)
        if note:
            note(s.phase, referee().gas)
        s = after
    return s


def play_for(run: Run, instance: Instance, note: Note | None = None) -> Play:
    """How disputes about a run are played on chain."""
    return partial(play, Evidence(Game(run.scope), instance), note=note)


def step(evidence: Evidence, s: State, move: Move) -> State:
    """A move by the rules and on chain."""
    before, data = evidence.state(s), evidence.move(s, move)
    after = evidence.game.apply(s, move)
    state = referee().call("respond", *UNREAD, before, data)
    want = evidence.state(after)
    if state != want:
        at = next(i for i in range(len(want)) if state[i] != want[i])
        raise Mismatch(
            f"{s.phase.name}: byte {at} is {state[at]}, expected {want[at]} ({after.reason})"
        )
    return after
