"""The Court: money, its interface, odd tokens."""

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.settlement.compile import CONTRACTS, compile_contract
from ree.settlement.testing.court import (
    CHALLENGER_WON,
    DEFENDER_WON,
    LIE,
    NAMES,
    RICH,
    TREASURY,
    World,
    account,
    balances,
    refused,
)
from ree.settlement.testing.evm import Reverted


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
        "confront", "respond", "timeout", "finalise", "collect", "forfeit", "reclaim",
    }  # fmt: skip
    assert not any(f.get("stateMutability") == "payable" for f in abi)
    source = "".join((CONTRACTS / f"{n}.vy").read_text()
                     for n in ("court", "disputes", "docket", "bank", "clocks"))  # fmt: skip
    # no signatures to replay or to recover to zero, no code but its own, no owner
    for word in ("ecrecover", "raw_call", "delegate", "selfdestruct", "owner:", "create_", "send("):
        assert word not in source, word
    # the caller is compared with the poster of one's own job and the player whose turn it is
    assert sorted(line.strip() for line in source.splitlines() if "assert msg.sender" in line) == [
        'assert msg.sender == job.poster, "court: poster"',
        'assert msg.sender == player, "court: not your turn"',
    ]


def test_the_contract_fits(world: World) -> None:
    assert len(compile_contract("court.vy").runtime) <= 24_576
    assert world.view("referee").lower() == world.referee.address.lower()
    assert world.view("treasury").lower() == TREASURY.lower()


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
