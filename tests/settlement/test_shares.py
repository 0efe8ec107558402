"""The game of shares (docs/settlement.md): a cheat who challenges itself, against the honest challenger."""

from fractions import Fraction
from itertools import pairwise, product

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.settlement.bonds import (
    CROWD,
    CROWD_GAS,
    MILLION,
    MOST_ROUNDS,
    OPENING_GAS,
    OPENING_ROUNDS,
    Prices,
    gas_of_a_round,
    least_bonds,
)
from ree.settlement.testing.court import (
    CHALLENGER_WON,
    LIE,
    NAMES,
    RICH,
    World,
    balances,
    refused,
)

ROUNDS = (0, 1, 6, 20, MOST_ROUNDS)


def by_rounds(rounds: int) -> int:
    return OPENING_ROUNDS + rounds


def equal(rounds: int) -> int:
    return 1


class Game:
    """The half that winners share, and what opening, a round and a challenger's own moves cost: all in units
    of the token, as fractions."""

    def __init__(self, reward, prices, weight=by_rounds):
        self.half = least_bonds(reward, prices).provider // 2
        self.prices, self.weight = prices, weight
        self.one = Fraction(prices.million_gas, MILLION)  # gas

    def spent(self, many, rounds):
        """What many challenges of oneself cost, each of so many rounds of both sides."""
        gas = many * (OPENING_GAS + rounds * gas_of_a_round()) + max(many - CROWD, 0) * CROWD_GAS
        return gas * self.one

    def costs(self, rounds):
        """Of the honest challenger: an execution, the opening, and up to the dearest dispute's moves."""
        moves = Fraction(self.prices.dispute - self.prices.short)
        return self.prices.short + max(moves, 0) * rounds / MOST_ROUNDS

    def outcome(self, rounds, many, own):
        """(what the cheat gets back, what the honest challenger gains) if the cheat gives up after `rounds` and
        challenges itself many times, for `own` rounds each."""
        honest, others = self.weight(rounds), many * self.weight(own)
        pay = Fraction(self.half * honest, honest + others)
        return self.half - pay - self.spent(many, own), pay - self.costs(rounds)

    def strategies(self):
        most = 4 * self.half // max(int(self.spent(1, 0)), 1) + 2
        many = sorted({0, *(int(most ** (i / 40)) for i in range(41)), *range(30)})
        for rounds, own, k in product(ROUNDS, ROUNDS, many):
            yield (rounds, k, own), *self.outcome(rounds, k, own)


MARKETS = [Prices(1000, 500), Prices(1000, 50_000), Prices(10**6, 1), Prices(333, 7_919)]


@pytest.mark.parametrize("prices", MARKETS, ids=str)
@pytest.mark.parametrize("reward", [1, 10_000, 10**7])
def test_the_honest_challenger_is_paid_whatever_is_best_for_the_cheat(reward, prices):
    played = list(Game(reward, prices).strategies())
    best = max(back for _, back, _ in played)
    assert all(gain >= 0 for _, back, gain in played if back == best)


@pytest.mark.parametrize("prices", MARKETS, ids=str)
def test_its_gas_but_a_crowds_is_paid_unless_the_cheat_pays_more_than_it_gets_back(prices):
    game = Game(10_000, prices)
    for _, back, gain in game.strategies():
        if gain + prices.execution + CROWD_GAS * game.one < 0:
            assert back < 0


def test_equal_shares_would_not_do():
    """The rule before: a cheat gives up against itself at once, and the honest challenger plays to the end."""
    lost = 0
    for p in MARKETS:
        played = list(Game(1, p, equal).strategies())
        best = max(back for _, back, _ in played)
        lost += any(gain < 0 for _, back, gain in played if back == best)
    assert lost


@pytest.fixture
def world():
    w = World()
    w.fund(*NAMES)
    return w


def test_the_court_pays_by_rounds(world):
    """Three winners: to the end, given up after three moves, given up at once."""
    job = world.post()
    job.provide({"bob": LIE})
    names = ("alice", "carol", "dave")
    for n in names:
        job.challenge(n, "bob")
    disputes = [job.open(n, "bob") for n in names]
    assert job.play(disputes[0], ("bob", LIE), ("alice", world.honest)) == CHALLENGER_WON
    for _ in range(2):
        job.step(disputes[1], "bob", LIE)
        job.step(disputes[1], "carol", world.honest)
    rounds = [world.clocks[d].round for d in disputes]
    assert rounds[0] > rounds[1] == 4
    for n, d in zip(names[1:], disputes[1:], strict=True):
        world.chain.now += 4 * job.terms.clock
        world.timeout(n, d)
    weights = [OPENING_ROUNDS + r - (i == 0) for i, r in enumerate(rounds)]  # before the last move
    assert job.claim("bob")["weight"] == sum(weights)
    job.finalise()
    for d in reversed(disputes):
        job.send("anyone", "collect", d)
        with refused("court: collected"):
            job.send("anyone", "collect", d)
    half, ends = 4_003 // 2, [sum(weights[:i]) for i in range(4)]
    paid = [half * b // ends[3] - half * a // ends[3] for a, b in pairwise(ends)]
    assert balances(world) == {"bob": -4_003, **dict(zip(names, paid, strict=True))}
    assert world.view("held", world.token.address) == 0


def test_a_cheat_that_gives_up_against_itself_dilutes_little(world):
    sybils = [f"sybil {i}" for i in range(9)]
    world.fund(*sybils)
    job = world.post(provider_bond=40_000)
    job.provide({"bob": LIE})
    for n in ("carol", *sybils):
        job.challenge(n, "bob")
    disputes = {n: job.open(n, "bob") for n in ("carol", *sybils)}
    assert job.play(disputes["carol"], ("bob", LIE), ("carol", world.honest)) == CHALLENGER_WON
    world.chain.now += 11 * job.terms.clock
    for n in sybils:
        world.timeout(n, disputes[n])
    job.finalise()
    for d in disputes.values():
        job.send("anyone", "collect", d)
    weight = job.claim("bob")["weight"] - 9 * OPENING_ROUNDS
    assert world.credit("carol") - RICH == 20_000 * weight // (weight + 9 * OPENING_ROUNDS)
    assert world.credit("carol") - RICH > 20_000 // 10


def test_a_challengers_clock_grows_with_its_disputes(world):
    names = [f"liar {i}" for i in range(4)]
    world.fund(*names)
    job = world.post()
    job.provide(dict.fromkeys(names, LIE))
    for n in names:
        job.challenge("carol", n)
    for i, n in enumerate(names):
        d = job.open("carol", n)
        assert world.clocks[d].challenger == (i + 1) * job.terms.clock
        assert job.dispute(d)["turn"] == 1  # as the Court holds them


def test_a_stranger_opens_no_more_disputes_than_there_can_be_claims(world):
    job = world.post()
    job.provide({"bob": LIE})
    salts = [bytes([i]) * 16 for i in range(9)]
    for s in salts:
        job.challenge("carol", "bob", s)
    disputes = [job.open("carol", "bob", s) for s in salts[:8]]
    with refused("court: open disputes"):
        job.open("carol", "bob", salts[8])
    assert job.play(disputes[0], ("bob", LIE), ("carol", world.honest)) == CHALLENGER_WON
    job.open("carol", "bob", salts[8])
