"""A party that plays by itself. What is due follows from the chain alone, so it may be restarted at any
point."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ree.errors import ChainError
from ree.settlement.client import (
    CHALLENGER_WON,
    COMMITTED,
    DEFENDER_WON,
    FINAL,
    PENDING,
    REVEALED,
    VOID,
    Agreed,
    Court,
    Dispute,
)
from ree.settlement.clocks import DEFENDER
from ree.settlement.node import Receipt
from ree.settlement.terms import UNREAD, OneRun, decode_facts, state_name

LEAST_GRACE = 60  # seconds of a move that a provider insists on


class Player(Protocol):
    """One side's knowledge of a run."""

    def move(self, standing: Standing) -> bytes:
        """The move that is due, whoever's it is."""


@dataclass(frozen=True)
class Standing:
    """Where a dispute stands: the claim's root, the facts of its job, the state and the moves so far."""

    root: bytes
    facts: bytes
    state: bytes
    moves: tuple[bytes, ...]


class Position:
    """Where a dispute stands, from its events: the state that the Court has the hash of."""

    def __init__(self, court: Court, job: bytes) -> None:
        self.court, self.facts = court, court.posting(job)[1]
        self.job = job
        self._known: dict[
            bytes, list[tuple[bytes, bytes]]
        ] = {}  # by dispute: states, and moves to them

    def of(self, d: Dispute) -> Standing:
        """Where an open dispute stands.
        ChainError if the events do not lead to what the Court holds."""
        moves = [bytes(e["move"]) for e in self.court.events("Moved", dispute=d.id)]
        known = self._known.setdefault(d.id, [])
        same = next(
            (i for i, m in enumerate(moves) if i + 1 >= len(known) or known[i + 1][1] != m),
            len(moves),
        )
        del known[same + 1 :]  # a reorganised chain
        if not known:
            known.append((self._first(d), b""))
        for m in moves[len(known) - 1 :]:
            known.append((self._after(known[-1][0], m), m))
        state = known[-1][0]
        name = state_name(d.id, d.clocks.word, d.player, d.other, state)
        if d.clocks.round != len(known) - 1 or name != d.state:
            self._known.pop(d.id)
            raise ChainError(
                "the events do not lead to the dispute's state; the chain may be moving"
            )
        return Standing(self._root(d), self.facts, state, tuple(moves))

    def _after(self, state: bytes, move: bytes) -> bytes:
        return bytes(self.court.rules("respond", *UNREAD, state, move))

    def _root(self, d: Dispute) -> bytes:
        return self.court.claim(self.job, d.defender).digest

    def _first(self, d: Dispute) -> bytes:
        root, raw = self._root(d), self.facts
        facts = decode_facts(raw)
        if isinstance(facts, OneRun):
            return bytes(self.court.rules("begin", raw + root + bytes(32)))
        statement = facts.instance + bytes(32) + facts.weights + bytes(96)
        return bytes(self.court.rules("begin_run", statement, raw[156:] + root))


class Watcher:
    """Plays what is due of one account in one job. `agreed` is the root that it stands for; with `player`
    it answers disputes; with `challenge` it challenges every other root."""

    def __init__(
        self,
        court: Court,
        job: bytes,
        agreed: Agreed,
        player: Player,
        *,
        challenge: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.court, self.job, self.agreed, self.player = court, job, agreed, player
        self.challenges, self.confronts, self.say = challenge, True, say
        self.terms = court.posting(job)[0]
        self.position = Position(court, job)

    def tick(self) -> int:
        """Do everything that is due now; how many transactions that took."""
        court, before = self.court, len(self.court.node.receipts)
        status = court.status(self.job)
        if status in (FINAL, VOID):
            if status == FINAL:
                self._collect()
            return len(court.node.receipts) - before
        now, t = court.node.now, self.terms
        mine = court.claim(self.job, court.node.account)
        if mine.status == COMMITTED and t.commit_until < now <= t.reveal_until:
            self._did("reveal", court.reveal(self.job, self.agreed.root))
        if self.challenges and now > t.reveal_until:
            self._challenge(now)
        for d in court.disputes(self.job):
            if not d.decided:
                self._answer(d, now)
        if now > t.reveal_until and mine.status == REVEALED and self.confronts:
            self._confront()
        if now > t.open_until and court.status(self.job) == 1 and not self._differ():
            self._did("finalise", court.finalise(self.job))
            self._collect()
        return len(court.node.receipts) - before

    def run(self, until: Callable[[], bool], pause: float = 2.0) -> None:
        """Tick until a condition holds, pausing between blocks (seconds). A node that does not answer, or
        refuses what another block has made untimely, is asked again."""
        while not until():
            try:
                done = self.tick()
            except ChainError as e:
                self.say(f"note: {e.message}")
                done = 0
            if not done:
                time.sleep(pause)

    def over(self) -> bool:
        """Nothing is left to do in this job."""
        return self.court.status(self.job) in (FINAL, VOID)

    def _did(self, what: str, receipt: object) -> None:
        if receipt is not None:
            self.say(f"{what} {self.job.hex()[:16]}")

    def _wrong(self) -> list[str]:
        """Providers whose root is not ours, and who are not oneself."""
        me = self.court.node.account
        return [c.provider for c in self.court.claims(self.job)
                if c.status == REVEALED and c.digest != self.agreed.root and c.provider != me]  # fmt: skip

    def _challenge(self, now: int) -> None:
        court, t = self.court, self.terms
        for provider in self._wrong() if now <= t.challenge_until else []:
            self._did("challenge", court.challenge(self.job, provider, self.agreed))
        if t.challenge_until < now <= t.open_until:
            for c in court.claims(self.job):
                if court.challenge_status(self.job, c.provider) == PENDING:
                    self._did("open", court.open_challenge(self.job, c.provider))

    def _answer(self, d: Dispute, now: int) -> None:
        me = self.court.node.account
        if d.player == me:
            standing = self.position.of(d)
            move = self.player.move(standing)
            role = "defender" if d.turn == DEFENDER else "challenger"
            receipt = self.court.respond(d, standing.state, move)
            self._did(f"move {d.clocks.round + 1} as {role}", receipt)
        elif d.other == me and now > d.clocks.deadline():
            self._did("timeout", self.court.timeout(d, self.position.of(d).state))

    def _confront(self) -> None:
        """A provider meets every root that is not its own."""
        me = self.court.node.account
        for provider in self._wrong():
            self._did("confront", self.court.confront(self.job, provider, me))

    def _differ(self) -> bool:
        return len({c.digest for c in self.court.claims(self.job) if c.status == REVEALED}) > 1

    def _collect(self) -> None:
        for receipt in collect_won(self.court, self.job):
            self._did("collect", receipt)


def collect_won(court: Court, job: bytes) -> list[Receipt | None]:
    """Collect what one has won in the disputes of a job that is final."""
    me = court.node.account
    decided = [d for d in court.disputes(job) if not d.paid]
    won = [d for d in decided
           if me == {DEFENDER_WON: d.defender, CHALLENGER_WON: d.challenger}.get(d.turn)]  # fmt: skip
    return [court.collect(job, d.id) for d in won]
