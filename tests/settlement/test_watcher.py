"""What a watcher does first, and what may fail without stopping it: on the embedded chain, with a mock game."""

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("eth_tester", reason="needs the extra settlement")

from ree.errors import ChainError
from ree.settlement.client import CHALLENGER_WON, DEFENDER_WON, Agreed, Court
from ree.settlement.embedded import Embedded
from ree.settlement.node import Node
from ree.settlement.terms import Terms
from ree.settlement.testing.mock_game import MockPlayer, MockRun
from ree.settlement.testing.town import FACTS, LIE, SEED, TRUE, Town
from ree.settlement.watcher import Watcher

BLOCK = 12  # seconds


@pytest.fixture(scope="module")
def built() -> Town:
    return Town(Embedded())


@pytest.fixture
def town(built: Town) -> Any:
    mark = built.chain.snapshot()
    yield built
    built.chain.revert(mark)


def begin(town: Town, runs: dict[str, MockRun], **changes: int) -> tuple[Terms, bytes]:
    """A job whose providers have revealed."""
    terms = replace(town.terms(), **changes)
    job = town.court("poster").post(terms, FACTS, "here")
    for role, run in runs.items():
        town.court(role).accept(job, Agreed(run.root))
        town.court(role).commit(job, Agreed(run.root))
    town.chain.wait_until(terms.commit_until + 1)
    for role, run in runs.items():
        town.court(role).reveal(job, run.root)
    town.chain.wait_until(terms.reveal_until + 1)
    return terms, job


def test_a_dispute_that_is_lost_stops_no_other(town: Town) -> None:
    """An outage costs the first of two; the second is played on."""
    other = MockRun(SEED, wrong=16)
    terms, job = begin(town, {"alice": LIE, "bob": other})
    town.watcher("carol", job, TRUE, challenge=True).tick()
    town.chain.wait_until(terms.challenge_until + 1)
    town.watcher("carol", job, TRUE, challenge=True).tick()
    liars = [town.watcher(r, job, run) for r, run in (("alice", LIE), ("bob", other))]
    for w in liars:
        w.confronts = False
    liars[0].tick()
    opened = town.chain.now
    town.chain.wait_until(opened + 300)
    liars[1].tick()
    town.chain.wait_until(opened + 601)  # carol was away: too late for the first
    said: list[str] = []
    carol = town.watcher("carol", job, TRUE, challenge=True)
    carol.say = said.append
    while carol.tick() + liars[1].tick():
        pass
    assert sorted(d.turn for d in carol.court.disputes(job))[-1] == CHALLENGER_WON
    assert sum("our time has run out" in s for s in said) == 1


def test_a_challenge_without_money_stops_no_answer(town: Town) -> None:
    _, job = begin(town, {"alice": TRUE, "bob": LIE})
    alice, coin = town.nodes["alice"], town.nodes["alice"].contract("token", town.token).functions
    alice.send("burn", coin.transfer(town.nodes["poster"].account,
                                     coin.balanceOf(alice.account).call()))  # fmt: skip
    bob = town.watcher("bob", job, LIE)
    town.court("bob").confront(job, alice.account, town.nodes["bob"].account)
    watcher, said = town.watcher("alice", job, TRUE, challenge=True), []
    watcher.say = said.append
    while watcher.tick() + bob.tick():
        pass
    assert any("more of token" in s for s in said)  # it was tried
    assert all(d.decided for d in watcher.court.disputes(job))
    me = watcher.court.claim(job, alice.account)
    assert (me.status, me.lost) == (3, 0)


def test_a_player_that_fails_in_one_dispute_plays_the_others(town: Town) -> None:
    terms, job = begin(town, {"alice": TRUE})
    for role in ("bob", "carol"):
        town.court(role).challenge(job, town.nodes["alice"].account, Agreed(LIE.root))
    town.chain.wait_until(terms.challenge_until + 1)
    for role in ("bob", "carol"):
        town.court(role).open_challenge(job, town.nodes["alice"].account)

    class Fails(MockPlayer):
        def move(self, standing: Any) -> bytes:
            if standing.state is not None and broken(standing):
                raise KeyError("a fault of its own")
            return super().move(standing)

    def broken(standing: Any) -> bool:
        return len(failed) == 0 and not failed.append(standing)

    failed: list[Any] = []
    watcher = Watcher(town.court("alice"), job, Agreed(TRUE.root), Fails(TRUE))
    assert watcher.tick() == 1
    assert {d.clocks.round for d in watcher.court.disputes(job)} == {0, 1}


def play(town: Town, many: int, monkeypatch: pytest.MonkeyPatch) -> Watcher:
    """`many` challengers of a true claim who answer at once; a transaction of its defender takes a block."""
    chain, deployer = town.chain, town.nodes["deployer"]
    mint = deployer.contract("token", town.token).functions.mint
    start = chain.now
    terms, job = begin(town, {"alice": TRUE}, clock=60, challenge_until=start + 30_000,
                       open_until=start + 60_000)  # fmt: skip
    alice = town.nodes["alice"]
    courts: list[Court] = []
    for i in range(many):
        node = chain.account(f"c{i}")
        deployer.send("mint", mint(node.account, 10_000))
        courts.append(Court(node, town.address, town.since))
        courts[-1].challenge(job, alice.account, Agreed(LIE.root))
    chain.wait_until(terms.challenge_until + 1)
    for c in courts:
        c.open_challenge(job, alice.account)
    others = [Watcher(c, job, Agreed(LIE.root), MockPlayer(LIE)) for c in courts]
    send = Node.send

    def slow(self: Node, what: str, call: Any) -> Any:
        if self.account == alice.account:
            chain.next_at(chain.now + BLOCK)
        receipt = send(self, what, call)
        if self.account == alice.account and what in ("respond", "descend"):
            for d in watcher.court.disputes(job):
                if not d.decided and d.player != alice.account:
                    by[d.player]._answer(d, chain.now)
        return receipt

    by = {c.node.account: w for c, w in zip(courts, others, strict=True)}
    watcher = town.watcher("alice", job, TRUE)
    monkeypatch.setattr(Node, "send", slow)
    return watcher


def test_the_earliest_deadline_comes_first(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six disputes, with 12 s a move: in turns the first would run out of its 60 s."""
    watcher = play(town, 6, monkeypatch)
    while watcher.tick():
        pass
    assert {d.turn for d in watcher.court.disputes(watcher.job)} == {DEFENDER_WON}


def test_disputes_of_others_are_not_read(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cheat who challenges itself a thousand times does not slow down who has a move to make."""
    end = town.chain.now + 4_100
    terms, job = begin(town, {"alice": TRUE, "bob": LIE}, open_until=end)
    bob = town.nodes["bob"].account
    for role in ("carol", "poster"):
        town.court(role).challenge(job, bob, Agreed(TRUE.root))
    town.court("carol").challenge(job, town.nodes["alice"].account, Agreed(LIE.root))
    town.chain.wait_until(terms.challenge_until + 1)
    for role in ("carol", "poster"):
        town.court(role).open_challenge(job, bob)
    town.court("carol").open_challenge(job, town.nodes["alice"].account)
    asked, view = [], Court.dispute
    monkeypatch.setattr(Court, "dispute", lambda c, d: asked.append(d) or view(c, d))
    town.chain.wait_until(terms.open_until + 1)
    watcher = town.watcher("alice", job, TRUE)
    assert len(watcher.court.events("Opened", job=job)) == 3
    due = watcher._due([])
    assert [t.key[0] for t in due] == ["answer", "confront"]
    assert len(asked) == 1


def test_events_are_asked_for_by_topic_in_ranges_that_the_node_answers(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other jobs' events are never read, and a node that refuses a range is asked for half."""
    terms, job = begin(town, {"alice": TRUE})
    for _ in range(5):
        town.court("bob").post(
            replace(town.terms(), poster=town.nodes["bob"].account, reward=0), FACTS, "x"
        )
    court, asked = town.court("alice"), []
    get_logs = type(town.chain.web3.eth).get_logs

    def refuses(self: Any, question: Any) -> Any:
        asked.append(question["toBlock"] - question["fromBlock"] + 1)
        found = get_logs(self, question)
        if len(found) > 1 or asked[-1] > 7:
            raise ValueError("query returned more than 1 results")
        return found

    monkeypatch.setattr(type(town.chain.web3.eth), "get_logs", refuses)
    assert court.posting(job)[0] == terms
    assert max(asked) > 7
    asked.clear()
    assert len(court.events("Revealed", job=job)) == 1
    monkeypatch.setattr(type(town.chain.web3.eth), "get_logs",
                        lambda *a: (_ for _ in ()).throw(ValueError("no")))  # fmt: skip
    with pytest.raises(ChainError, match="no"):
        town.court("alice").posting(job)
