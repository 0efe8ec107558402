"""Bonds: at the least ones honesty pays, at one unit less it does not."""

from fractions import Fraction

import pytest

from ree.errors import InputError
from ree.settlement.bonds import (
    MILLION,
    Prices,
    gas_of_a_dispute,
    gas_of_a_weight,
    least_bonds,
    most_winners,
)


@pytest.mark.parametrize("reward", [1, 9_999, 10_000, 10**12])
@pytest.mark.parametrize("winners", [1, 2, 7])
@pytest.mark.parametrize("prices", [Prices(1, 1), Prices(333, 7_919), Prices(10**9, 1)])
def test_honesty_pays_and_one_unit_less_does_not(reward, winners, prices):
    """By the shares that the Court pays: half of a lost bond, among the winners, rounded down."""

    one = Fraction(gas_of_a_weight() * prices.million_gas, MILLION)

    def pays(provider, challenger):
        return (
            provider - provider // 2 > reward
            and provider // 2 // winners >= prices.dispute
            and all(
                winners * (cost + 9 * one) ** 2 <= provider // 2 * weight * one
                for cost, weight in ((prices.short, 9), (prices.dispute, 57))
            )
            and challenger // 2 >= prices.dispute
        )

    bonds = least_bonds(reward, prices, winners)
    assert pays(bonds.provider, bonds.challenger)
    assert not pays(bonds.provider, bonds.challenger - 1)
    assert not pays(bonds.provider - 2, bonds.challenger)


@pytest.mark.parametrize("prices", [Prices(1, 1), Prices(333, 7_919), Prices(10**9, 1)])
def test_how_many_a_bond_pays(prices):
    for winners in (1, 2, 7, 1000):
        bond = least_bonds(9_999, prices, winners).provider
        assert least_bonds(9_999, prices, most_winners(bond, 9_999, prices)).provider == bond
        assert most_winners(bond, 9_999, prices) >= winners
    assert most_winners(least_bonds(1, prices, 3).provider - 1, 1, prices) == 2
    assert most_winners(0, 1, prices) == 0
    assert most_winners(2**128, 1, prices) > 10**6


def test_a_dispute_costs_its_gas_and_one_execution():
    assert gas_of_a_dispute() > 10**6
    assert Prices(MILLION, 5).dispute == gas_of_a_dispute() + 5
    assert Prices(1, 1).dispute == -(-gas_of_a_dispute() // MILLION) + 1


@pytest.mark.parametrize(
    ("reward", "prices", "winners"),
    [(0, Prices(1, 1), 1), (1, Prices(0, 1), 1), (1, Prices(1, 0), 1), (1, Prices(1, 1), 0)],
)
def test_nothing_is_free(reward, prices, winners):
    with pytest.raises(InputError, match="at least 1"):
        least_bonds(reward, prices, winners)
