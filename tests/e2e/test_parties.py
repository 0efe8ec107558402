"""Clients and watchers on a chain: crashes, reorganisations, what is never bonded, and errors in one line."""

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")

from ree.errors import ChainError
from ree.settlement.client import CHALLENGER_WON, DEFENDER_WON, FINAL, REFUTED, Agreed, agree
from ree.settlement.testing.town import AGREED, FACTS, LIE, TRUE, Town


@pytest.fixture(scope="session")
def built(chain: Any) -> Town:
    return Town(chain)


@pytest.fixture
def town(built: Town) -> Iterator[Town]:
    mark = built.chain.snapshot()
    yield built
    built.chain.revert(mark)


def test_a_story_of_watchers_that_crash_at_every_step(town: Town) -> None:
    """Each tick is another process: it knows the chain and its run, and nothing else. Trap 6: what is done
    already is success."""
    poster, terms = town.court("poster"), town.terms()
    job = poster.post(terms, FACTS, "here")
    assert poster.post(terms, FACTS, "here") == job
    for role, run in (("alice", TRUE), ("bob", LIE)):
        court = town.court(role)
        assert court.accept(job, Agreed(run.root)) is not None
        assert court.commit(job, Agreed(run.root)) is not None
        before = len(town.nodes[role].receipts)
        assert court.accept(job, Agreed(run.root)) is None
        assert court.commit(job, Agreed(run.root)) is None
        assert len(town.nodes[role].receipts) == before
    parties = [("alice", TRUE, False), ("bob", LIE, False), ("carol", TRUE, True)]
    for deadline in ("commit_until", "reveal_until", "challenge_until", "open_until"):
        town.chain.wait_until(getattr(terms, deadline) + 1)
        while sum(town.watcher(r, job, run, c).tick() for r, run, c in parties):
            pass
    assert poster.status(job) == FINAL
    root, standing, stood = poster.call("outcome", job)
    assert (bytes(root), standing, stood) == (TRUE.root, 1, 1)
    bob = poster.claim(job, town.nodes["bob"].account)
    assert (bob.status, bob.lost) == (REFUTED, 2)
    assert all(d.decided for d in poster.disputes(job))
    assert {d.turn for d in poster.disputes(job)} == {CHALLENGER_WON}
    # a half of the bond is burnt, the other shared by the two that met the lie
    shares = (town.court("alice").credit(town.token) - 4_003 - 9_951,
              town.court("carol").credit(town.token) - 1_001)  # fmt: skip
    assert sorted(shares) == [
        1_000,
        1_001,
    ]  # whose dispute was decided last has the unit that is left
    assert town.court("alice").withdraw(town.token) is not None
    assert town.court("alice").withdraw(town.token) is None


def test_a_reorganised_chain_is_read_again(town: Town) -> None:
    """Trap 3: events of blocks that are gone are forgotten; what was sent into them is sent again."""
    court, terms = town.court("poster"), town.terms()
    mark = town.chain.snapshot()
    job = court.post(terms, FACTS, "")
    assert court.posting(job)[0] == terms
    town.chain.revert(mark)
    town.chain.wait_until(town.chain.now + 50)
    with pytest.raises(ChainError, match="no job"):
        court.posting(job)
    assert court.post(terms, FACTS, "") == job
    assert court.posting(job)[0] == terms


def test_nothing_is_bonded_before_two_computations_agree(town: Town) -> None:
    """Trap 9: the honest client may be the one that is wrong."""
    with pytest.raises(ChainError, match="independent computations of the root differ"):
        agree(lambda: TRUE.root, lambda: LIE.root)
    with pytest.raises(ChainError, match="after two independent computations"):
        agree(lambda: TRUE.root)
    court = town.court("alice")
    with pytest.raises(AssertionError):
        court.accept(bytes(32), TRUE.root)  # type: ignore[arg-type]


def test_a_claim_that_agrees_is_not_challenged(town: Town) -> None:
    job = town.court("poster").post(terms := town.terms(), FACTS)
    alice = town.court("alice")
    alice.accept(job, AGREED)
    alice.commit(job, AGREED)
    with pytest.raises(ChainError, match="has not revealed a root"):
        town.court("carol").challenge(job, town.nodes["alice"].account, AGREED)
    town.chain.wait_until(terms.commit_until + 1)
    alice.reveal(job, TRUE.root)
    town.chain.wait_until(terms.reveal_until + 1)
    with pytest.raises(ChainError, match="nothing to dispute"):
        town.court("carol").challenge(job, town.nodes["alice"].account, AGREED)
    assert town.court("carol").credit(town.token) == 0


def test_watchers_go_on_after_reorganisations(town: Town) -> None:
    """Trap 3: what was done in blocks that are gone is done again, on the state that is there now, by watchers
    that keep running."""
    job = town.court("poster").post(terms := town.terms(), FACTS)
    for role, run in (("alice", TRUE), ("bob", LIE)):
        town.court(role).accept(job, Agreed(run.root))
        town.court(role).commit(job, Agreed(run.root))
    watchers = [town.watcher(r, job, run) for r, run in (("alice", TRUE), ("bob", LIE))]
    for deadline in ("commit_until", "reveal_until", "challenge_until", "open_until"):
        town.chain.wait_until(getattr(terms, deadline) + 1)
        for dropped in (1, 2, 0):  # of the newest blocks, the last of each with what was just done
            while sum(w.tick() for w in watchers):
                if dropped:
                    town.chain.drop(dropped)
                    break
    root, standing, stood = town.court("poster").call("outcome", job)
    assert (bytes(root), standing, stood) == (TRUE.root, 1, 1)
    (d,) = town.court("carol").disputes(job)
    winner = {DEFENDER_WON: d.defender, CHALLENGER_WON: d.challenger}[d.turn]
    assert winner == town.nodes["alice"].account
    assert len(town.court("carol").events("Posted", job=job)) == 1


@pytest.mark.parametrize("chain", ["anvil"], indirect=True)  # the embedded chain has no pool
def test_a_transaction_that_waits_is_waited_for_or_outbid(
    town: Town, anvil: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A party that crashed while its transaction was in the pool sends the same again, or outbids it."""
    alice = town.court("alice")
    monkeypatch.setattr("ree.settlement.node.MINED", 1.0)
    anvil.rpc("evm_setAutomine", False)
    try:
        for amount in (5, 5, 7):  # the second time the node knows it, the third it is another
            with pytest.raises(ChainError, match="is in no block after 1 s"):
                alice.deposit(town.token, amount)
        pool = {a.lower(): txs for a, txs in anvil.rpc("txpool_content")["pending"].items()}
        (waiting,) = pool[alice.node.account.lower()].values()
        approve = alice.node.contract("token", town.token).functions.approve(alice.address, 7)
        assert waiting["input"] == approve._encode_transaction_data()
    finally:
        anvil.rpc("evm_setAutomine", True)
        anvil.rpc("evm_mine")
    assert alice.deposit(town.token, 7) is not None
    assert alice.credit(town.token) == 7
