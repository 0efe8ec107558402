"""Jobs with the real referee on a node in memory: honest watchers among liars, and what must hold of them."""

from __future__ import annotations

import random
import re
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from ree.errors import ChainError
from ree.settlement import node as node_module
from ree.settlement import watcher as watcher_module
from ree.settlement.bonds import Prices, least_bonds
from ree.settlement.client import (
    DEFENDER_WON,
    FINAL,
    Court,
    Dispute,
)
from ree.settlement.compile import Compiled, compile_contract
from ree.settlement.keys import role_key
from ree.settlement.policy import MOVES, Policy
from ree.settlement.terms import (
    DEADLINES,
    Terms,
    challenge_commitment,
    claim_commitment,
    descent,
    facts_digest,
)
from ree.settlement.testing.crowd_job import Job, Watched
from ree.settlement.testing.evm import Contract
from ree.settlement.testing.fixtures import Habit, fixture
from ree.settlement.testing.ledger import owed
from ree.settlement.testing.pool import BLOCK, BLOCK_GAS, GWEI, Pool, PoolRefusal
from ree.settlement.testing.referee import deploy
from ree.settlement.transactions import FLYING
from ree.settlement.watcher import Position, Watcher

RICH = 10**7
REWARD, EXECUTION = 10_000, 500
PRICES = Prices(million_gas=1000, execution=EXECUTION)
WINNERS = 3  # honest ones of a lie: a provider and two challengers
BONDS = least_bonds(REWARD, PRICES, WINNERS)
WINDOW = 7200
CALM = Policy()
CLOCK = CALM.censorship + MOVES * BLOCK
LONG, SHORT = 3300, 240  # seconds of an outage: once a job; again and again, less than `grace`
SLOW = 400  # seconds that a slow liar leaves
DEAREST = 300 * GWEI  # a base fee that the accounts can bear
ODD = re.compile(r"run out|^note: \w+: [A-Z]\w*: ")  # a clock, or a fault of the watcher's own
SALT = b"salt of 16 bytes"


class Crowd:
    """A Court with the real referee, two tokens and everyone's money. Contracts may be given: faulty ones."""

    def __init__(self, court: Compiled | None = None) -> None:
        self.pool = pool = Pool()
        referee = deploy(pool.chain)
        self.treasury = role_key("treasury").address
        self.court = Contract(court or compile_contract("court.vy"), referee.address, self.treasury,
                              beside=pool.chain)  # fmt: skip
        self.tokens = [
            Contract(compile_contract("testing/token.vy"), beside=pool.chain) for _ in range(2)
        ]
        self.accounts: dict[str, str] = {"treasury": self.treasury}
        self.jobs: list[Job] = []
        self.stranger = self._known("stranger")
        self.seen = Court(pool.account("nobody"), self.court.address)
        self._fresh: Any = None

    def begin(self) -> None:
        """As it was when it was made."""
        if self._fresh is None:
            self._fresh = self.pool.snapshot(), dict(self.accounts)
        self.pool.revert(self._fresh[0])
        self.accounts, self.jobs, self.sound = dict(self._fresh[1]), [], True
        self.seen = Court(self.pool.connect(role_key("nobody")), self.court.address)
        self._disputes: dict[bytes, tuple[bytes, list[Dispute]]] = {}
        self.positions: dict[bytes, Position] = {}
        self.pool.auto = True

    def _known(self, name: str, rich: bool = True) -> str:
        address = role_key(name).address
        if name not in self.accounts:
            self.accounts[name] = address
            self.pool.ether[address] = 10**20
            for token in self.tokens if rich else ():
                token.call("mint", address, RICH)
        return address

    # a job's beginning

    def post(self, kind: str, providers: list[str], hasty: bool, seed: int) -> Job:
        """A job whose providers have committed; honest ones by their clients."""
        number, pool, rng = len(self.jobs), self.pool, random.Random(seed)
        poster, token = self._known(f"poster {number}"), self.tokens[number % 2]
        now = pool.now
        windows = [600] * 5 if hasty else [WINDOW] * 5
        until = {d: now + sum(windows[: i + 1]) for i, d in enumerate(DEADLINES)}
        clock, grace = (10 * BLOCK, 60) if hasty else (CLOCK, 300)
        terms = Terms(
            poster=poster, token=token.address, reward=REWARD, payees=1 + rng.randrange(2), slots=4,
            provider_bond=BONDS.provider, challenger_bond=BONDS.challenger, clock=clock, grace=grace,
            facts=facts_digest(fixture(kind).facts), nonce=number, **until,
        )  # fmt: skip
        job = Job(
            self.court.address,
            number,
            kind,
            token,
            hasty,
            rng,
            terms,
            [f"{p} {number}" for p in providers],
        )
        self.jobs.append(job)
        for name in job.names:
            self._known(name)
        for name in (f"poster {number}", *(n for n in job.names if n not in job.honest)):
            self._deposit(name, token)
        self.raw(f"poster {number}", "post", terms.values(), job.what.facts.encode(), "here")
        for name in job.providers:
            if name in job.honest:
                court = self.client(name, job)
                court.accept(job.id, job.what.agreed)
                court.commit(job.id, job.what.agreed)
            else:
                self.raw(name, "accept", terms.values())
                root = job.roots[name]
                committed = claim_commitment(
                    1, self.court.address, job.id, self.accounts[name], root, SALT
                )
                self.raw(name, "commit", terms.values(), committed)
        return job

    def client(self, name: str, job: Job) -> Court:
        """A client that knows nothing but the chain and its key."""
        return Court(self.pool.connect(role_key(name)), self.court.address, 0, job.policy)

    def _deposit(self, name: str, token: Contract) -> None:
        address = self.accounts[name]
        for call, to, args in (("approve", token, (self.court.address, RICH)),
                               ("deposit", self.court, (token.address, RICH))):  # fmt: skip
            self.pool.send(address, to.address, to.selector(call) + to.encode(call, *args))

    def raw(self, name: str, function: str, *args: Any, tip: int = 3 * GWEI) -> None:
        """A transaction that no client has looked at."""
        data = self.court.selector(function) + self.court.encode(function, *args)
        self.pool.send(self.accounts[name], self.court.address, data, tip=tip)

    def allowed(self, name: str, function: str, *args: Any) -> bool:
        """Whether the Court would take it now."""
        data = self.court.selector(function) + self.court.encode(function, *args)
        try:
            self.pool.look(self.accounts[name], self.court.address, data)
        except PoolRefusal:
            return False
        return True

    # time

    def round(
        self, seconds: int = BLOCK, room: int = BLOCK_GAS, out: bool = False, act: bool = True
    ) -> int:
        """Who is honest does what is due, then there is a block; then the liars answer, in a block one second
        later. How many transactions the honest have sent or have on their way."""
        self.sound = False
        honest = [(job, p) for job in self.jobs for p in job.honest.values()]
        busy = sum(self.turn(job, p) for job, p in honest)
        kept_out = [self.accounts[p.name] for _, p in honest] if out else []
        self.pool.mine(self.pool.now + seconds, room=room, out=kept_out)
        if act:
            self.lie()
            self.pool.mine(out=[self.accounts[p.name] for _, p in honest])
        self.check()
        self.sound = True
        return busy

    def turn(self, job: Job, p: Watched) -> int:
        if p.down:
            p.down -= 1
            return 1
        if p.watcher is None:
            p.watcher = Watcher(self.client(p.name, job), job.id, job.what.agreed, job.what.honest,
                                challenge=not p.name.startswith("alice"), say=p.notes.append)  # fmt: skip
        node = p.watcher.court.node
        before = len(node.receipts)
        flying = 1 if job.hasty else FLYING
        # a tick comes back where it would wait for a block
        with (
            patch.multiple(watcher_module, FLYING=flying, MINED=0.0),
            patch.object(node_module, "MINED", 0.0),
        ):
            try:
                p.watcher.tick()
            except ChainError as e:
                p.notes.append(f"note: {e.message}")
        return len(node.flights) + len(node.receipts) - before

    # the others

    def lie(self) -> None:
        """What liars do after a block: reveal, open their challenges, answer, call timeouts."""
        now = self.pool.now
        for job in self.jobs:
            t = job.terms
            for name in job.providers:
                args = t.values(), job.roots[name], SALT
                if name in job.honest or job.mute or not t.commit_until < now <= t.reveal_until:
                    continue
                if self.allowed(name, "reveal", *args):
                    self.raw(name, "reveal", *args)
            for role, whom in (
                sorted(job.pending) if t.challenge_until < now <= t.open_until else ()
            ):
                self.open(job, role, whom)
            for d in self.disputes(job):
                if not d.decided:
                    self._answer(job, d, now)

    def _answer(self, job: Job, d: Dispute, now: int) -> None:
        habit = job.habits.get(d.id)
        if habit is None:
            habit = job.habits[d.id] = Habit.of(job.rng)
            if job.hasty:  # who has no time gets no time
                habit = job.habits[d.id] = Habit(100, False, False, GWEI)
        names = {a: n for n, a in self.accounts.items()}
        name, late = names[d.player], now > d.clocks.deadline()
        if late:
            other = names[d.other]
            if other not in job.honest:
                with suppress(ChainError):
                    self.raw(
                        other,
                        "timeout",
                        d.id,
                        d.clocks.word,
                        *descent(self._standing(job, d).state),
                    )
            return
        if name in job.honest or d.clocks.round >= habit.quits:
            return
        if habit.slow and d.clocks.deadline() - now > SLOW:
            return
        player = job.players[name]
        try:
            standing = self._standing(job, d)
            move = player.move(standing)
        except Exception:  # it cannot follow from its lie to here
            return
        where = (d.id, d.clocks.word, d.other, standing.state)
        if habit.noise:
            wrong = bytearray(move)
            wrong[job.rng.randrange(len(wrong))] ^= 1 << job.rng.randrange(8)
            self.raw(name, "respond", *where, bytes(wrong), tip=habit.tip)
        self.raw(name, "respond", *where, move, tip=habit.tip)

    def _standing(self, job: Job, d: Dispute) -> Any:
        if job.id not in self.positions:
            self.positions[job.id] = Position(self.seen, job.id)
        return self.positions[job.id].of(d)

    def disputes(self, job: Job) -> list[Dispute]:
        """As of the newest block."""
        at = self.pool.head.hash
        if self._disputes.get(job.id, (b"", []))[0] != at:
            self._disputes[job.id] = at, self.seen.disputes(job.id)
        return self._disputes[job.id][1]

    def challenge(self, job: Job, role: str, whom: str) -> None:
        """Commit to a challenge."""
        name = job.name(role)
        args = job.terms.values(), self._commitment(job, name, job.name(whom))
        if self.allowed(name, "challenge", *args):
            self.raw(name, "challenge", *args)
            if job.rng.random() < 0.9:  # or it is never shown
                job.pending.add((role, whom))

    def open(self, job: Job, role: str, whom: str) -> None:
        name = job.name(role)
        args = job.terms.values(), job.what.facts.encode(), self.accounts[job.name(whom)], SALT
        if self.allowed(name, "open_challenge", *args):
            self.raw(name, "open_challenge", *args)
        job.pending.discard((role, whom))

    def _commitment(self, job: Job, name: str, whom: str) -> bytes:
        who, provider = self.accounts[name], self.accounts[whom]
        return challenge_commitment(1, self.court.address, job.id, who, provider, SALT)

    def copy(self) -> int:
        """A stranger sends what waits in the pool in its own name, for more."""
        copied = [t for t in self.pool.waiting.values() if t.sender != self.stranger]
        for t in copied:
            self.pool.send(self.stranger, t.to, t.data, tip=50 * GWEI)
        return len(copied)

    def wrong(self, job: Job, function: str, who: int) -> None:
        """A call that somebody who is not honest makes at any time."""
        names = ["stranger", *(n for n in job.names if n not in job.honest)]
        name, terms = names[who % len(names)], job.terms.values()
        one, two = (self.accounts[n] for n in job.rng.sample(job.names, 2))
        disputes, facts = self.disputes(job), job.what.facts.encode()
        args: dict[str, tuple[Any, ...]] = {
            "reveal": (job.what.agreed.root, SALT), "challenge": (job.rng.randbytes(32),),
            "confront": (facts, one, two), "forfeit": (one, job.rng.randbytes(32)),
            "reclaim": (one, job.rng.randbytes(32)), "void": (facts, 0, bytes(240), [bytes(32)]),
            "collect": (job.rng.choice(disputes).id if disputes else bytes(32),),
        }  # fmt: skip
        if (
            function != "challenge" or name in job.names
        ):  # its bond is forfeited, to be reckoned with
            self.raw(name, function, terms, *args.get(function, ()))

    def free_post(self) -> None:
        """A job that nobody is offered anything for."""
        terms = replace(
            self.jobs[0].terms, poster=self.stranger, reward=0, nonce=self.pool.head.number
        )
        self.raw("stranger", "post", terms.values(), self.jobs[0].what.facts.encode(), "")

    # what must hold

    def check(self) -> None:
        """Money is conserved, nobody honest has lost a dispute, no false root is final."""
        for token in self.tokens:
            a = token.address
            total = sum(self.court.call("credits", a, x) for x in self.accounts.values())
            total += self.court.call("held", a) + self.court.call("burnt", a)
            assert total == token.call("balanceOf", self.court.address), "money is made or lost"
        for job in self.jobs:
            honest = {self.accounts[n] for n in job.honest}
            for d in self._disputes.get(job.id, (b"", []))[1]:  # as last read, in this round
                if d.decided:
                    loser = d.challenger if d.turn == DEFENDER_WON else d.defender
                    assert loser not in honest, f"{self._name(loser)} has lost a dispute: {d}"
            if self.court.call("job_status", job.id) == FINAL:
                root, standing, _ = self.court.call("outcome", job.id)
                assert not standing or root == job.what.agreed.root, "a false root is final"
            for p in job.honest.values():
                for note in p.notes[-3:]:
                    assert not ODD.search(note), f"{p.name}: {note}"

    def _name(self, address: str) -> str:
        return next(n for n, a in self.accounts.items() if a == address)

    # the end

    def finish(self) -> None:
        """Play all jobs to their end, with every honest watcher up; then everyone has what the rules say."""
        for job in self.jobs:
            for p in job.honest.values():
                p.down = 0
        for _ in range(600):
            if all(self.court.call("job_status", job.id) == FINAL for job in self.jobs):
                break
            busy = self.round()
            if not busy:
                self.jump()
        else:
            raise AssertionError("a job does not end")
        for _ in range(6):  # what is to be collected
            self.round(act=False)
        for job in self.jobs:
            self._settle(job)
        self.check()
        for token in self.tokens:
            assert self.court.call("held", token.address) == 0, "money is locked"
        self._audit()

    def jump(self) -> None:
        """Nobody honest has anything to do before something's time has come."""
        now, ends = self.pool.now, list[int]()
        for job in self.jobs:
            ends += [getattr(job.terms, d) for d in DEADLINES]
            for d in self.disputes(job):
                if not d.decided:
                    if self._name(d.player) in job.honest:
                        return
                    habit = job.habits.get(d.id)
                    ends += [
                        d.clocks.deadline(),
                        *([d.clocks.deadline() - 400] if habit and habit.slow else []),
                    ]
        later = [t for t in ends if t >= now]
        if later:
            self.pool.mine(max(min(later) + 1, now + BLOCK))

    def _settle(self, job: Job) -> None:
        """What is anyone's to call."""
        court, terms = self.court, job.terms.values()
        for d in self.disputes(job):
            if not d.paid:
                court.call("collect", terms, d.id)
        for e in self.seen.events("Challenged", job=job.id):
            with suppress(Exception):
                court.call("forfeit", terms, e["challenger"], bytes(e["commitment"]))

    def _audit(self) -> None:
        """What every account of a job has gained is what docs/settlement.md says, to the unit of a share, and
        who is honest has its costs back."""
        for job in self.jobs:
            due = owed(self.seen, job.terms, job.id, job.providers, self.accounts)
            used = self._gas()
            for name in (f"poster {job.number}", *job.names):
                a, token = self.accounts[name], job.token
                has = (
                    token.call("balanceOf", a) + self.court.call("credits", token.address, a) - RICH
                )
                assert abs(has - due[name]) <= 1 + len(job.habits), (
                    f"{name} has gained {has}, not {due[name]}"
                )
                if name in job.honest and any(
                    a in (d.defender, d.challenger) for d in self.disputes(job)
                ):
                    costs = PRICES.gas(used[a]) + EXECUTION
                    assert has >= costs, f"{name} has gained {has}, its costs are {costs}"

    def _gas(self) -> Counter[str]:
        used = Counter[str]()
        for b in self.pool.blocks:
            for r in b.receipts.values():
                used[r["from"]] += int(r["gasUsed"], 16)
        return used
