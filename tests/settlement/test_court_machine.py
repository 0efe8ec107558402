"""The Court under random play: money is conserved, the honest lose nothing, every dispute ends within its
bound, everyone is paid once, and independent disputes commute."""

import random
from collections.abc import Callable
from contextlib import suppress
from itertools import permutations
from typing import Any

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ree.settlement.testing.court import (
    CHALLENGER,
    CHALLENGER_WON,
    DEFENDER,
    DEFENDER_WON,
    REFUTED,
    REVEALED,
    RICH,
    SEED,
    Job,
    World,
    account,
)
from ree.settlement.testing.evm import Reverted
from ree.settlement.testing.mock_game import MOVES, MockRun

HONEST = ("alice", "dave")  # compute what is true, and play every move in time
LIARS = {"bob": MockRun(SEED, wrong=3), "mallory": MockRun(SEED, wrong=200)}
EVERYONE = ("poster", *HONEST, *LIARS)
TRUE = MockRun(SEED)
CLOCK, GRACE = 600, 60

_world: list[World] = []


def refusal(call: Callable[..., Any], *args: Any) -> str:
    """The reason for which a call reverts; empty if it does not."""
    try:
        call(*args)
    except Reverted as e:
        return str(e)
    return ""


def fresh() -> World:
    """One world for all examples, as it was when it was made."""
    if not _world:
        w = World()
        w.fund(*EVERYONE)
        _world.append(w)
        w.mark = w.chain.snapshot()  # type: ignore[attr-defined]
    w = _world[0]
    w.chain.revert(w.mark)  # type: ignore[attr-defined]
    w.mark = w.chain.snapshot()  # type: ignore[attr-defined]
    return w


def run_of(name: str) -> MockRun:
    return LIARS.get(name, TRUE)


class CourtMachine(RuleBasedStateMachine):
    """One job; liars and honest providers and challengers; liars may also be silent or slow."""

    @initialize(
        providers=st.lists(st.sampled_from(EVERYONE[1:]), unique=True),
        silent=st.sets(st.sampled_from(tuple(LIARS))),
        pairs=st.lists(
            st.tuples(st.sampled_from(EVERYONE), st.sampled_from(EVERYONE[1:])), max_size=4
        ),
        early=st.integers(0, 4),
    )
    def begin(
        self, providers: list[str], silent: set[str], pairs: list[tuple[str, str]], early: int
    ) -> None:
        """From the start, or (mostly) from where the challenges of a full job are shown."""
        self.post()
        if not early:
            return
        for name in providers:
            self.accept(name)
            self.commit(name)
        self.job.at("commit_until", 1)
        for name in providers:
            if name not in silent:
                self.reveal(name)
        self.job.at("reveal_until", 1)
        for who, whom in pairs:
            self.challenge(who, whom)
        self.job.at("challenge_until", 1)
        for (who, whom), _ in list(self.challenged.items()):
            if who in HONEST or who not in silent:
                self.open(who, whom)

    def post(self) -> None:
        self.world = fresh()
        self.job = self.world.post()
        self.disputes: dict[bytes, tuple[str, str, int, list[int]]] = {}
        self.decided: dict[bytes, int] = {}
        self.challenged: dict[tuple[str, str], bool] = {}
        self.confronted: set[frozenset[str]] = set()
        self.providers: list[str] = []
        self.committed: list[str] = []
        self.final = False
        self.paid: set[bytes] = set()

    def phase(self, after: str, until: str) -> bool:
        t, now = self.job.terms, self.world.chain.now
        return (not after or now > getattr(t, after)) and now <= getattr(t, until)

    @rule(seconds=st.sampled_from([1, 30, 50, 59, 100]))
    def wait(self, seconds: int) -> None:
        """Time passes; the honest do what is theirs before it has passed."""
        self.honest_act()
        self.world.chain.now += seconds

    def honest_act(self) -> None:
        for d, (defender, challenger, _, _) in list(self.disputes.items()):
            for _ in range(2):
                if d in self.decided:
                    break
                turn = self.job.dispute(d)["turn"]
                name = defender if turn == DEFENDER else challenger
                if name in HONEST:
                    self.move(d, name)
        for name in HONEST:
            if (
                self.phase("", "commit_until")
                and name in self.providers
                and name not in self.committed
            ):
                self.commit(name)
            if self.phase("commit_until", "reveal_until") and name in self.committed:
                self.reveal(name)
            if self.phase("challenge_until", "open_until"):
                for (who, whom), opened in list(self.challenged.items()):
                    if who == name and not opened:
                        self.open(who, whom)

    @precondition(lambda self: self.phase("", "accept_until"))
    @rule(name=st.sampled_from(EVERYONE[1:]))
    def accept(self, name: str) -> None:
        if name not in self.providers:
            self.job.send(name, "accept")
            self.providers.append(name)

    @precondition(lambda self: self.phase("", "commit_until") and self.providers)
    @rule(name=st.sampled_from(EVERYONE[1:]))
    def commit(self, name: str) -> None:
        if name in self.providers and name not in self.committed:
            self.job.send(name, "commit", self.job.commitment(name, run_of(name).root))
            self.committed.append(name)

    @precondition(lambda self: self.phase("commit_until", "reveal_until"))
    @rule(name=st.sampled_from(EVERYONE[1:]))
    def reveal(self, name: str) -> None:
        if name in self.committed and self.job.claim(name)["status"] < REVEALED:
            self.job.send(name, "reveal", run_of(name).root, b"salt of 16 bytes")

    @precondition(lambda self: self.phase("reveal_until", "challenge_until"))
    @rule(who=st.sampled_from(EVERYONE), whom=st.sampled_from(EVERYONE[1:]))
    def challenge(self, who: str, whom: str) -> None:
        wise = who not in HONEST or whom in LIARS  # the honest challenge what is false
        if (
            wise
            and (who, whom) not in self.challenged
            and self.job.claim(whom)["status"] >= REVEALED
        ):
            self.job.challenge(who, whom)
            self.challenged[who, whom] = False

    @precondition(lambda self: self.phase("challenge_until", "open_until"))
    @rule(data=st.data())
    def open_one(self, data: st.DataObject) -> None:
        closed = sorted(k for k, opened in self.challenged.items() if not opened)
        if closed:
            self.open(*data.draw(st.sampled_from(closed)))

    def open(self, who: str, whom: str) -> None:
        self.challenged[who, whom] = True
        self.opened(self.job.open(who, whom), whom, who)

    def opened(self, d: bytes, defender: str, challenger: str) -> None:
        self.disputes[d] = (defender, challenger, self.world.chain.now, self.job.dispute(d)["left"])

    @precondition(
        lambda self: self.world.chain.now > self.job.terms.reveal_until and not self.final
    )
    @rule(a=st.sampled_from(EVERYONE[1:]), b=st.sampled_from(EVERYONE[1:]))
    def confront(self, a: str, b: str) -> None:
        if frozenset((a, b)) in self.confronted:
            return
        with suppress(Reverted):
            self.began(self.job.confront(a, b), a, b)

    def began(self, d: bytes, a: str, b: str) -> None:
        self.confronted.add(frozenset((a, b)))
        self.opened(d, a, b)

    def running(self) -> list[bytes]:
        return [d for d in self.disputes if d not in self.decided]

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def play(self, data: st.DataObject) -> None:
        d = data.draw(st.sampled_from(self.running()))
        defender, challenger, _, _ = self.disputes[d]
        self.move(d, defender if self.job.dispute(d)["turn"] == DEFENDER else challenger)

    def move(self, d: bytes, name: str) -> None:
        why = refusal(self.job.step, d, name, run_of(name))
        if why:
            assert why == "court: time is up"
            assert name not in HONEST
        elif (turn := self.job.dispute(d)["turn"]) > CHALLENGER:
            self.ended(d, turn)

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def timeout(self, data: st.DataObject) -> None:
        d = data.draw(st.sampled_from(self.running()))
        self.timeout_of(d)

    def ended(self, d: bytes, verdict: int) -> None:
        self.decided[d] = verdict
        defender, challenger, began, (first, second) = self.disputes[d]
        assert (
            verdict == CHALLENGER_WON
            or defender in HONEST
            or challenger in LIARS
            or (challenger == "poster")
        ), "a liar beat an honest challenger"
        assert verdict == DEFENDER_WON or defender not in HONEST, "an honest defender lost"
        # silence is found out at the next look, which is at most one wait later
        assert self.world.chain.now - began <= first + second + MOVES * GRACE + 100 * 50

    @precondition(lambda self: self.world.chain.now > self.job.terms.open_until and not self.final)
    @rule()
    def finalise(self) -> None:
        why = refusal(self.job.finalise)
        assert why in ("", "court: open disputes", "court: claims differ")
        self.final = not why

    @precondition(lambda self: self.final and self.decided)
    @rule(data=st.data())
    def collect(self, data: st.DataObject) -> None:
        d = data.draw(st.sampled_from(sorted(self.decided)))
        if d in self.paid:
            with pytest.raises(Reverted, match="court: collected"):
                self.job.send("poster", "collect", d)
        else:
            self.job.send("poster", "collect", d)
            self.paid.add(d)

    @invariant()
    def money_is_conserved(self) -> None:
        if not hasattr(self, "world"):
            return
        w, token = self.world, self.world.token.address
        credits = sum(w.credit(n) for n in (*EVERYONE, "treasury"))
        total = credits + w.view("held", token) + w.view("burnt", token)
        assert total == w.token.call("balanceOf", w.court.address) == len(EVERYONE) * RICH

    @invariant()
    def the_honest_stand(self) -> None:
        if hasattr(self, "job"):
            for name in HONEST:
                assert self.job.claim(name)["status"] != REFUTED

    def teardown(self) -> None:
        """Play everything to its end: then nothing is held, and the honest have lost nothing."""
        if not hasattr(self, "job"):
            return
        self.job.at("accept_until")
        for deadline in ("commit_until", "reveal_until", "challenge_until", "open_until"):
            self.honest_act()
            self.job.at(deadline, 0 if deadline == "commit_until" else -1)
            self.honest_act()
            self.job.at(deadline, 1)
        for _ in range(200):
            self.honest_act()
            for d in self.running():
                self.timeout_of(d)
            if not self.final:
                self.finalise_or_confront()
            if self.final:
                break
            self.world.chain.now += 59
        assert self.final, "the job does not end"
        for d in self.decided:
            if d not in self.paid:
                self.job.send("poster", "collect", d)
            assert refusal(self.job.send, "poster", "collect", d) == "court: collected"
        for (who, whom), opened in self.challenged.items():
            if not opened:
                commitment = self.job.challenge_commitment(who, whom)
                self.job.send("poster", "forfeit", account(who), commitment)
        self.money_is_conserved()
        assert self.world.view("held", self.world.token.address) == 0
        for name in HONEST:
            assert self.world.credit(name) >= RICH, f"{name} lost"

    def timeout_of(self, d: bytes) -> None:
        why = refusal(self.world.timeout, "poster", d)
        assert why in ("", "court: time is left")
        if not why:
            self.ended(d, self.job.dispute(d)["turn"])

    def finalise_or_confront(self) -> None:
        why = refusal(self.job.finalise)
        self.final = not why
        if why == "court: claims differ":
            for a, b in permutations(self.providers, 2):
                self.confront(a, b)


CourtMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCourtMachine = CourtMachine.TestCase


def test_independent_disputes_commute() -> None:
    """Whatever the order of the moves of three disputes, everyone ends with the same; winners of one claim to
    the unit that does not divide."""
    ends = []
    for seed in range(6):
        w = fresh()
        job = w.post(nonce=1)
        job.provide({"alice": TRUE, "bob": LIARS["bob"]})
        pairs = [("bob", "dave"), ("bob", "poster"), ("alice", "mallory")]
        for whom, who in pairs:
            job.challenge(who, whom)
        games = {job.open(who, whom): (whom, who) for whom, who in pairs}
        assert played(job, games, random.Random(seed)) == {CHALLENGER_WON: 2, DEFENDER_WON: 1}
        root, _, _ = job.finalise()
        for d in games:
            job.send("poster", "collect", d)
        assert root == TRUE.root
        ends.append([w.credit(n) for n in EVERYONE])
    assert all(max(of_one) - min(of_one) <= 1 for of_one in zip(*ends, strict=True))


def played(job: Job, games: dict[bytes, tuple[str, str]], rng: random.Random) -> dict[int, int]:
    """Play the moves of several disputes in a random order; how often who won."""
    turns = dict.fromkeys(games, DEFENDER)
    while running := [d for d, t in turns.items() if t <= CHALLENGER]:
        d = rng.choice(running)
        name = games[d][turns[d] - 1]
        # the poster plays honestly here
        turns[d] = job.step(d, name, run_of(name))
    return {v: list(turns.values()).count(v) for v in (CHALLENGER_WON, DEFENDER_WON)}
