"""On which terms a client puts money."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("eth_tester", reason="needs the extra settlement")

from ree.errors import ChainError
from ree.settlement.bonds import Prices, least_bonds
from ree.settlement.client import Agreed, Court
from ree.settlement.embedded import Embedded
from ree.settlement.policy import DAY, DEVELOPMENT, HOUR, Policy
from ree.settlement.terms import DEADLINES, Terms
from ree.settlement.testing.town import FACTS, LIE, TRUE, Town


@pytest.fixture(scope="module")
def town() -> Town:
    return Town(Embedded())


def good(town: Town) -> Terms:
    """Terms with an hour for each window, and clocks to match."""
    now = town.chain.now
    until = {d: now + 2 * HOUR * (i + 1) for i, d in enumerate(DEADLINES)}
    return replace(town.terms(), clock=2 * HOUR, grace=600, **until)


def test_each_time_has_a_least_and_the_whole_an_end(town: Town) -> None:
    terms, policy = good(town), Policy(work=100.0)
    now = town.chain.now
    assert policy.refusals(terms, now) == []
    for before, name in pairwise(DEADLINES):
        between_blocks = replace(terms, **{name: getattr(terms, before) + 11})
        assert any(name.split("_")[0] in x for x in policy.refusals(between_blocks, now)), name
        after = getattr(terms, before) + 1  # too late to be spared by refusing
        assert not any(name.split("_")[0] in x for x in policy.refusals(between_blocks, after))
    for wrong, text in (
        ({"clock": HOUR + 16 * 12 + 99}, "clock of 3,891 s, expected 3,892 s at least"),
        ({"grace": 299}, "grace of 299 s"),
        ({"open_until": now + 91 * DAY}, "91 days"),
        ({"open_until": 2**48 - 1, "challenge_until": 2**48 - 5000}, "locked"),
        ({"clock": 91 * DAY}, "clock: 91 days"),
    ):
        assert any(text in x for x in policy.refusals(replace(terms, **wrong), now)), wrong
    assert DEVELOPMENT.refusals(replace(town.terms(), clock=600), town.chain.now) == []
    assert DEVELOPMENT.refusals(replace(terms, clock=10, grace=10), now)


def test_bonds_cover_costs_at_the_prices_one_names(town: Town) -> None:
    prices = Prices(million_gas=1000, execution=500)
    terms, policy, now = good(town), Policy(work=100.0, prices=prices), town.chain.now
    least = least_bonds(terms.reward, prices)
    enough = replace(terms, provider_bond=least.provider, challenger_bond=least.challenger)
    assert policy.refusals(enough, now) == []
    assert replace(policy, prices=None).assumed(enough) == []
    three = replace(enough, provider_bond=least_bonds(terms.reward, prices, 3).provider)
    assert policy.assumed(three) == [
        "honest challengers of one claim whom the provider's bond pays at these prices: 3, more would share "
        f"the same; a challenge in a crowd takes up to 8 bonds: {8 * least.challenger:,}"
    ]
    for name in ("provider_bond", "challenger_bond"):
        wrong = replace(enough, **{name: getattr(enough, name) - 1})
        (text,) = policy.refusals(wrong, now)
        assert text.startswith(f"{name.split('_')[0]}'s bond of"), text
        assert replace(policy, prices=None).refusals(wrong, now) == []


def test_the_client_bonds_on_no_other_terms(town: Town) -> None:
    """Post, accept and challenge ask the policy; what is bonded already goes on."""

    def refused(call: Any, text: str) -> None:
        with pytest.raises(ChainError, match=text):
            call()

    def strict(role: str) -> Court:
        return Court(town.nodes[role], town.address, town.since, Policy())

    terms = good(town)
    bad: dict[str, Any] = {"open_until": terms.challenge_until + 11}
    refused(
        lambda: strict("poster").post(replace(terms, **bad), FACTS, "here"), "open window of 11 s"
    )
    job = town.court("poster").post(replace(terms, **bad), FACTS, "here")
    refused(lambda: strict("alice").accept(job, Agreed(TRUE.root)), "open window of 11 s")
    assert town.court("alice").claim(job, town.nodes["alice"].account).status == 0
    town.court("alice").accept(job, Agreed(LIE.root))
    assert strict("alice").accept(job, Agreed(LIE.root)) is None
    strict("alice").commit(job, Agreed(LIE.root))
    town.chain.wait_until(terms.commit_until + 1)
    strict("alice").reveal(job, LIE.root)
    town.chain.wait_until(terms.reveal_until + 1)
    provider, before = town.nodes["alice"].account, len(town.nodes["carol"].receipts)
    refused(
        lambda: strict("carol").challenge(job, provider, Agreed(TRUE.root)), "open window of 11 s"
    )
    assert len(town.nodes["carol"].receipts) == before


def test_an_allowance_that_a_crash_has_left(town: Town) -> None:
    """As a token wants it that lets an allowance be changed to nothing only, or from nothing."""
    node, court = town.nodes["carol"], town.court("carol")
    approve = node.contract("token", town.token).functions.approve
    start = court.credit(town.token)
    node.send("approve", approve(town.address, 5))
    before = len(node.receipts)
    assert court.deposit(town.token, start + 9) is not None
    assert [r.function for r in node.receipts[before:]] == ["approve", "approve", "deposit"]
    node.send("approve", approve(town.address, 9))
    before = len(node.receipts)
    assert court.deposit(town.token, start + 18) is not None
    assert [r.function for r in node.receipts[before:]] == ["deposit"]
