"""The off-chain referee: asks two parties in turn, holds their clocks, and writes down every answer.

It takes nothing on trust from either: an answer that is no move of the game is written down as such, the
state stays, and the clock of whoever gave it runs on. A player's clock stands while the other is to move.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

from ree.errors import DisputeError
from ree.verde.messages import MessageError, Parties, Signed, Terms, decode_signed
from ree.verde.moves import IllegalMove, Phase, RunStatement, State, Statement
from ree.verde.signing import Unsigned, after, begin, history_of
from ree.verde.transcript import Answer, Transcript
from ree.verde.verdict import Rules, Verdict

MAX_GARBAGE = 3  # answers in one turn that are no move, before the turn is lost
RETRY = 0.2  # seconds between two attempts at a party that does not answer


class NoResponse(Exception):
    """A party that gave no answer; it may be restarting, or its server too busy to ask it."""


class InvalidResponse(Exception):
    """A party whose answer is no message: too long, or an error of its own."""


class Transport(Protocol):
    """A way to a party."""

    def terms(self, seconds: float) -> Terms:
        """What the party stands for; NoResponse, InvalidResponse, MessageError."""

    def ask(self, dispute: Parties, moves: Sequence[Signed], seconds: float) -> bytes:
        """The party's answer, a signed message, within `seconds`; NoResponse, InvalidResponse."""


class NothingToDispute(DisputeError):
    """Two parties with the same commitment. It covers every value: equal outputs may hide a false one."""


@dataclass(frozen=True)
class Limits:
    """Seconds for all moves of a player, and for one move."""

    player: float = 600.0
    move: float = 120.0


RESULTS = ("outputs", "loss", "history")  # what parties may differ in


def difference(a: Statement | RunStatement, b: Statement | RunStatement) -> str:
    """The first field, results aside, in which two statements differ; empty if there is none."""
    if type(a) is not type(b):
        return "kind"
    names = [f.name for f in fields(a) if f.name not in RESULTS]
    return next((n for n in names if getattr(a, n) != getattr(b, n)), "")


def check_terms(defender: Terms, challenger: Terms) -> None:
    """DisputeError unless both have signed and differ in their results or values, and in nothing else."""
    try:
        begin(Parties(defender, challenger))
    except Unsigned as e:
        raise DisputeError(str(e)) from e
    for name in ("program", "symbols", "seed"):
        a, b = getattr(defender, name), getattr(challenger, name)
        if a != b:
            raise DisputeError(
                f"the parties' {name} differ: defender {_text(a)}, challenger {_text(b)}"
            )
    a, b = defender.statement, challenger.statement
    found = difference(a, b)
    if found:
        text = (_text(getattr(x, found, type(x).__name__)) for x in (a, b))
        raise DisputeError(
            "the parties' {} differ: defender {}, challenger {}".format(found, *text)
        )
    if a == b and defender.commitment == challenger.commitment:
        raise NothingToDispute(
            f"nothing to dispute: both committed to {_text(defender.commitment)}"
        )


def _text(x: object) -> str:
    return x.hex() if isinstance(x, bytes) else str(x)


class Referee:
    """One dispute, from its transcript to its verdict."""

    def __init__(
        self,
        rules: Rules,
        transcript: Transcript,
        transports: Mapping[str, Transport],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rules, self.transcript, self.transports = rules, transcript, dict(transports)
        self.clock, self.sleep = clock, sleep
        self.dispute = transcript.header.dispute
        try:
            states = rules.states(transcript.moves)
            self.history = history_of(
                self.dispute, [s.player for s in states[:-1]], transcript.signed
            )
        except (IllegalMove, Unsigned) as e:
            raise DisputeError(f"the transcript holds an illegal move: {e}") from e
        self.state = states[-1]
        if any(r.final for r in transcript.records) and self.state.phase is not Phase.OVER:
            self.state = rules.game.timeout(self.state)

    def run(self) -> Verdict:
        """Play to the end."""
        while self.state.phase is not Phase.OVER:
            self.turn()
        s, t = self.state, self.transcript
        return Verdict(self.dispute.defender, tuple(t.moves), s.winner, s.reason, self.dispute.challenger,
                       tuple(m.signature for m in t.signed))  # fmt: skip

    def _allowance(self, player: str) -> float:
        """Seconds that a player has left for this move."""
        h, move = self.transcript.header, 0
        for r in reversed(self.transcript.records):
            if r.move is not None:
                break
            move += r.time
        return min(h.limit - self.transcript.used(player), h.move_limit - move) / 1e6

    def _garbage(self) -> int:
        """Answers since the last move that were none."""
        n = 0
        for r in reversed(self.transcript.records):
            if r.move is not None:
                break
            n += 1
        return n

    def turn(self) -> State:
        """Ask whoever is to move, once: a move, an answer that is none, or the end of its time."""
        player = self.state.player
        left = self._allowance(player)
        start = self.clock()
        answer, text = b"", ""
        while True:
            try:
                remaining = left - (self.clock() - start)
                if remaining > 0:
                    answer = self.transports[player].ask(
                        self.dispute, self.transcript.signed, remaining
                    )
                break
            except NoResponse as e:
                text = str(e)
                self.sleep(max(0.0, min(RETRY, left - (self.clock() - start))))
            except InvalidResponse as e:
                text = str(e)
                break
        used = self.clock() - start
        if used >= left:
            return self._late(player, used, text or "its time is up")
        if answer:
            try:
                given = decode_signed(answer)
                history = after(self.dispute, self.history, player, given)
                state = self.rules.apply(self.state, given.move)
            except (MessageError, Unsigned, IllegalMove) as e:
                text = str(e)
            else:
                self.transcript.append(Answer(player, _micro(used), *given))
                self.state, self.history = state, history
                return state
        if self._garbage() + 1 >= MAX_GARBAGE:
            return self._late(player, used, f"{MAX_GARBAGE} answers that are no move: {text}")
        self.transcript.append(
            Answer(player, _micro(used), text=f"no move: {text or 'empty'}"[:300])
        )
        return self.state

    def _late(self, player: str, used: float, text: str) -> State:
        self.transcript.append(
            Answer(player, _micro(used), text=f"loses its turn: {text}"[:300], final=True)
        )
        self.state = self.rules.game.timeout(self.state)
        return self.state


def _micro(seconds: float) -> int:
    return max(0, round(seconds * 1e6))
