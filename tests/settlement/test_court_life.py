"""The Court: the life of a job."""

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.settlement.terms import TrainingRun, decode_facts, facts_digest
from ree.settlement.testing.court import (
    CHALLENGER_WON,
    DEFENDER_WON,
    LIE,
    OTHER_LIE,
    REFUTED,
    REVEALED,
    SEED,
    Job,
    World,
    balances,
    refused,
)


def test_unchallenged_roots_are_paid_and_unverified(world: World) -> None:
    """Trap 17: unchallenged is not verified."""
    job = world.post()
    assert balances(world) == {"poster": -20_002}
    job.provide({"alice": world.honest})
    assert job.claim("alice")["status"] == REVEALED
    assert job.finalise() == (world.honest.root, 1, 0)
    # one of two payees: one reward goes back
    assert balances(world) == {"poster": -10_001, "alice": 10_001 - 50}
    assert world.credit("treasury") == 50
    assert world.view("held", world.token.address) == 0
    with refused("court: final"):
        job.send("anyone", "finalise")


def test_a_liar_is_caught(world: World) -> None:
    job = world.post()
    job.provide({"alice": world.honest, "bob": LIE})
    job.challenge("carol", "bob")
    d = job.open("carol", "bob")
    assert job.play(d, ("bob", LIE), ("carol", world.honest)) == CHALLENGER_WON
    assert job.claim("bob")["status"] == REFUTED
    assert job.finalise() == (world.honest.root, 1, 0)
    job.send("anyone", "collect", d)
    assert balances(world) == {"poster": -10_001, "alice": 9_951, "bob": -4_003, "carol": 2_001}
    assert world.view("burnt", world.token.address) == 2_002
    with refused("court: collected"):
        job.send("anyone", "collect", d)


def test_an_honest_defender_wins_and_is_compensated(world: World) -> None:
    job = world.post()
    job.provide({"alice": world.honest})
    job.challenge("bob", "alice")
    d = job.open("bob", "alice")
    assert job.play(d, ("alice", world.honest), ("bob", LIE)) == DEFENDER_WON
    assert job.finalise() == (world.honest.root, 1, 1)
    job.send("anyone", "collect", d)
    assert balances(world) == {"poster": -10_001, "alice": 9_951 + 500, "bob": -1_001}
    assert world.view("burnt", world.token.address) == 501


def test_differing_claims_must_meet(world: World) -> None:
    job = world.post()
    job.provide({"alice": world.honest, "bob": LIE, "carol": OTHER_LIE})
    job.at("open_until", 1)
    with refused("court: claims differ"):
        job.send("anyone", "finalise")
    with refused("court: no claim"):
        job.confront("alice", "dave")
    with refused("court: same root"):
        job.confront("alice", "alice")
    # whichever side it is on, the honest one wins
    first = job.confront("alice", "bob")
    with refused("court: open"):
        job.confront("bob", "alice")
    assert job.play(first, ("alice", world.honest), ("bob", LIE)) == DEFENDER_WON
    assert job.claim("bob")["status"] == REFUTED
    second = job.confront("carol", "alice")
    assert job.play(second, ("carol", OTHER_LIE), ("alice", world.honest)) == CHALLENGER_WON
    assert job.finalise() == (world.honest.root, 1, 2)
    for d in (first, second):
        job.send("anyone", "collect", d)
    assert balances(world) == {
        "poster": -10_001, "alice": 9_951 + 2 * 2_001, "bob": -4_003, "carol": -4_003
    }  # fmt: skip


def test_winners_share_half_a_bond(world: World) -> None:
    """Trap 18: shares are of the whole, to the last unit."""
    job = world.post()
    job.provide({"bob": LIE})
    names = ("alice", "carol", "dave")
    for n in names:
        job.challenge(n, "bob")
    disputes = [job.open(n, "bob") for n in names]
    for n, d in zip(names, disputes, strict=True):
        assert job.play(d, ("bob", LIE), (n, world.honest)) == CHALLENGER_WON
    job.finalise()
    for d in disputes:
        job.send("anyone", "collect", d)
    assert balances(world) == {"bob": -4_003, **dict.fromkeys(names, 4_003 // 2 // 3)}
    assert world.view("burnt", world.token.address) == 4_003 - 3 * (4_003 // 2 // 3)
    assert world.view("held", world.token.address) == 0


def test_payees_are_paid_in_the_order_of_acceptance(world: World) -> None:
    job = world.post(payees=1)
    job.provide(dict.fromkeys(("carol", "alice"), world.honest))
    assert job.finalise() == (world.honest.root, 2, 0)
    assert balances(world) == {"poster": -10_001, "carol": 9_951}


def test_nobody_came(world: World) -> None:
    job = world.post()
    job.at("accept_until")
    with refused("court: early"):
        job.send("anyone", "finalise")
    job.at("accept_until", 1)
    job.send("anyone", "finalise")
    assert balances(world) == {}
    with refused("court: final"):
        job.send("alice", "accept")


def test_a_training_run_is_disputed_from_its_history(world: World) -> None:
    """Trap 16: what is claimed is the root of a history tree, and the referee begins from it, S0
    and batches."""
    training = TrainingRun(world.facts.instance, bytes(32), SEED, 64, bytes(32))
    assert decode_facts(training.encode()) == training
    job = Job.__new__(Job)
    job.world, job.facts = world, training.encode()
    job.terms = world.terms(facts=facts_digest(training))
    job.id = world.send("poster", "post", job.terms.values(), job.facts, "")
    job.provide({"bob": LIE})
    job.challenge("carol", "bob")
    d = job.open("carol", "bob")
    assert job.play(d, ("bob", LIE), ("carol", world.honest)) == CHALLENGER_WON
