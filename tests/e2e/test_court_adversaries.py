"""The Court: adversaries, and the traps that other courts fell into."""

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.settlement.compile import compile_contract
from ree.settlement.testing.court import (
    ACCEPTED,
    CHALLENGER_WON,
    DEFENDER_WON,
    FINAL,
    LIE,
    NOT_NOW,
    REFUTED,
    REVEALED,
    SALT,
    SEED,
    World,
    account,
    balances,
    refused,
)
from ree.settlement.testing.mock_game import MockRun


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
    world.timeout("carol", d)
    assert job.claim("bob")["status"] == REFUTED


def test_only_the_player_moves_and_a_move_counts_once(world: World) -> None:
    """A move that is sent first by another, replayed, or made on another state is refused."""
    job = world.post()
    job.provide({"alice": world.honest, "bob": LIE})
    job.challenge("carol", "bob")
    d = job.open("carol", "bob")
    state = world.states[d]
    move = LIE.move(state, b"")
    word, _ = world.who(d)
    for name in ("carol", "alice", "anyone"):
        for other in ("bob", "carol", name):
            with refused(NOT_NOW):
                world.send(name, "respond", d, word, account(other), state, move)
    longer = world.clocks[d].word + (1 << 88)  # a second more
    for altered in ((word, state[:-1] + b"\x01"), (longer, state), (word ^ 3, state)):
        with refused(NOT_NOW):
            world.send("bob", "respond", d, altered[0], account("carol"), altered[1], move)
    with refused(NOT_NOW):
        world.send("bob", "respond", d, word, account("alice"), state, move)
    world.send("bob", "respond", d, word, account("carol"), state, move)
    for dispute in (d, bytes(32)):
        with refused(NOT_NOW):
            world.send("bob", "respond", dispute, word, account("carol"), state, move)


def test_a_reorganised_chain_retargets_nothing(world: World) -> None:
    """Trap 3: jobs and disputes are named by their content, and a state by its dispute and round, so that a
    move lands where it was meant or nowhere."""
    one, two = world.terms(), world.terms(clock=700)
    mark = world.chain.snapshot()
    seen = []
    for order in ((one, two), (two, one)):
        ids = {
            t.clock: bytes(world.send("poster", "post", t.values(), world.facts.encode(), ""))
            for t in order
        }
        seen.append(ids)
        world.chain.revert(mark)
        mark = world.chain.snapshot()
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
    for dispute in (a, b):  # before it was her turn, and after
        word = world.clocks[dispute].word
        with refused(NOT_NOW):
            world.send("carol", "respond", b, word, account("bob"), world.states[a], b"\x00")


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
        world.respond("bob", d, state, move[:1024] + move[512:1024])
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
    world.timeout("anyone", d)
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
