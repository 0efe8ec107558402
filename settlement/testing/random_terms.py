"""Terms of jobs at random, for tests: they are refused in one line, or the job is played to its end and whoever
was honest in it is whole."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from ree.errors import ChainError, ReeError
from ree.settlement.client import CHALLENGER_WON, DEFENDER_WON, REVEALED, Agreed, Court
from ree.settlement.clocks import DEFENDER
from ree.settlement.embedded import Embedded
from ree.settlement.policy import DAY, DEVELOPMENT, HOUR, Policy
from ree.settlement.terms import DEADLINES, Terms, TrainingRun, facts_digest
from ree.settlement.terms_file import AMOUNTS, WINDOWS, read_terms
from ree.settlement.testing.adversary import one_line
from ree.settlement.testing.court import (
    LIE,
    OTHER_LIE,
    TREASURY,
    Job,
    World,
    account,
)
from ree.settlement.testing.evm import Reverted
from ree.settlement.testing.mock_game import NUMERIC_ID, MockRun
from ree.settlement.testing.town import FACTS, TRUE, Town

NAMES = ("poster", "alice", "bob", "carol", "dave", "anyone")
OF = {account(n).lower(): n for n in NAMES}
EDGES = [
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    59,
    60,
    61,
    199,
    200,
    201,
    255,
    256,
    2**256 - 1,
    *(2**k + d for k in (16, 32, 48, 63, 64, 127, 128, 192, 248, 250, 255) for d in (-1, 0, 1)),
]
SECONDS = [-(10**9), -1, 0, 1, 2, 11, 12, 59, 60, 61, 300, HOUR - 1, HOUR, DAY, 90 * DAY - 600, 90 * DAY - 1,
           90 * DAY, 90 * DAY + 1, 2**32, 2**48, 2**64, 2**255]  # fmt: skip
ODD = ("00" * 20, "00" * 19 + "01", "ff" * 20)  # addresses
SILENCE = 4  # one in so many of a liar's turns


def check_terms(seed: int) -> str:
    """What the terms that a seed makes came to: refused (with where), or played."""
    rng = np.random.default_rng(seed)
    kind = int(rng.integers(10))
    try:
        if kind < 3:
            return _file(rng)
        return _client(rng) if kind == 3 else _court(rng)
    except Exception as e:
        e.add_note(f"seed {seed}: terms of kind {kind}")
        raise


# what stands in a file


def _file(rng: np.random.Generator) -> str:
    """A file of terms, as somebody may write one."""
    given: dict[str, Any] = {
        "token": "0x" + rng.bytes(20).hex(), "data": "here", "payees": 1, "slots": 2,
        **{n: 1000 for n in AMOUNTS if n not in ("payees", "slots")}, **dict.fromkeys(WINDOWS, 2 * HOUR),
    }  # fmt: skip
    others: list[Any] = [*EDGES, -1, -(2**255), 1.0, 1e300, True, None, "", "7", "ten", [], {}, [1], 10**400,
                         "\ud800", "a\nb", "\x1b[31m", "x" * 70_000, "0x" + "00" * 20, "0x" + "Ab" * 20,
                         "0X" + "ab" * 20, "ab" * 20, "0x" + "ab" * 19, "0x" + "ab" * 21, "0x" + "zz" * 20,
                         "name.eth"]  # fmt: skip
    for _ in range(int(rng.integers(3))):
        given[str(rng.choice(list(given)))] = others[int(rng.integers(len(others)))]
    name = str(rng.choice(list(given)))
    match int(rng.integers(12)):
        case 0:
            del given[name]
        case 1:
            given["nonce"] = 1
        case 2:
            given["token"] = "".join(
                c.upper() if rng.integers(2) else c for c in str(given["token"])
            )
    raw = json.dumps(given).encode()
    match int(rng.integers(16)):
        case 0:
            raw = raw[: int(rng.integers(len(raw)))]
        case 1:
            raw = raw.replace(b"{", b'{"token": 1, ', 1)
        case 2:
            raw = raw.replace(b":", b": NaN, :", 1) if rng.integers(2) else b"[" * 10**5
        case 3:
            raw = rng.bytes(50)
    node = SimpleNamespace(now=1_800_000_000, account=account("poster"))
    with tempfile.NamedTemporaryFile() as f:
        Path(f.name).write_bytes(raw)
        try:
            terms, data = read_terms(f.name, cast(Court, SimpleNamespace(node=node)), FACTS)
        except ReeError as e:
            one_line(e)
            return "refused: file"
    assert isinstance(data, str)
    assert all(0 <= getattr(terms, n) < 2**128 for n in AMOUNTS)
    terms.id(1, account("court"))  # can be encoded
    for policy in (Policy(), DEVELOPMENT):
        for line in policy.refusals(terms, node.now):
            one_line(ChainError(line))
    return "read"


# what the chain is asked


@lru_cache(maxsize=1)
def _town() -> tuple[Town, Any]:
    town = Town(Embedded())
    return town, town.chain.snapshot()


def _client(rng: np.random.Generator) -> str:
    """The client, without a policy and with one, asked to post and accept."""
    town, mark = _town()
    town.chain.revert(mark)
    _town.cache_clear()
    terms = changed(town.terms(), town.chain.now, rng)
    policy = (None, DEVELOPMENT, Policy())[int(rng.integers(3))]

    def court(role: str) -> Court:
        return Court(town.nodes[role], town.address, town.since, policy)

    came_to = "posted"
    try:
        job = court("poster").post(terms, FACTS, "x" * int(rng.choice([0, 4, 256, 257])))
        court("alice").accept(job, Agreed(TRUE.root))
    except ReeError as e:
        one_line(e)
        came_to = "refused: client"
    for role in ("poster", "alice"):
        held = court(role).credit(town.token)
        coin = town.nodes[role].contract("token", town.token)
        assert (
            came_to == "posted"
            or held + coin.functions.balanceOf(town.nodes[role].account).call() > 0
        )
    return came_to


@lru_cache(maxsize=1)
def _world() -> tuple[World, list[Any]]:
    w = World()
    w.chain.know(*NAMES)
    return w, [w.chain.snapshot()]


def changed(terms: Terms, now: int, rng: np.random.Generator) -> Terms:
    """Terms with some fields at their extremes."""
    new: dict[str, Any] = {}
    for _ in range(int(rng.integers(1, 4))):
        name = str(
            rng.choice([f for f in Terms.__dataclass_fields__ if f not in ("facts", "nonce")])
        )
        if name in DEADLINES:
            around = [now, *(getattr(terms, d) for d in DEADLINES)]
            at = max(0, int(rng.choice(around)) + SECONDS[int(rng.integers(len(SECONDS)))])
            later = DEADLINES[DEADLINES.index(name) :] if rng.integers(2) else (name,)
            for d in later:  # those that follow with it, as far behind it as they were
                new[d] = max(0, getattr(terms, d) + at - getattr(terms, name))
        elif name in ("poster", "token"):
            if rng.integers(4) == 0:  # seldom: nothing comes of the others
                where = [account("alice"), terms.token, *("0x" + x for x in ODD)]
                new[name] = where[int(rng.integers(len(where)))]
        elif name in ("clock", "grace"):
            new[name] = max(0, SECONDS[int(rng.integers(len(SECONDS)))])
        elif name in ("payees", "slots"):
            new[name] = (
                int(rng.integers(1, 9)) if rng.integers(2) else EDGES[int(rng.integers(len(EDGES)))]
            )
        else:
            new[name] = EDGES[int(rng.integers(len(EDGES)))]
    if new.get("grace", 0) > new.get("clock", terms.clock) and rng.integers(2):
        new["clock"] = new["grace"]
    if new.get("payees", 0) > new.get("slots", terms.slots) and rng.integers(2):
        new["slots"] = new["payees"]
    return replace(terms, **new)


def _court(rng: np.random.Generator) -> str:
    """The Court itself, and a job with everyone in it."""
    w, marks = _world()
    w.chain.revert(marks.pop())
    marks.append(w.chain.snapshot())
    facts = w.facts.encode()
    if rng.integers(4) == 0:  # of a training run
        run = TrainingRun(
            NUMERIC_ID + rng.bytes(92), rng.bytes(32), bytes(range(32)), 5, rng.bytes(32)
        )
        facts = run.encode()
    terms = changed(replace(w.terms(), facts=_digest(facts)), w.chain.now, rng)
    if rng.integers(20) == 0:
        facts = (facts[:-1], facts[:10], b"", bytes(32) + facts[32:])[int(rng.integers(4))]
        terms = replace(terms, facts=_digest(facts))
    party = Play(w, Job(w, terms), rng)
    party.job.facts = facts
    try:
        party.fund("poster", min(terms.reward * terms.payees, 2**256 - 1))
        w.send("poster", "post", terms.values(), facts, "here")
    except Reverted as e:
        one_line(e)
        return "refused: Court"
    for policy in (Policy(), DEVELOPMENT):
        for line in policy.refusals(terms, w.chain.now):
            one_line(ChainError(line))
    return party.play()


def _digest(facts: bytes) -> bytes:
    return facts_digest(cast(Any, SimpleNamespace(encode=lambda: facts)))


@dataclass
class Play:
    """One job with honest and lying parties. The honest take all the time that the terms give them."""

    world: World
    job: Job
    rng: np.random.Generator
    put: dict[str, int] = field(default_factory=dict)  # what each has deposited
    runs: dict[str, MockRun] = field(default_factory=dict)  # of who has revealed
    disputes: list[bytes] = field(default_factory=list)
    honest = {"alice": TRUE, "carol": TRUE}
    liars = {"bob": LIE, "dave": OTHER_LIE}

    def fund(self, name: str, amount: int) -> None:
        """Give somebody exactly this."""
        w = self.world
        if self.job.terms.token != w.token.address or not amount:
            return
        w.token.call("mint", account(name), amount)
        w.token.call("approve", w.court.address, amount, by=account(name))
        w.send(name, "deposit", w.token.address, amount)
        self.put[name] = self.put.get(name, 0) + amount

    def able(self, name: str, amount: int, call: Callable[[], object]) -> bool:
        """Whether somebody could do what takes so much: there are no more tokens than 2^256."""
        try:
            self.fund(name, amount)
            call()
        except Reverted as e:
            one_line(e)
            return False
        return True

    def play(self) -> str:
        """What the job came to; AssertionError unless the honest are whole and nothing is left behind."""
        job, t = self.job, self.job.terms
        people = [str(x) for x in self.rng.permutation(["alice", "bob", "carol", "dave"])]
        there = [n for n in people if self.able(n, t.provider_bond, partial(job.send, n, "accept"))]
        all_runs = {**self.honest, **self.liars}
        for n in there:
            if n in self.honest or self.rng.integers(SILENCE):
                job.send(n, "commit", job.commitment(n, all_runs[n].root))
                self.runs[n] = all_runs[n]
        job.at("commit_until", 1)
        for n in list(self.runs):
            if n in self.honest or self.rng.integers(SILENCE):
                job.send(n, "reveal", all_runs[n].root, b"salt of 16 bytes")
            else:
                del self.runs[n]
        job.at("reveal_until", 1)
        shown, hidden = self._challenges()
        job.at("challenge_until", 1)
        for who, whom in shown:
            self.disputes.append(job.open(who, whom))
        for a, b in zip(self.runs, [*self.runs][1:], strict=False):
            if self.runs[a].root != self.runs[b].root and self.rng.integers(2):
                self.disputes.append(job.confront(a, b))
        for d in self.rng.permutation(len(self.disputes)):
            self._dispute(self.disputes[d])
        return self._end(hidden)

    def _challenges(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Who challenges whom, and who challenges and does not show it: every lie is challenged by an honest
        stranger."""
        job = self.job
        shown, hidden = list[tuple[str, str]](), list[tuple[str, str]]()
        wanted = [("anyone", n) for n in self.runs if n in self.liars]
        wanted += [(a, b) for a in self.liars for b in self.runs if self.rng.integers(3) == 0]
        for who, whom in wanted:
            if not self.able(who, job.terms.challenger_bond, partial(job.challenge, who, whom)):
                continue
            late = who in self.liars and self.rng.integers(SILENCE) == 0
            (hidden if late else shown).append((who, whom))
        return shown, hidden

    def _dispute(self, d: bytes) -> None:
        """Play one: the honest at the last second that is sure to be theirs, or at once."""
        job, w, all_runs = self.job, self.world, {**self.honest, **self.liars}
        while True:
            now = job.dispute(d)
            clocks = w.clocks[d]
            if now["turn"] >= DEFENDER_WON:
                break
            players = (OF[now["defender"]], OF[now["challenger"]])
            name = players[clocks.turn != DEFENDER]
            left = clocks.left[clocks.turn - 1]
            assert left >= clocks.grace, "less than the time of a move"
            run = all_runs.get(name, TRUE)
            honest = run.root == TRUE.root
            late = int(self.rng.integers(3))
            # disputes are played one after the other here, so that the time of all stands still meanwhile
            w.chain.now = clocks.since + (0, min(left, clocks.grace), left)[late]
            if not honest and self.rng.integers(SILENCE) == 0:
                w.chain.now = clocks.since + left + 1
                w.timeout("anyone", d)
                continue
            refusal = ""
            try:
                job.step(d, name, run)
            except Reverted as e:
                refusal = one_line(e)
            assert not (refusal and honest), f"{name} in {players}: {refusal}"
            if refusal:
                w.chain.now = clocks.since + left + 1
                w.timeout("anyone", d)
        won = players[now["turn"] == CHALLENGER_WON]
        roots = {n: all_runs.get(n, TRUE).root for n in players}
        if TRUE.root in roots.values() and len(set(roots.values())) > 1:
            assert roots[won] == TRUE.root, f"{won} won of {players}"

    def _end(self, hidden: list[tuple[str, str]]) -> str:
        w, job, t = self.world, self.job, self.job.terms
        standing = {n: r for n, r in self.runs.items()
                    if job.claim(n)["status"] == REVEALED}  # fmt: skip
        if len({r.root for r in standing.values()}) > 1:  # nobody could pay for a dispute
            return "claims differ"
        job.at("open_until", 1)
        job.send("anyone", "finalise")
        for d in self.disputes:
            job.send("anyone", "collect", d)
        for who, whom in hidden:
            commitment = job.challenge_commitment(who, whom)
            job.send("anyone", "forfeit", account(who), commitment)
        token = t.token
        if token != w.token.address:
            return "of no token"
        assert w.view("held", token) == 0, "money is left behind"
        gains = {n: w.credit(n) - self.put.get(n, 0) for n in NAMES}
        total = sum(w.credit(n) for n in NAMES) + int(w.view("credits", token, TREASURY))
        assert total + w.view("burnt", token) == w.token.call("balanceOf", w.court.address)
        accepted = [OF[x] for x in w.view("providers", job.id)]
        order = [n for n in accepted if n in standing][: t.payees]
        for n in self.honest:
            least = t.reward - t.reward // 200 if n in order else 0
            assert gains[n] >= least, f"{n} has {gains[n]} of {least}"
        assert gains["anyone"] >= 0, f"the honest challenger has {gains['anyone']}"
        for n in NAMES:
            if w.credit(n):
                w.send(n, "withdraw", token, w.credit(n))
        return "played"
