"""The referee on a chain in memory: what it says of a move, beside what the rules say."""

from __future__ import annotations

from functools import lru_cache

from ree.compiler.instance import numeric_id
from ree.settlement.compile import compile_contract
from ree.settlement.evidence import Evidence
from ree.settlement.memory_chain import Contract, MemoryChain
from ree.settlement.terms import UNREAD
from ree.verde.moves import Move, State

PARTS = ("elements.vy", "operation_decoder.vy", "arithmetic.vy", "proofs.vy", "referee.vy")


@lru_cache(maxsize=1)
def referee() -> Contract:
    """Deployed with its parts, for the numeric id of this version."""
    return deploy(MemoryChain())


def deploy(chain: MemoryChain) -> Contract:
    """A referee of one's own on a chain."""
    elements = Contract(compile_contract("elements.vy"), beside=chain)
    decoder = Contract(compile_contract("operation_decoder.vy"), beside=elements)
    arithmetic = Contract(compile_contract("arithmetic.vy"), beside=elements)
    proofs = Contract(
        compile_contract("proofs.vy"), decoder.address, arithmetic.address, beside=elements
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
