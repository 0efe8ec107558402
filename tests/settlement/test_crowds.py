"""Many disputes about one claim (docs/settlement.md, Crowds): what delay costs, and that nobody is kept out."""

import random
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import accumulate
from typing import Any

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.errors import ChainError
from ree.settlement.bonds import CROWD, MOST_BONDS, bonds_of
from ree.settlement.client import Agreed, Court
from ree.settlement.policy import LEAST_GRACE, MOVES, Policy
from ree.settlement.testing.court import (
    CHALLENGER_WON,
    DEFENDER_WON,
    LIE,
    NAMES,
    RICH,
    World,
    account,
    refused,
)
from ree.settlement.testing.pool import Pool
from ree.settlement.testing.town import FACTS, TRUE, Town

POLICY = Policy()
CLOCK, GRACE = POLICY.censorship + MOVES * POLICY.block, LEAST_GRACE
MANY = (0, 1, 15, 16, 17, 40, 128, 129, 500, 4000)  # disputes that a cheat opens against itself


@dataclass(frozen=True)
class Rule:
    """Bonds of the dispute that finds so many open, seconds that its defender has, and places."""

    bonds: Any
    time: Any
    places: int = 2**64


def time_of(open_: int) -> int:
    few = min(open_ + 1, CROWD)
    return CLOCK * few + GRACE * (open_ + 1 - few)


OURS = Rule(bonds_of, time_of)
BEFORE = Rule(lambda n: 1, lambda n: CLOCK * (n + 1))
CAPPED = replace(OURS, places=CROWD)
UNBOUNDED = replace(OURS, bonds=lambda n: 1 + n // CROWD)


def kept_out(rule: Rule, cheat: int) -> bool:
    """Whether an honest challenger with MOST_BONDS bonds comes too late, as a cheat has so many of its own."""
    n = spread(rule, cheat)
    return n >= rule.places or rule.bonds(n) > MOST_BONDS


def spread(rule: Rule, bonds: int) -> int:
    """Disputes that a cheat can have open with so many bonds."""
    n = spent = 0
    while n < rule.places and spent + rule.bonds(n) <= bonds:
        spent, n = spent + rule.bonds(n), n + 1
    return n


@pytest.mark.parametrize("cheat", [0, 16, 17, 500, 5_000, 50_000])
def test_no_cheat_is_rich_enough_to_keep_the_honest_out(cheat: int) -> None:
    assert not kept_out(OURS, cheat)


def test_places_and_bonds_without_an_end_would_keep_them_out() -> None:
    assert kept_out(CAPPED, CROWD)
    assert kept_out(UNBOUNDED, CROWD * MOST_BONDS * (MOST_BONDS + 1) // 2)


@pytest.mark.parametrize("many", MANY)
def test_what_delay_costs(many: int) -> None:
    """Who has so many disputes with itself open delays by T, and has B bonds in them, half of which burn where
    its claim stands: B >= 8 (T - 16 clock) / grace - 320."""
    delay = OURS.time(many - 1) if many else 0
    bonds = sum(map(OURS.bonds, range(many)))
    assert bonds >= MOST_BONDS * (delay - CROWD * CLOCK) / GRACE - 320
    same = BEFORE.time(bonds - 1) if many else 0  # what these bonds bought before
    assert delay <= same
    if many >= 4000:
        assert same > 80 * delay


def late(step: int, pauses: tuple[int, ...]) -> bool:
    """Whether the honest side of 600 disputes, opened in one block, runs out of time in one: the earliest
    deadline first, one transaction a block. step: seconds for one more in a crowd; pauses: of the others."""
    rng, now = random.Random(5), 0
    left = [CLOCK * min(i, CROWD) + step * max(i - CROWD, 0) for i in range(1, 601)]
    moves = [MOVES] * len(left)
    waits, due = [(0, i) for i in range(len(left))], list[tuple[int, int, int]]()
    while waits or due:
        now += POLICY.block
        while waits and waits[0][0] < now:
            since, i = heappop(waits)
            heappush(due, (since + left[i], since, i))
        if not due:
            continue
        deadline, since, i = heappop(due)
        if now > deadline:
            return True
        left[i], moves[i] = max(left[i] - (now - since), GRACE), moves[i] - 1
        if moves[i]:
            heappush(waits, (now + rng.choice(pauses), i))
    return False


def test_one_move_a_block_is_enough_in_a_crowd() -> None:
    assert not late(GRACE, (0,))
    assert not late(GRACE, (0, 0, 1, 12, 3000))
    assert not late(GRACE, (CLOCK,))
    assert late(GRACE // 5, (0,))  # less than a grace for each would not do


@pytest.fixture
def crowd() -> Any:
    """A lie with CROWD + 2 challengers, the last of whom is honest, and the truth beside it."""
    w = World()
    names = [f"sybil {i}" for i in range(CROWD + 1)]
    w.fund(*NAMES, *names)
    job = w.post()
    job.provide({"bob": LIE, "alice": w.honest})
    for n in (*names, "carol"):
        job.challenge(n, "bob")
    return w, job, {n: job.open(n, "bob") for n in (*names, "carol")}


def test_a_crowd_has_less_time_and_more_bonds(crowd: Any) -> None:
    w, job, disputes = crowd
    t, opened = job.terms, list(disputes.values())
    ends = [w.clocks[d].defender for d in opened]
    assert ends == list(accumulate([t.clock] * CROWD + [t.grace] * 2))
    assert [job.dispute(d)["more"] for d in opened] == [0] * CROWD + [1] * 2
    assert [job.dispute(d)["left"] for d in opened] == [
        [e, t.clock] for e in ends
    ]  # as the Court has it
    assert w.credit("carol") == RICH - 2 * t.challenger_bond
    won = job.play(disputes["carol"], ("bob", LIE), ("carol", w.honest))
    assert won == CHALLENGER_WON
    # one ends by the clock of its challenger, whose bonds are lost
    d = opened[CROWD]
    job.step(d, "bob", LIE)
    w.chain.now += t.clock + 1
    w.timeout("anyone", d)
    assert job.dispute(d)["turn"] == DEFENDER_WON
    w.chain.now += ends[-1]
    for other in opened[:CROWD]:
        w.timeout("anyone", other)
    job.finalise()
    before = w.view("burnt", w.token.address)
    for other in opened:
        job.send("anyone", "collect", other)
    assert w.credit("carol") > RICH
    lost = 2 * t.challenger_bond
    assert w.view("burnt", w.token.address) - before == lost - lost // 2
    assert w.credit("bob") == RICH - t.provider_bond + lost // 2
    assert w.view("held", w.token.address) == 0


def test_without_the_bonds_of_a_crowd_none_is_opened(crowd: Any) -> None:
    w, job, _ = crowd
    w.fund("poor", amount=job.terms.challenger_bond)
    w.chain.now = job.terms.challenge_until  # a second before: nothing has moved since
    job.challenge("poor", "bob")
    with refused("bank: credit"):
        job.open("poor", "bob")
    w.fund("poor", amount=job.terms.challenger_bond)
    job.open("poor", "bob")
    assert job.claim("bob")["load"] == CROWD + 3


def test_a_void_job_gives_all_bonds_back() -> None:
    from ree.settlement.testing.court import SEED
    from ree.settlement.testing.mock_game import facts
    from ree.traces.merkle import MerkleTree

    w = World()
    names = [f"sybil {i}" for i in range(CROWD + 1)]
    w.fund(*NAMES, *names)
    records = [op.to_bytes(2, "big") + bytes(238) for op in (1, 666)]
    tree = MerkleTree(records)
    w.facts = facts(SEED, tree.root(), len(records))
    job = w.post()
    job.provide({"bob": LIE})
    for n in names:
        job.challenge(n, "bob")
    for n in names:
        job.open(n, "bob")
    job.send("anyone", "void", job.facts, 1, records[1], tree.prove(1))
    for n in names:
        job.send("anyone", "reclaim", account(n), job.challenge_commitment(n, "bob"))
        assert w.credit(n) == RICH
    assert w.view("held", w.token.address) == 0


def test_a_client_pays_what_a_crowd_costs_and_keeps_it_ready() -> None:
    town = Town(Pool())
    chain, deployer = town.chain, town.nodes["deployer"]
    mint = deployer.contract("token", town.token).functions.mint
    now = chain.now
    until = {"challenge_until": now + 40_000, "open_until": now + 80_000}
    terms = replace(town.terms(), **until)
    job = town.court("poster").post(terms, FACTS, "here")
    bob, bond = town.court("bob"), terms.challenger_bond
    bob.accept(job, Agreed(LIE.root))
    bob.commit(job, Agreed(LIE.root))
    chain.wait_until(terms.commit_until + 1)
    bob.reveal(job, LIE.root)
    chain.wait_until(terms.reveal_until + 1)
    courts = []
    for i in range(CROWD + 2):
        node = chain.account(f"c{i}")
        deployer.send("mint", mint(node.account, 2 * bond))
        courts.append(Court(node, town.address, town.since))
    me, provider = courts[-1], bob.node.account
    me.policy = replace(Policy(), block=1, censorship=60, move=60)
    with pytest.raises(
        ChainError, match=f"expected {MOST_BONDS * bond} of token .*, has {2 * bond}$"
    ):
        me.challenge(job, provider, Agreed(TRUE.root))
    deployer.send("mint", mint(me.node.account, (MOST_BONDS - 2) * bond))
    for c in courts:
        c.challenge(job, provider, Agreed(TRUE.root))
    chain.wait_until(terms.challenge_until + 1)
    for c in courts:
        c.open_challenge(job, provider)
    disputes = me.disputes(job)
    assert [d.more for d in disputes] == [0] * CROWD + [1] * 2
    assert disputes[-1].challenger == me.node.account


def test_who_cannot_pay_a_crowd_is_told_before_the_bond_and_before_it_is_forfeited() -> None:
    """Of all jobs in the token, with what a challenge that waits may take still; and when it is opened."""
    town = Town(Pool())
    chain, deployer, bob = town.chain, town.nodes["deployer"], town.court("bob")
    mint = deployer.contract("token", town.token).functions.mint
    now, provider = chain.now, bob.node.account
    until = {"challenge_until": now + 40_000, "open_until": now + 80_000}
    jobs = []
    for _ in range(2):
        terms = replace(town.terms(), **until)
        jobs.append(town.court("poster").post(terms, FACTS, "here"))
        bob.accept(jobs[-1], Agreed(LIE.root))
        bob.commit(jobs[-1], Agreed(LIE.root))
    bond, true = terms.challenger_bond, Agreed(TRUE.root)
    node = chain.account("honest")
    deployer.send("mint", mint(node.account, (2 * MOST_BONDS - 1) * bond))
    policy = replace(Policy(), block=1, censorship=60, move=60)
    me = Court(node, town.address, town.since, policy)
    assert me.to_challenge(jobs[0], provider, true) == (0, 0)  # nothing is claimed yet
    chain.wait_until(terms.commit_until + 1)
    for job in jobs:
        bob.reveal(job, LIE.root)
    chain.wait_until(terms.reveal_until + 1)
    assert me.to_challenge(jobs[0], provider, Agreed(LIE.root)) == (0, 0)
    assert me.to_challenge(jobs[0], provider, true) == (MOST_BONDS, MOST_BONDS * bond)
    me.challenge(jobs[0], provider, true)
    assert me.to_challenge(jobs[0], provider, true) == (0, 0)
    both = MOST_BONDS * bond + (MOST_BONDS - 1) * bond
    assert me.to_challenge(jobs[1], provider, true) == (MOST_BONDS, both)
    message = f"forfeited: expected {both} of token .*, has {both - bond}$"
    with pytest.raises(ChainError, match=message):
        me.challenge(jobs[1], provider, true)
    assert me.challenge_status(jobs[1], provider) == 0
    # a crowd comes, and the money is gone
    others = [town.court("carol")]
    for i in range(CROWD - 1):
        one = chain.account(f"c{i}")
        deployer.send("mint", mint(one.account, bond))
        others.append(Court(one, town.address, town.since))
    for c in others:
        c.challenge(jobs[0], provider, true)
    chain.wait_until(terms.challenge_until + 1)
    for c in others:
        c.open_challenge(jobs[0], provider)
    coin = node.contract("token", town.token).functions
    has = coin.balanceOf(node.account).call()
    node.send("transfer", coin.transfer(deployer.account, has))
    me.withdraw(town.token)
    rest = coin.balanceOf(node.account).call()
    if rest:
        node.send("transfer", coin.transfer(deployer.account, rest))
    message = f"takes 2 bonds: expected {bond} more of token .*, has 0"
    with pytest.raises(ChainError, match=message) as e:
        me.open_challenge(jobs[0], provider)
    assert (
        e.value.hint
        == f"there is time until {terms.open_until}; then the {bond} bonded are forfeited"
    )
    deployer.send("mint", mint(node.account, bond))
    me.open_challenge(jobs[0], provider)
    assert me.disputes(jobs[0])[-1].more == 1
