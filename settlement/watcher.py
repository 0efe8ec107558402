"""A party that plays by itself. What is due follows from the chain alone, so it may be restarted at any
point."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from ree.compiler.layout import INSTANCE
from ree.errors import ChainError
from ree.settlement.client import (
    COMMITTED,
    FINAL,
    PENDING,
    REVEALED,
    VOID,
    Agreed,
    Court,
    Dispute,
)
from ree.settlement.clocks import DEFENDER
from ree.settlement.layout import ONE_RUN, RUN, STATEMENT
from ree.settlement.node import MINED, TransactionReceipt
from ree.settlement.policy import LEAST_GRACE
from ree.settlement.terms import UNREAD, OneRun, decode_facts, state_name
from ree.settlement.transactions import FLYING, Flight, Pending
from ree.traces.encoding import ZERO

MOST = 64  # transactions of a tick
POLL = 0.2  # seconds between two looks for a block
RESERVE = LEAST_GRACE // 5  # seconds by which a bond at stake goes before what is only to be gained
FAR = 2**64  # no deadline
BOND, OPEN = "challenge", "open"
BONDS = (BOND, OPEN)  # in a crowd, to open costs more


class ClaimPlayer(Protocol):
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
            statement = STATEMENT.pack(**ONE_RUN.unpack(raw), outputs_root=root, loss=ZERO)
            return bytes(self.court.rules("begin", statement))
        statement = STATEMENT.pack(
            **INSTANCE.unpack(facts.instance), inputs_root=ZERO, weights_root=facts.weights, states_root=ZERO,
            outputs_root=ZERO, loss=ZERO,
        )  # fmt: skip
        run = RUN.pack(
            initial=facts.initial, steps=facts.steps, batches=facts.batches, history=root
        )
        return bytes(self.court.rules("begin_run", statement, run))


@dataclass(frozen=True)
class Task:
    """Something that may be done now; `key`: what it is, `by`: its deadline, a timestamp."""

    key: tuple[object, ...]
    by: int
    do: Callable[[], object]


class Watcher:
    """Plays what is due of one account in one job. `agreed` is the root that it stands for; with `player`
    it answers disputes; with `challenge` it challenges every other root."""

    def __init__(
        self,
        court: Court,
        job: bytes,
        agreed: Agreed,
        player: ClaimPlayer,
        *,
        challenge: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.court, self.job, self.agreed, self.player = court, job, agreed, player
        self.challenges, self.confronts, self.say = challenge, True, say
        self.terms = court.posting(job)[0]
        self.position = Position(court, job)
        self._told: set[bytes] = set()  # disputes that are lost by our clock
        self._flights: dict[tuple[object, ...], Flight] = {}  # by task

    def tick(self) -> int:
        """Do what is due, the earliest deadline first, until nothing is left, at most MOST transactions; how
        many that took. None waits for another's block. What fails stops nothing else; ChainError if something
        failed and nothing was done."""
        court, before, failed = self.court, len(self.court.node.receipts), list[str]()

        def count() -> int:
            return len(court.node.receipts) - before

        status = court.status(self.job)
        if status == FINAL:
            self._try(failed, self._collect)
        if status not in (FINAL, VOID):
            self._do_due(failed, count)
            t, now = self.terms, court.node.now
            if now > t.open_until and court.status(self.job) == 1 and not self._differ():
                self._try(failed, self._finalise, "finalise")
        if failed and not count():
            more = f"; and {len(failed) - 1} more" if len(failed) > 1 else ""
            raise ChainError(failed[0] + more)
        for text in dict.fromkeys(failed):
            self.say(f"note: {text}")
        return count()

    def _finalise(self) -> None:
        self._did("finalise", self.court.finalise(self.job))
        self._collect()

    def _do_due(self, failed: list[str], count: Callable[[], int]) -> None:
        tried, end, node = set[tuple[object, ...]](), time.monotonic() + MINED, self.court.node
        while count() < MOST:
            mark, landed = node.head(), self._land(failed, tried)
            tasks = [t for t in self._due(failed) if t.key not in tried]
            for task in sorted(tasks, key=lambda t: t.by):
                if len(self._flights) >= FLYING or count() + len(self._flights) >= MOST:
                    break
                if task.key in self._flights or self._crosses(task):
                    continue
                tried.add(task.key)
                sent = count()
                self._try(failed, partial(self._perform, task, tried), str(task.key[0]))
                if count() > sent:  # in a block, in which the others have moved
                    landed = True
                    break
            if landed:
                end = time.monotonic() + MINED
                continue
            if not self._flights:
                return
            if not self._next_block(mark, end):
                failed.append(
                    f"{len(self._flights)} transactions are in no block after {MINED:.0f} s"
                )
                return
            tried.clear()  # another block, another try

    def _perform(self, task: Task, tried: set[tuple[object, ...]]) -> None:
        try:
            with self.court.node.flying(task.by):
                receipt = task.do()
        except Pending as e:
            self._flights[task.key] = e.flight
            tried.discard(task.key)  # it may need more than one transaction
            return
        if receipt is not None:
            self._did(str(task.key[0]), receipt)

    def _crosses(self, task: Task) -> bool:
        """Whether it would spend the credit that another on its way has brought: bonds go one by one."""
        return task.key[0] in BONDS and any(k[0] in BONDS for k in self._flights)

    def _land(self, failed: list[str], tried: set[tuple[object, ...]]) -> bool:
        """Whether a transaction is in a block that was in none."""
        node, before = self.court.node, len(self._flights)
        for key, flight in list(self._flights.items()):
            try:
                receipt = node.land(flight)
            except ChainError as e:
                if flight in node.flights:
                    continue  # the node did not answer
                failed.append(e.message)
                tried.add(key)
            else:
                if receipt is None:
                    continue
                self._did(flight.what, receipt)
            del self._flights[key]
        return len(self._flights) < before

    def _next_block(self, mark: tuple[int, bytes], end: float) -> bool:
        """Wait for another block than the one marked; False if none comes in time."""
        while time.monotonic() < end:
            with suppress(ChainError):
                if self.court.node.head() != mark:
                    return True
            time.sleep(POLL)
        return False

    def _try(self, failed: list[str], do: Callable[[], object], what: str = "collect") -> None:
        """Do something; whatever is wrong with it is written down and no more."""
        try:
            do()
        except ChainError as e:
            failed.append(e.message)
        except Exception as e:  # of one dispute: a player that fails there must answer the others
            failed.append(f"{what}: {type(e).__name__}: {e}"[:300])

    def _due(self, failed: list[str]) -> list[Task]:
        """What may be done now, in no order."""
        court, t, me = self.court, self.terms, self.court.node.account
        now, mine, job = court.node.now, court.claim(self.job, me), self.job
        out: list[Task] = []
        if mine.status == COMMITTED and t.commit_until < now <= t.reveal_until:
            root = self.agreed.root
            out.append(
                Task(("reveal",), t.reveal_until - RESERVE, partial(court.reveal, job, root))
            )
        opened = court.events("Opened", job=job)
        own = [e for e in opened if me in (e["defender"], e["challenger"])]
        for e in own:
            self._try(failed, partial(self._in_dispute, bytes(e["dispute"]), now, out), "dispute")
        # however many others play, they are looked at when nothing of one's own is due
        for e in opened if now > t.open_until and not out else ():
            if e not in own:
                self._try(
                    failed, partial(self._in_dispute, bytes(e["dispute"]), now, out), "dispute"
                )
        if now <= t.reveal_until:
            return out
        if self.challenges and now <= t.open_until:
            out += self._challenges(now)
        if mine.status == REVEALED and self.confronts:
            out += [Task(("confront", p), t.open_until, partial(court.confront, job, p, me))
                    for p in self._wrong()]  # fmt: skip
        return out

    def _in_dispute(self, name: bytes, now: int, out: list[Task]) -> None:
        """The move that is due in a dispute, or the end of its player's time."""
        d, me = self.court.dispute(name), self.court.node.account
        if d.decided:
            return
        key, deadline = (name, d.clocks.round), d.clocks.deadline()
        act = partial(self._answer, d, now)
        if d.player != me:
            # between others, what holds up the job's end
            if now > deadline and (d.other == me or now > self.terms.open_until):
                out.append(Task(("timeout", *key), FAR, act))
        elif now <= deadline:
            out.append(Task(("answer", *key), deadline - RESERVE, act))
        elif name not in self._told:
            self._told.add(name)
            self.say(f"note: dispute {name.hex()[:16]}: our time has run out")

    def run(self, until: Callable[[], bool], pause: float = 2.0) -> None:
        """Tick until a condition holds, pausing between blocks (seconds). A node that does not answer, or
        refuses what another block has made untimely, is asked again."""
        while not until():
            try:
                done = self.tick()
            except ChainError as e:
                self.say(f"note: {e.message}")
                done = 0
            except Exception as e:  # a node that answers nonsense is asked again
                self.say(f"note: {type(e).__name__}: {e}"[:300])
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

    def _challenges(self, now: int) -> list[Task]:
        """Challenges to commit to, or to open."""
        court, t, job = self.court, self.terms, self.job
        if now <= t.challenge_until:
            return [Task((BOND, p), t.challenge_until, partial(court.challenge, job, p, self.agreed))
                    for p in self._wrong() if not court.challenge_status(job, p)]  # fmt: skip
        return [Task((OPEN, c.provider), t.open_until - RESERVE,
                     partial(court.open_challenge, job, c.provider))
                for c in court.claims(job) if court.challenge_status(job, c.provider) == PENDING]  # fmt: skip

    def _answer(self, d: Dispute, now: int) -> None:
        """Make the move that is due, or end a dispute whose player is late."""
        standing = self.position.of(d)
        if d.player == self.court.node.account:
            role = "defender" if d.turn == DEFENDER else "challenger"
            receipt = self.court.respond(d, standing.state, self.player.move(standing))
            self._did(f"move {d.clocks.round + 1} as {role}", receipt)
        elif now > d.clocks.deadline():
            self._did("timeout", self.court.timeout(d, standing.state))

    def _differ(self) -> bool:
        return len({c.digest for c in self.court.claims(self.job) if c.status == REVEALED}) > 1

    def _collect(self) -> None:
        for receipt in collect_won(self.court, self.job):
            self._did("collect", receipt)


def collect_won(court: Court, job: bytes) -> list[TransactionReceipt | None]:
    """Collect what one has won in the disputes of a job that is final. ChainError, after all others, where that
    fails."""
    me = court.node.account
    decided = [d for d in court.disputes(job) if not d.paid]
    won = [d for d in decided if me == d.winner]
    out, failed = list[TransactionReceipt | None](), list[ChainError]()
    for d in won:
        try:
            out.append(court.collect(job, d.id))
        except ChainError as e:
            failed.append(e)
    if failed:
        raise failed[0]
    return out
