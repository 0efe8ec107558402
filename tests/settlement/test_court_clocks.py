"""The Court: terms, deadlines and clocks."""

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.settlement.testing.court import (
    CHALLENGER_WON,
    DEFENDER_WON,
    LIE,
    NAMES,
    RICH,
    SALT,
    SEED,
    VOID,
    World,
    account,
    balances,
    refused,
)
from ree.settlement.testing.evm import Reverted
from ree.settlement.testing.mock_game import MOVES, facts
from ree.traces.merkle import MerkleTree


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"commit_until": 0}, "court: deadlines"),
        ({"commit_until": 2**256 - 1}, "court: deadlines"),
        ({"accept_until": 2**256 - 1}, "court: deadlines"),
        ({"accept_until": 1}, "court: late"),
        ({"grace": 59}, "court: clock"),
        ({"grace": 601}, "court: clock"),
        ({"clock": 90 * 86_400 + 1}, "court: clock"),
        ({"payees": 0}, "court: slots"),
        ({"payees": 5}, "court: slots"),
        ({"slots": 9}, "court: slots"),
        ({"provider_bond": 0}, "court: bond"),
        ({"challenger_bond": 0}, "court: bond"),
        ({"facts": bytes(32)}, "court: facts"),
        ({"poster": account("alice")}, "court: poster"),
        ({"reward": RICH}, "bank: credit"),
    ],
    ids=str,
)
def test_bad_terms_are_refused(world: World, changes: dict[str, object], reason: str) -> None:
    with refused(reason):
        world.post(**changes)
    assert balances(world) == {}


@pytest.mark.parametrize("late", [0, 1])
def test_nothing_is_locked_for_ever(world: World, late: int) -> None:
    last = world.chain.now + 90 * 86_400 + late
    if late:
        with refused("court: deadlines"):
            world.post(open_until=last)
    else:
        world.post(open_until=last)


def test_terms_cannot_change_in_mid_flight() -> None:
    """Trap 5: parameters are the job's name; other parameters are another job, which nobody posted."""
    w = World()
    w.fund(*NAMES)
    job = w.post()
    for change in ({"clock": 601}, {"provider_bond": 1}, {"token": account("x")}, {"nonce": 99}):
        other = {**job.terms.__dict__, **change}
        with refused("court: no such job"):
            w.send("alice", "accept", type(job.terms)(**other).values())
    assert bytes(w.view("job_id", job.terms.values())) == job.id
    assert job.terms.id(w.chain.chain_id, w.court.address) == job.id
    with refused("court: posted"):
        w.send("poster", "post", job.terms.values(), job.facts, "")


def test_an_undecidable_program_is_no_job() -> None:
    """Traps 14 and 15: nothing is left to a vote; the record of an operator that the referee cannot decide,
    opened in the instance, ends the job, and everyone gets back what they gave."""
    w = World()
    w.fund(*NAMES)
    records = [op.to_bytes(2, "big") + bytes(238) for op in (1, 666, 2)]
    tree = MerkleTree(records)
    w.facts = facts(SEED, tree.root(), len(records))
    job = w.post()
    job.provide({"alice": w.honest, "bob": LIE})
    job.challenge("carol", "bob")
    job.challenge("dave", "bob")
    d = job.open("carol", "bob")
    bad = (job.facts, 0, records[0], tree.prove(0))
    with refused("mock: decidable"):
        job.send("anyone", "void", *bad)
    for index, record, proof in ((2, records[1], tree.prove(1)), (1, records[1], tree.prove(1)[:1]),
                                 (1, records[1][:64], tree.prove(1))):  # fmt: skip
        with pytest.raises(Reverted):
            job.send("anyone", "void", job.facts, index, record, proof)
    job.send("anyone", "void", job.facts, 1, records[1], tree.prove(1))
    assert w.view("job_status", job.id) == VOID
    with refused("court: void"):
        job.play(d, ("bob", LIE), ("carol", w.honest))
    w.chain.now += 10**6
    with refused("court: void"):
        w.timeout("anyone", d)
    for name in ("carol", "dave"):
        commitment = job.challenge_commitment(name, "bob")
        with refused("court: early or void"):
            job.send("anyone", "forfeit", account(name), commitment)
        job.send("anyone", "reclaim", account(name), commitment)
        with refused("court: no challenge"):
            job.send("anyone", "reclaim", account(name), commitment)
    assert balances(w) == {}
    assert w.view("held", w.token.address) == 0


@pytest.mark.parametrize("late", [-1, 0, 1])
def test_deadlines_of_a_job(world: World, late: int) -> None:
    """At t-1 and t a call is in time, at t+1 it is not; the next phase begins at t+1."""
    job = world.post()

    def ends(deadline: str, name: str, function: str, *args: object) -> None:
        world.chain.now = getattr(job.terms, deadline) + late
        if late > 0:
            with refused("court: late"):
                job.send(name, function, *args)
            world.chain.now = getattr(job.terms, deadline)
        job.send(name, function, *args)

    def begins(deadline: str, name: str, function: str, *args: object) -> None:
        world.chain.now = getattr(job.terms, deadline) + late
        if late <= 0:
            with refused("court: early"):
                job.send(name, function, *args)
        world.chain.now = max(world.chain.now, getattr(job.terms, deadline) + 1)
        job.send(name, function, *args)

    for name in ("alice", "bob"):
        ends("accept_until", name, "accept")
    ends("commit_until", "bob", "commit", job.commitment("bob", LIE.root))
    ends("commit_until", "alice", "commit", job.commitment("alice", world.honest.root))
    begins("commit_until", "alice", "reveal", world.honest.root, SALT)
    ends("reveal_until", "bob", "reveal", LIE.root, SALT)
    begins("reveal_until", "carol", "challenge", job.challenge_commitment("carol", "bob"))
    ends("challenge_until", "dave", "challenge", job.challenge_commitment("dave", "bob"))
    opening = ("open_challenge", job.facts, account("bob"), SALT)
    begins("challenge_until", "carol", *opening)
    ends("open_until", "dave", *opening)


@pytest.mark.parametrize("late", [-1, 0, 1])
@pytest.mark.parametrize("moves", range(MOVES))
def test_clocks(world: World, late: int, moves: int) -> None:
    """One strict comparison: at t-1 and t the player may move and cannot be timed out; at t+1 the reverse."""
    job = world.post()
    job.provide({"bob": LIE})
    job.challenge("carol", "bob")
    d = job.open("carol", "bob")
    players = [("bob", LIE), ("carol", world.honest)]
    for i in range(moves):
        world.chain.now += 7
        job.step(d, *players[i % 2])
    state = job.dispute(d)
    left = state["left"][moves % 2]
    assert left == 600 - 7 * (moves // 2)  # the other's time does not count
    world.chain.now += left + late
    if late <= 0:
        with refused("court: time is left"):
            world.timeout("anyone", d)
        assert job.step(d, *players[moves % 2]) in (1, 2, CHALLENGER_WON)
    else:
        with refused("court: time is up"):
            job.step(d, *players[moves % 2])
        world.timeout("anyone", d)
        assert job.dispute(d)["turn"] == (CHALLENGER_WON, DEFENDER_WON)[moves % 2]
        with refused("court: not the state, or decided"):
            world.timeout("anyone", d)


def test_time_grows_with_the_disputes_to_play(world: World) -> None:
    """Trap 2: who answers k challenges at once has k times the time for the k-th."""
    job = world.post()
    job.provide({"alice": world.honest, "bob": LIE})
    challengers = ("carol", "dave", "poster")
    for n in challengers:
        job.challenge(n, "alice")
    disputes = [job.open(n, "alice") for n in challengers]
    assert [job.dispute(d)["left"] for d in disputes] == [[600, 600], [1200, 600], [1800, 600]]
    c = job.confront("bob", "alice")
    assert job.dispute(c)["left"] == [600, 2400]
    job.play(disputes[0], ("alice", world.honest), ("carol", LIE))
    assert job.claim("alice")["load"] == 3


def test_a_dispute_ends_within_its_bound(world: World) -> None:
    """Both clocks and a grace a move, whatever the players do; here both wait as long as they may."""
    job = world.post()
    job.provide({"bob": LIE})
    job.challenge("carol", "bob")
    d = job.open("carol", "bob")
    begin, players, turn = world.chain.now, [("bob", LIE), ("carol", world.honest)], 1
    while turn < DEFENDER_WON:
        world.chain.now += job.dispute(d)["left"][turn - 1]
        turn = job.step(d, *players[turn - 1])
    assert world.chain.now - begin <= 2 * 600 + MOVES * 60
