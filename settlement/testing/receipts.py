"""Disputes played through the Court on the embedded chain, one transaction a move: what each costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ree.settlement.client import CHALLENGER_WON, DEFENDER_WON, Agreed
from ree.settlement.demo import Stage
from ree.settlement.evidence import Evidence
from ree.settlement.terms import Facts
from ree.verde.moves import Move, Phase, RunStatement, State


class Side(Protocol):
    """Whoever knows the move that is due."""

    def move(self, s: State) -> Move: ...


def play(
    facts: Facts, evidence: Evidence, first: State, defender: Side, challenger: Side
) -> Iterator[tuple[State, bytes, int]]:
    """Each state, the bytes of the move in it, and the gas of its transaction. AssertionError if the Court ends
    in another verdict than the rules."""
    stage = Stage(lambda text: None)
    poster, court, other = (stage.courts[r] for r in ("poster", "cheat", "challenger"))
    terms = stage.terms(facts)
    job = poster.post(terms, facts)
    claim = first.run.history if isinstance(first.run, RunStatement) else first.statement.outputs
    provider, agreed = stage.nodes["cheat"].account, Agreed(claim)
    court.accept(job, agreed)
    court.commit(job, agreed)
    stage.chain.wait_until(terms.commit_until + 1)
    court.reveal(job, claim)
    stage.chain.wait_until(terms.reveal_until + 1)
    other.challenge(job, provider, Agreed(bytes(32)))
    stage.chain.wait_until(terms.challenge_until + 1)
    other.open_challenge(job, provider)
    s, (d,) = first, court.disputes(job)
    while s.phase is not Phase.OVER:
        side, by = (defender, court) if s.player == "defender" else (challenger, other)
        m = side.move(s)
        before, data = evidence.state(s), evidence.move(s, m)
        receipt = by.respond(by.dispute(d.id), before, data)
        assert receipt is not None  # nobody has done it before
        yield s, data, receipt.gas
        s = evidence.game.apply(s, m)
    verdict = {"defender": DEFENDER_WON, "challenger": CHALLENGER_WON}[s.winner]
    assert court.dispute(d.id).turn == verdict, "the Court's verdict is not that of the rules"
