"""The Court: money, its interface, odd tokens."""

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.settlement.compile import compile_contract, source
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


def test_a_bond_that_could_not_be_shared_is_refused(world: World) -> None:
    """Half of it times a weight would overflow, and what its winners have won be locked."""
    for bond in (2**128 + 1, 2**255, 2**256 - 1, 0):
        with refused("court: bond"):
            world.post(provider_bond=bond)
    most = 2**128
    world.fund("bob", amount=most)
    job = world.post(provider_bond=most)
    job.provide({"bob": LIE})
    job.challenge("carol", "bob")
    dispute = job.open("carol", "bob")
    job.play(dispute, ("bob", LIE), ("carol", world.honest))
    job.finalise()
    job.send("anyone", "collect", dispute)
    assert world.credit("carol") == RICH + most // 2


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
    text = "".join(source(f"{n}.vy").read_text()
                     for n in ("court", "disputes", "descent", "registry", "bank", "clocks"))  # fmt: skip
    # no signatures to replay or to recover to zero, no code but its own, no owner
    # the one raw call is static: it hands a move on to the referee
    assert text.count("raw_call") == text.count("is_static_call=True") == 1
    for word in ("ecrecover", "delegate", "selfdestruct", "owner:", "create_", "send("):
        assert word not in text, word
    # the caller is compared with the poster of one's job; a state's name has the player whose turn it is
    assert sorted(line.strip() for line in text.splitlines() if "assert msg.sender" in line) == [
        'assert msg.sender == job.poster, "court: poster"',
    ]
    assert text.count("self._check_turn(") == text.count("dispute, word, msg.sender, other") == 2


def test_the_contract_fits(world: World) -> None:
    immutable = 3 * 32  # words behind the code that is compiled
    assert len(compile_contract("court.vy").runtime) + immutable <= 24_576
    assert world.view("referee").lower() == world.referee.address.lower()
    assert world.view("treasury").lower() == TREASURY.lower()


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
        "poster": -20_002, "alice": 9_951 + 500, "bob": -4_003 - 1_001, "carol": 1_000, "dave": 9_951 + 1_001
    }  # fmt: skip
