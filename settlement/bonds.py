"""Bonds that make honesty pay, from the gas that disputes were measured to cost."""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ree.errors import InputError

SNAPSHOT = Path(__file__).parent / "gas.json"  # tests/settlement/test_gas.py writes and checks it
MILLION = 1_000_000
OPENING_ROUNDS = (
    9  # weight of a lost dispute besides its rounds, as contracts/court/registry.vy has it
)
OPENING_GAS = 380_000  # of challenge, open_challenge, timeout and collect, by receipts
CROWD_GAS = 40_000  # of these, more in a crowd
CROWD, MOST_BONDS = (
    16,
    8,
)  # disputes of an account for each bond of one more, as contracts/court/registry.vy has them
MOST_ROUNDS = 48  # of a dispute; measured: 40


def bonds_of(load: int) -> int:
    """Challenger's bonds that it takes to dispute a claim whose provider has so many disputes open."""
    return 1 + min(load // CROWD, MOST_BONDS - 1)


@cache
def gas_of_a_weight() -> int:
    """Gas that makes one unit of weight in a dispute with oneself, at least: by opening it, or by a round."""
    return min(gas_of_a_round(), OPENING_GAS // OPENING_ROUNDS)


@cache
def gas_of_a_round() -> int:
    """Gas of a round at least: half of a REVEAL and a PICK, the cheapest moves."""
    moves = json.loads(SNAPSHOT.read_text())["referee"]
    return int(moves["REVEAL"]["transaction"] + moves["PICK"]["transaction"]) // 2


@cache
def gas_of_a_dispute() -> int:
    """Gas of all moves of both sides of the dearest dispute measured: 2^20 steps, 2^12 values, 2^24 elements,
    chains of 2^14, operands behind moves."""
    moves = json.loads(SNAPSHOT.read_text())["referee"]
    return max(int(e["transaction"]) for n, e in moves.items() if n.startswith("dispute"))


@dataclass(frozen=True)
class Prices:
    """What a party pays, in units of the job's token: for a million gas, and for one re-execution with a
    trace of every operator."""

    million_gas: int
    execution: int

    @property
    def dispute(self) -> int:
        """At most what one side of a dispute spends."""
        return self.gas(gas_of_a_dispute()) + self.execution

    @property
    def short(self) -> int:
        """What a challenger spends whose dispute is given up at once."""
        return self.gas(OPENING_GAS + CROWD_GAS) + self.execution

    def gas(self, gas: int) -> int:
        """The price of gas, rounded up."""
        return -(-gas * self.million_gas // MILLION)


def most_winners(bond: int, reward: int, prices: Prices) -> int:
    """How many challengers of one claim a provider's bond pays for refuting it, as `least_bonds` has it."""
    most = min(bond // (2 * prices.dispute), 2**60)  # no bond pays more
    return bisect_right(
        range(1, most + 1), bond, key=lambda n: least_bonds(reward, prices, n).provider
    )


@dataclass(frozen=True)
class Bonds:
    """Units of the job's token."""

    provider: int
    challenger: int


def least_bonds(reward: int, prices: Prices, winners: int = 1) -> Bonds:
    """The least bonds with which nobody loses by being honest and nobody gains by lying.

    reward: what a false result is worth to its provider, at least the job's reward. winners: challengers who
    shall each be paid for refuting one claim. Half of a lost bond is burnt: so a defender gets half of the
    challenger's, all winners together half of the provider's, and a cheat loses more than `reward`. The
    winners' half is so large that a cheat who challenges itself does best for itself with no more weight than
    leaves each of them its costs (docs/settlement.md, The game of shares). InputError unless all are positive.
    """
    if min(reward, prices.million_gas, prices.execution, winners) < 1:
        raise InputError("bonds: expected a reward, prices and a number of winners of at least 1")
    halves = [reward + 1, winners * prices.dispute]
    one = gas_of_a_weight() * prices.million_gas  # of a unit of weight, in millionths
    for costs, rounds in ((prices.short, 0), (prices.dispute, MOST_ROUNDS)):
        most = costs * MILLION + OPENING_ROUNDS * one  # with one challenge more than is best
        halves.append(-(-winners * most**2 // ((OPENING_ROUNDS + rounds) * one * MILLION)))
    return Bonds(provider=2 * max(halves), challenger=2 * prices.dispute)
