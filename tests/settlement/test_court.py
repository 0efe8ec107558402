"""The Court: the life of a job, clocks, adversaries, odd tokens, and the traps that other courts fell into."""

from collections.abc import Iterator

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.settlement.compile import CONTRACTS, compile_contract
from ree.settlement.terms import TrainingRun, decode_facts, facts_digest
from ree.settlement.testing.court import (
    ACCEPTED,
    CHAIN_ID,
    CHALLENGER_WON,
    DEFENDER_WON,
    FINAL,
    REFUTED,
    REVEALED,
    RICH,
    SALT,
    SEED,
    TREASURY,
    VOID,
    Job,
    World,
    account,
)
from ree.settlement.testing.evm import Reverted
from ree.settlement.testing.mock_game import MOVES, MockRun, facts
from ree.traces.merkle import MerkleTree

NAMES = ("poster", "alice", "bob", "carol", "dave", "anyone")
LIE = MockRun(SEED, wrong=77)
OTHER_LIE = MockRun(SEED, wrong=16)


@pytest.fixture(scope="module")
def shared() -> World:
    w = World()
    w.fund(*NAMES)
    return w


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    """The shared world, with whatever a test did undone."""
    now, mark = shared.chain.now, shared.chain.evm.snapshot()
    yield shared
    shared.chain.evm.revert(mark)
    shared.chain.now = now


def balances(w: World) -> dict[str, int]:
    """What everyone has gained; checks that nothing was made or lost."""
    gained = {n: w.credit(n) - RICH for n in NAMES}
    token = w.token.address
    total = sum(w.credit(n) for n in (*NAMES, "treasury"))
    total += w.view("held", token) + w.view("burnt", token)
    assert total == w.token.call("balanceOf", w.court.address)
    return {n: g for n, g in gained.items() if g}


def refused(reason: str) -> "pytest.RaisesExc[Reverted]":
    return pytest.raises(Reverted, match=f"^{reason}$")


# the life of a job


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


def test_losing_a_challenge_does_not_confirm_a_root(world: World) -> None:
    """A shill loses to its friend on purpose; another challenger still refutes the claim."""
    job = world.post()
    job.provide({"bob": LIE})
    job.challenge("dave", "bob")
    job.challenge("carol", "bob")
    shill, true = job.open("dave", "bob"), job.open("carol", "bob")
    assert job.play(shill, ("bob", LIE), ("dave", LIE)) == DEFENDER_WON
    assert job.claim("bob")["status"] == REVEALED
    assert job.play(true, ("bob", LIE), ("carol", world.honest)) == CHALLENGER_WON
    assert job.finalise() == (bytes(32), 0, 0)
    for d in (shill, true):
        job.send("anyone", "collect", d)
    assert balances(world) == {"bob": -4_003 + 500, "carol": 2_001, "dave": -1_001}


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
    """Trap 18: shares are of the whole, and what does not divide is burnt."""
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
    share = 4_003 // 2 // 3
    assert balances(world) == {"bob": -4_003, **dict.fromkeys(names, share)}
    assert world.view("burnt", world.token.address) == 4_003 - 3 * share
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
    job.at("challenge_until", 1)
    d = bytes(job.send("carol", "open_challenge", job.facts, account("bob"), SALT))
    run = SEED + (64).to_bytes(8, "big") + bytes(32) + LIE.root
    world.states[d] = bytes(world.referee.call("begin_run", bytes(284), run))
    world.shown[d] = b""
    assert job.play(d, ("bob", LIE), ("carol", world.honest)) == CHALLENGER_WON


# terms


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"commit_until": 0}, "court: deadlines"),
        ({"open_until": 2**48}, "court: deadlines"),
        ({"accept_until": 1}, "court: late"),
        ({"grace": 0}, "court: clock"),
        ({"grace": 601}, "court: clock"),
        ({"clock": 2**32}, "court: clock"),
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


def test_another_contract_of_numbers_is_refused(world: World) -> None:
    """Version confusion: the numeric id of the facts is the referee's."""
    other = bytes([1]) + world.facts.encode()[1:]
    terms = world.terms(facts=facts_digest(decode_facts(other)))
    with refused("court: numeric id"):
        world.send("poster", "post", terms.values(), other, "")


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
    assert job.terms.id(CHAIN_ID, w.court.address) == job.id
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
    with refused("court: decidable"):
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
        w.send("anyone", "timeout", d)
    for name in ("carol", "dave"):
        commitment = job.challenge_commitment(name, "bob")
        with refused("court: early or void"):
            job.send("anyone", "forfeit", account(name), commitment)
        job.send("anyone", "reclaim", account(name), commitment)
        with refused("court: no challenge"):
            job.send("anyone", "reclaim", account(name), commitment)
    assert balances(w) == {}
    assert w.view("held", w.token.address) == 0


# clocks and deadlines


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
            world.send("anyone", "timeout", d)
        assert job.step(d, *players[moves % 2]) in (1, 2, CHALLENGER_WON)
    else:
        with refused("court: time is up"):
            job.step(d, *players[moves % 2])
        world.send("anyone", "timeout", d)
        assert job.dispute(d)["turn"] == (CHALLENGER_WON, DEFENDER_WON)[moves % 2]
        with refused("court: no dispute, or decided"):
            world.send("anyone", "timeout", d)


def test_every_move_has_its_least_time(world: World) -> None:
    """Trap 2: a clock that is nearly used up still leaves the time of one move, and an outage of the sequencer
    that is no longer than that harms nobody at any deadline."""
    job = world.post()
    job.provide({"bob": LIE})
    job.challenge("carol", "bob")
    d = job.open("carol", "bob")
    world.chain.now += 600
    job.step(d, "bob", LIE)
    assert job.dispute(d)["left"] == [60, 600]
    world.chain.now += 600
    job.step(d, "carol", world.honest)
    for _ in range(2):  # the sequencer is down for the whole grace whenever a move is due
        world.chain.now += 60
        job.step(d, "bob", LIE)
        if job.dispute(d)["turn"] == CHALLENGER_WON:
            return
        world.chain.now += 60
        job.step(d, "carol", world.honest)
    world.chain.now += 60
    assert job.step(d, "bob", LIE) == CHALLENGER_WON


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


# adversaries


def test_a_copied_answer_cannot_be_revealed(world: World) -> None:
    """Trap 4: the provider stands in its commitment."""
    job = world.post()
    for n in ("alice", "bob"):
        job.send(n, "accept")
    commitment = job.commitment("alice", world.honest.root)
    job.send("alice", "commit", commitment)
    job.send("bob", "commit", commitment)
    with refused("court: early"):  # nobody's root is seen while another can commit
        job.send("alice", "reveal", world.honest.root, SALT)
    job.at("commit_until", 1)
    job.send("alice", "reveal", world.honest.root, SALT)
    with refused("court: commitment"):
        job.send("bob", "reveal", world.honest.root, SALT)
    job.finalise()
    assert balances(world)["bob"] == -4_003


def test_a_copied_challenge_cannot_be_opened(world: World) -> None:
    """Trap 4: the challenger stands in its commitment, and when it is shown nobody can commit any more."""
    job = world.post()
    job.provide({"bob": LIE})
    job.challenge("carol", "bob")
    job.send("dave", "challenge", job.challenge_commitment("carol", "bob"))
    job.open("carol", "bob")
    with refused("court: no challenge, or open"):
        job.open("dave", "bob")
    with refused("court: late"):
        job.challenge("dave", "bob", b"another salt 16b")
    with refused("court: no challenge, or open"):
        job.open("carol", "bob")


def test_commitments_are_those_of_the_contract(world: World) -> None:
    job = world.post()
    mine = job.commitment("alice", world.honest.root)
    assert mine == bytes(
        world.view("claim_commitment", job.id, account("alice"), world.honest.root, SALT)
    )
    mine = job.challenge_commitment("carol", "bob")
    assert mine == bytes(
        world.view("challenge_commitment", job.id, account("carol"), account("bob"), SALT)
    )


def test_silence_after_a_commitment_forfeits(world: World) -> None:
    """No reveal, a late reveal, no commitment, a challenge that is not shown: half burnt, half the poster's."""
    job = world.post()
    for n in ("alice", "bob", "dave"):
        job.send(n, "accept")
    job.send("alice", "commit", job.commitment("alice", world.honest.root))
    job.send("bob", "commit", job.commitment("bob", world.honest.root))
    job.at("commit_until", 1)
    job.send("alice", "reveal", world.honest.root, SALT)
    job.at("reveal_until", 1)
    with refused("court: late"):
        job.send("bob", "reveal", world.honest.root, SALT)
    job.challenge("carol", "alice")
    commitment = job.challenge_commitment("carol", "alice")
    job.at("open_until")
    with refused("court: early or void"):
        job.send("anyone", "forfeit", account("carol"), commitment)
    job.finalise()
    with refused("court: final"):
        job.open("carol", "alice")
    job.send("anyone", "forfeit", account("carol"), commitment)
    with refused("court: no challenge"):
        job.send("anyone", "forfeit", account("carol"), commitment)
    assert balances(world) == {
        "poster": -10_001 + 2 * 2_001 + 500, "alice": 9_951, "bob": -4_003, "dave": -4_003, "carol": -1_001
    }  # fmt: skip


def test_garbage_without_preimage_loses_by_time(world: World) -> None:
    """A root that nobody can open: its defender has no move."""
    job = world.post()
    garbage = MockRun(SEED)
    garbage.root = b"\xee" * 32
    job.provide({"bob": garbage})
    job.challenge("carol", "bob")
    d = job.open("carol", "bob")
    with refused("mock: digests"):
        job.step(d, "bob", garbage)
    world.chain.now += 601
    world.send("carol", "timeout", d)
    assert job.claim("bob")["status"] == REFUTED


def test_only_the_player_moves_and_a_move_counts_once(world: World) -> None:
    """A move that is sent first by another, replayed, or made on another state is refused."""
    job = world.post()
    job.provide({"alice": world.honest, "bob": LIE})
    job.challenge("carol", "bob")
    d = job.open("carol", "bob")
    state = world.states[d]
    move = LIE.move(state, b"")
    for name in ("carol", "alice", "anyone"):
        with refused("court: not your turn"):
            world.send(name, "respond", d, state, move)
    with refused("court: state"):
        world.send("bob", "respond", d, state[:-1] + b"\x01", move)
    world.send("bob", "respond", d, state, move)
    with refused("court: not your turn"):
        world.send("bob", "respond", d, state, move)
    with refused("court: not your turn"):
        world.send("anyone", "respond", bytes(32), state, move)


def test_a_reorganised_chain_retargets_nothing(world: World) -> None:
    """Trap 3: jobs and disputes are named by their content, and a state by its dispute and round, so that a
    move lands where it was meant or nowhere."""
    one, two = world.terms(), world.terms(clock=700)
    mark, now = world.chain.evm.snapshot(), world.chain.now
    seen = []
    for order in ((one, two), (two, one)):
        ids = {
            t.clock: bytes(world.send("poster", "post", t.values(), world.facts.encode(), ""))
            for t in order
        }
        seen.append(ids)
        world.chain.evm.revert(mark)
        mark, world.chain.now = world.chain.evm.snapshot(), now
    assert seen[0] == seen[1]
    assert len(set(seen[0].values())) == 2
    # the same game in two jobs: each state belongs to one dispute
    jobs = [world.post() for _ in range(2)]
    for job in jobs:
        for n in ("bob",):
            job.send(n, "accept")
            job.send(n, "commit", job.commitment(n, LIE.root))
    for job in jobs:
        job.at("commit_until", 1)
        job.send("bob", "reveal", LIE.root, SALT)
    for job in jobs:
        job.challenge("carol", "bob")
    a, b = (job.open("carol", "bob") for job in jobs)
    assert world.states[a] == world.states[b]
    assert jobs[0].dispute(a)["state"] != jobs[1].dispute(b)["state"]
    jobs[0].step(a, "bob", LIE)
    with refused("court: not your turn"):
        world.send("carol", "respond", b, world.states[a], b"\x00")


def test_a_verdict_is_about_its_dispute_alone(world: World) -> None:
    """Trap 1: a verdict changes one claim, and is collected in its own job, once."""
    jobs = [world.post() for _ in range(2)]
    for job in jobs:
        job.send("bob", "accept")
        job.send("bob", "commit", job.commitment("bob", LIE.root))
    disputes = []
    for job in jobs:
        job.at("commit_until", 1)
        job.send("bob", "reveal", LIE.root, SALT)
    for job in jobs:
        job.challenge("carol", "bob")
    for job in jobs:
        disputes.append(job.open("carol", "bob"))
    jobs[0].play(disputes[0], ("bob", LIE), ("carol", world.honest))
    assert [job.claim("bob")["status"] for job in jobs] == [REFUTED, REVEALED]
    jobs[0].finalise()
    with refused("court: open disputes"):
        jobs[1].finalise()
    for job, d in ((jobs[0], disputes[1]), (jobs[1], disputes[0]), (jobs[1], disputes[1])):
        with refused("court: not final"):
            job.send("carol", "collect", d)
    jobs[0].send("carol", "collect", disputes[0])


def test_an_opening_at_the_wrong_index_proves_nothing(world: World) -> None:
    """Trap 7: the words before a word are those of the group before, and no others."""
    job = world.post()
    lie = MockRun(SEED, wrong=32)  # the first of its group: its proof opens the group before
    job.provide({"bob": lie})
    job.challenge("carol", "bob")
    d = job.open("carol", "bob")
    for name, run in (("bob", lie), ("carol", world.honest)) * 2:
        job.step(d, name, run)
    state = world.states[d]
    move = lie.move(state, b"")
    with refused("mock: words"):
        world.send("bob", "respond", d, state, move[:1024] + move[512:1024])
    assert job.step(d, "bob", lie) == CHALLENGER_WON


def test_losing_to_oneself_costs(world: World) -> None:
    """Trap 8: half a bond is burnt whoever wins, whatever role friends play."""
    job = world.post()
    job.provide({"bob": LIE, "alice": world.honest})
    job.challenge("bob", "bob")
    d = job.open("bob", "bob")
    assert job.play(d, ("bob", LIE), ("bob", world.honest)) == CHALLENGER_WON
    job.finalise()
    job.send("bob", "collect", d)
    assert balances(world)["bob"] == -4_003 + 4_003 // 2
    assert balances(world)["alice"] == 9_951


def test_nothing_is_stranded_at_address_zero(world: World) -> None:
    """Trap 10: what nobody won goes back or is burnt on the books; no credit of nobody."""
    job = world.post()
    job.provide({"bob": LIE})
    job.challenge("carol", "bob")
    d = job.open("carol", "bob")
    world.chain.now += 601
    world.send("anyone", "timeout", d)
    job.finalise()
    job.send("anyone", "collect", d)
    assert world.view("credits", world.token.address, "0x" + "00" * 20) == 0
    assert world.view("held", world.token.address) == 0
    assert balances(world) == {"bob": -4_003, "carol": 2_001}
    with refused("court: treasury"):
        world.chain.deploy(compile_contract("court.vy"), world.referee.address, "0x" + "00" * 20)


def test_disputes_that_are_open_hold_a_job(world: World) -> None:
    job = world.post()
    job.provide({"bob": LIE})
    job.challenge("carol", "bob")
    job.open("carol", "bob")
    with refused("court: open disputes"):
        job.finalise()
    assert 2 == world.view("job_status", job.id) != FINAL
    assert job.claim("bob")["status"] != ACCEPTED


def test_slots_are_limited(world: World) -> None:
    job = world.post(slots=2)
    for n in ("alice", "bob"):
        job.send(n, "accept")
    with refused("court: full"):
        job.send("carol", "accept")
    with refused("court: accepted"):
        job.send("alice", "accept")
    with refused("court: not a provider, or committed"):
        job.send("carol", "commit", bytes(32))


# money and the interface


def test_money_moves_by_its_owner_alone(world: World) -> None:
    token = world.token.address
    with refused("bank: credit"):
        world.send("anyone", "withdraw", token, RICH + 1)
    world.send("alice", "withdraw", token, 5)
    assert world.token.call("balanceOf", account("alice")) == 5
    assert world.credit("alice") == RICH - 5
    world.token.call("mint", account("poor"), 5)
    with pytest.raises(Reverted):  # not approved
        world.send("poor", "deposit", token, 5)


def test_the_interface_has_no_privileged_call() -> None:
    """Every function that changes anything, and no other; none compares its caller with a stored power."""
    abi = compile_contract("court.vy").abi
    writes = {f["name"] for f in abi
              if f["type"] == "function" and f["stateMutability"] not in ("view", "pure")}  # fmt: skip
    assert writes == {
        "deposit", "withdraw", "post", "void", "accept", "commit", "reveal", "challenge", "open_challenge",
        "confront", "respond", "descend", "timeout", "finalise", "collect", "forfeit", "reclaim",
    }  # fmt: skip
    assert not any(f.get("stateMutability") == "payable" for f in abi)
    source = "".join((CONTRACTS / f"{n}.vy").read_text()
                     for n in ("court", "disputes", "docket", "bank", "clocks", "descent"))  # fmt: skip
    # no signatures to replay or to recover to zero, no code but its own, no owner
    # the one raw call is static: it hands a move on to the referee
    assert source.count("raw_call") == source.count("is_static_call=True") == 1
    for word in ("ecrecover", "delegate", "selfdestruct", "owner:", "create_", "send("):
        assert word not in source, word
    # the caller is compared with the poster of one's own job and the player whose turn it is
    assert sorted(line.strip() for line in source.splitlines() if "assert msg.sender" in line) == [
        'assert msg.sender == job.poster, "court: poster"',
        'assert msg.sender == player, "court: not your turn"',
    ]


def test_the_contract_fits(world: World) -> None:
    assert len(compile_contract("court.vy").runtime) <= 24_576
    assert world.view("referee").lower() == world.referee.address.lower()
    assert world.view("treasury") == TREASURY


# tokens


@pytest.fixture
def odd() -> World:
    """A world whose token returns nothing and may misbehave."""
    w = World("testing/odd_token.vy")
    w.fund("poster", "alice")
    return w


def check_odd(w: World) -> None:
    total = sum(map(w.credit, ("poster", "alice", "mallory")))
    assert total <= w.token.call("balanceOf", w.court.address)


def test_a_token_that_returns_nothing(odd: World) -> None:
    odd.send("alice", "withdraw", odd.token.address, 7)
    assert odd.token.call("balanceOf", account("alice")) == 7
    check_odd(odd)


def test_a_fee_on_transfer_is_the_depositors(odd: World) -> None:
    odd.token.call("set_fee", 10)
    odd.fund("mallory", amount=1000)
    assert odd.credit("mallory") == 900
    odd.send("mallory", "withdraw", odd.token.address, 900)
    check_odd(odd)


def test_a_token_that_takes_more_than_it_is_told(odd: World) -> None:
    odd.fund("mallory", amount=1000)
    odd.token.call("set_extra", 1)
    with refused("bank: balance"):
        odd.send("mallory", "withdraw", odd.token.address, 1000)
    check_odd(odd)


@pytest.mark.parametrize("function", ["deposit", "withdraw"])
def test_a_token_that_calls_back(odd: World, function: str) -> None:
    """Reentered, the bank refuses; the token's own call fails with it."""
    token = odd.token.address
    inner = odd.court.selector(function) + odd.court.encode(function, token, 0)
    odd.token.call("set_call", odd.court.address, inner)
    with pytest.raises(Reverted):
        odd.send("alice", function, token, 10)
    assert odd.credit("alice") == RICH


def test_a_token_that_blocks_an_account_blocks_nobody_else(odd: World) -> None:
    """Payments are pulled: one who cannot be paid stops no job."""
    odd.token.call("set_blocked", account("alice"), True)
    job = odd.post()
    job.provide({"alice": odd.honest})
    job.finalise()
    assert odd.credit("alice") == RICH + 9_951
    with pytest.raises(Reverted, match="token: blocked"):
        odd.send("alice", "withdraw", odd.token.address, 1)
    odd.send("poster", "withdraw", odd.token.address, 1)


def test_a_rebasing_token_harms_its_own_users_alone(odd: World) -> None:
    """When balances shrink, the last to withdraw cannot; other tokens are other books."""
    odd.token.call("set_percent", 50)
    odd.send("poster", "withdraw", odd.token.address, RICH)
    with pytest.raises(Reverted):
        odd.send("alice", "withdraw", odd.token.address, RICH)
    odd.token.call("set_percent", 100)
    odd.token.call("mint", odd.court.address, RICH)  # a gift is nobody's credit
    assert odd.credit("alice") == RICH


def test_a_token_without_code_is_refused(world: World) -> None:
    for function in ("deposit", "withdraw"):
        with pytest.raises(Reverted):
            world.send("alice", function, account("nothing"), 0)


@pytest.mark.parametrize("venom", [False, True], ids=["legacy", "venom"])
def test_both_code_generators_agree(venom: bool) -> None:
    """Trap 13: the same story by Vyper's other code generator comes to the same balances."""
    w = World(venom=venom)
    w.fund(*NAMES)
    job = w.post()
    job.provide({"alice": w.honest, "bob": LIE, "dave": w.honest})
    job.challenge("carol", "bob")
    job.challenge("bob", "alice")
    d, e, f = job.open("carol", "bob"), job.open("bob", "alice"), job.confront("bob", "dave")
    assert job.play(d, ("bob", LIE), ("carol", w.honest)) == CHALLENGER_WON
    assert job.play(e, ("alice", w.honest), ("bob", LIE)) == DEFENDER_WON
    assert job.play(f, ("bob", LIE), ("dave", w.honest)) == CHALLENGER_WON
    assert job.finalise() == (w.honest.root, 2, 2)
    for dispute in (d, e, f):
        job.send("anyone", "collect", dispute)
    assert balances(w) == {
        "poster": -20_002, "alice": 9_951 + 500, "bob": -4_003 - 1_001, "carol": 1_000, "dave": 9_951 + 1_000
    }  # fmt: skip
