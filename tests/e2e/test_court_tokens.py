"""The Court with tokens that misbehave."""

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.settlement.testing.court import RICH, World, account, refused
from ree.settlement.testing.evm import Reverted
from ree.settlement.testing.nodes import NodeChain


@pytest.fixture(scope="module")
def oddity(chain: Any) -> World:
    """A Court whose token returns nothing and may misbehave."""
    w = World("testing/odd_token.vy", chain=NodeChain(chain))
    w.fund("poster", "alice")
    return w


@pytest.fixture
def odd(oddity: World) -> Iterator[World]:
    mark = oddity.chain.snapshot()
    yield oddity
    oddity.chain.revert(mark)


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
