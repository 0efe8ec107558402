"""The Court: the late and the silent, outages, sizes, other versions, Courts and chains, and signatures."""

from typing import Any

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("pyrevm", reason="needs the extra settlement")

from ree.settlement.keys import role_key
from ree.settlement.terms import claim_commitment, decode_facts, facts_digest
from ree.settlement.testing.court import (
    CHALLENGER_WON,
    DEFENDER_WON,
    LIE,
    REFUTED,
    SALT,
    World,
    account,
    balances,
    refused,
)  # fmt: skip
from ree.settlement.testing.evm import Reverted
from ree.settlement.testing.nodes import GAS, PRICE

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # of secp256k1


def test_every_move_has_its_least_time(world: World) -> None:
    """Trap 2: a clock that is nearly used up still leaves the time of one move, and an outage of the sequencer
    that is no longer than that harms nobody at any deadline."""
    job = world.post()
    job.provide({"bob": LIE})
    job.challenge("carol", "bob")
    d = job.open("carol", "bob")

    def wait(seconds: int) -> None:
        """Since the last move."""
        world.chain.now = job.dispute(d)["since"] + seconds

    wait(600)
    job.step(d, "bob", LIE)
    assert job.dispute(d)["left"] == [60, 600]
    wait(600)
    job.step(d, "carol", world.honest)
    for _ in range(2):  # the sequencer is down for the whole grace whenever a move is due
        wait(60)
        job.step(d, "bob", LIE)
        if job.dispute(d)["turn"] == CHALLENGER_WON:
            return
        wait(60)
        job.step(d, "carol", world.honest)
    wait(60)
    assert job.step(d, "bob", LIE) == CHALLENGER_WON


def test_another_contract_of_numbers_is_refused(world: World) -> None:
    """Version confusion: the numeric id of the facts is the referee's."""
    other = bytes([1]) + world.facts.encode()[1:]
    terms = world.terms(facts=facts_digest(decode_facts(other)))
    with refused("court: numeric id"):
        world.send("poster", "post", terms.values(), other, "")


@pytest.mark.parametrize("silent", ["defender", "challenger"])
def test_a_silent_party_loses_its_bond(world: World, silent: str) -> None:
    """Whoever does not move, true or false, loses by its clock; anyone may say so."""
    job = world.post()
    job.provide({"alice": world.honest})
    job.challenge("bob", "alice")
    d = job.open("bob", "alice")
    if silent == "challenger":
        job.step(d, "alice", world.honest)
    state = job.dispute(d)
    world.chain.now = state["since"] + 601
    world.timeout("anyone", d)
    won = CHALLENGER_WON if silent == "defender" else DEFENDER_WON
    assert job.dispute(d)["turn"] == won
    job.finalise()
    job.send("anyone", "collect", d)
    if silent == "defender":
        assert job.claim("alice")["status"] == REFUTED
        assert balances(world) == {"alice": -4_003, "bob": 2_001}
    else:
        assert balances(world) == {"poster": -10_001, "alice": 9_951 + 500, "bob": -1_001}


def test_a_late_move_is_refused(world: World) -> None:
    """In the last second of its clock a party may move; a second later it may not, and nothing has changed."""
    job = world.post()
    job.provide({"bob": LIE})
    job.challenge("carol", "bob")
    d = job.open("carol", "bob")
    since, mark = job.dispute(d)["since"], world.chain.snapshot()
    world.chain.now = since + 601
    with refused("court: time is up"):
        job.step(d, "bob", LIE)
    assert job.dispute(d)["since"] == since
    world.chain.revert(mark)
    mark = world.chain.snapshot()
    world.chain.now = since + 600
    with refused("court: time is left"):
        world.timeout("carol", d)
    world.chain.revert(mark)
    world.chain.now = since + 600
    job.step(d, "bob", LIE)
    assert job.dispute(d)["turn"] == 2


def test_commitments_belong_to_one_court_chain_and_job(world: World) -> None:
    """A commitment made for another Court, chain, job or provider cannot be revealed here."""
    job, other = world.post(), world.post()
    court, chain, me = world.court.address, world.chain.chain_id, account("alice")
    root = world.honest.root
    good = claim_commitment(chain, court, job.id, me, root, SALT)
    assert good == job.commitment("alice", root)
    for at, bad in ((1, account("another court")), (0, chain + 1), (2, other.id), (2, bytes(32)),
                    (1, "0x" + "00" * 20), (3, account("bob"))):  # fmt: skip
        mark = world.chain.snapshot()
        parts: list[Any] = [chain, court, job.id, me, root, SALT]
        parts[at] = bad
        job.send("alice", "accept")
        job.send("alice", "commit", claim_commitment(*parts))
        job.at("commit_until", 1)
        with refused("court: commitment"):
            job.send("alice", "reveal", root, SALT)
        world.chain.revert(mark)


def test_facts_without_an_instance_are_no_job(world: World) -> None:
    """What a job is about begins with the 124 bytes of the instance; facts of any other length, and facts that
    are not those of the terms, are refused."""
    whole = world.facts.encode()
    terms = world.terms()
    for facts in (b"", whole[124:], whole[:-1], whole + b"\0", bytes(124) + whole[124:]):
        with refused("court: (facts|numeric id)"):
            world.send("poster", "post", terms.values(), facts, "")
    assert bytes(world.send("poster", "post", terms.values(), whole, "")) == terms.id(
        world.chain.chain_id, world.court.address
    )


def test_everything_at_its_largest(world: World) -> None:
    """Eight providers, seven of them refuted, data of 256 bytes and moves of 12,288: every transaction fits
    into a block, and one byte more is refused."""
    with pytest.raises(Reverted):
        world.send("poster", "post", world.terms().values(), world.facts.encode(), "x" * 257)
    terms = world.terms(slots=8, payees=8, open_until=world.chain.now + 10_000)
    world.send("poster", "post", terms.values(), world.facts.encode(), "x" * 256)
    job = world.job(terms)
    liars = [f"liar {i}" for i in range(7)]
    world.fund(*liars)
    job.provide({"alice": world.honest, **dict.fromkeys(liars, LIE)})
    disputes = [job.confront(name, "alice") for name in liars]
    for size, reason in ((12_288, "mock: digests"), (12_289, ".*")):
        with refused(reason):
            world.respond(liars[0], disputes[0], world.states[disputes[0]], bytes(size))
    for name, d in zip(liars, disputes, strict=True):
        assert job.play(d, (name, LIE), ("alice", world.honest)) == CHALLENGER_WON
    assert job.finalise() == (world.honest.root, 1, 7)
    for d in disputes:
        job.send("anyone", "collect", d)
    assert world.view("held", world.token.address) == 0


def deposit(world: World, **changes: Any) -> dict[str, Any]:
    """A call of `deposit(token, 1)` by alice, who has two."""
    data = world.court.selector("deposit") + world.court.encode("deposit", world.token.address, 1)
    return {
        "to": world.court.address, "data": data, "gas": GAS, "value": 0, "chainId": world.chain.chain_id,
        "nonce": world.chain.web3.eth.get_transaction_count(account("alice")), **changes,
    }  # fmt: skip


@pytest.fixture
def rich(world: World) -> int:
    """Alice has two tokens to deposit; her credit before."""
    world.token.call("mint", account("alice"), 2)
    world.token.call("approve", world.court.address, 2, by=account("alice"))
    return world.credit("alice")


def test_a_transaction_counts_once(world: World, rich: int) -> None:
    """Sent again, or signed for another chain, it is refused; the Court itself checks no signature."""
    key, fees = role_key("alice"), {"maxFeePerGas": PRICE, "maxPriorityFeePerGas": 1}
    first, other = (
        key.sign(deposit(world, **fees, chainId=world.chain.chain_id + i)) for i in (0, 1)
    )
    if world.chain.control.name == "anvil":  # the embedded chain is the only one of its kind
        with pytest.raises(Exception, match=r"chain id"):
            world.chain.submit(other, {})
    world.chain.submit(first, {})
    assert world.credit("alice") == rich + 1
    with pytest.raises(Exception, match=r"(?i)nonce"):
        world.chain.submit(first, {})
    assert world.credit("alice") == rich + 1


def raw(tx: dict[str, Any], v: int, r: int, s: int) -> bytes:
    """The bytes of a transaction with a signature."""
    from eth_account._utils.legacy_transactions import (
        encode_transaction,
        serializable_unsigned_transaction_from_dict,
    )

    unsigned = serializable_unsigned_transaction_from_dict(tx)
    return bytes(encode_transaction(unsigned, vrs=(v, r, s)))


def test_a_signature_in_its_other_form_counts_no_second_time(world: World, rich: int) -> None:
    """(r, n - s) with the other parity is a signature of the same transaction: it does nothing more."""
    from eth_account import Account

    tx = deposit(world, gasPrice=PRICE)
    good = Account.from_key(role_key("alice")._secret).sign_transaction(tx)
    assert raw(tx, good.v, good.r, good.s) == bytes(good.raw_transaction)
    other = raw(tx, good.v + (1 if (good.v - 35) % 2 == 0 else -1), good.r, ORDER - good.s)
    world.chain.submit(bytes(good.raw_transaction), {})
    with pytest.raises(Exception, match=r"(?i)nonce|less than or equal"):
        world.chain.submit(other, {})
    assert world.credit("alice") == rich + 1


def test_a_signature_that_recovers_to_nobody_is_refused(world: World, rich: int) -> None:
    """Address zero can neither sign nor be credited."""
    tx, v = deposit(world, gasPrice=PRICE), 35 + 2 * world.chain.chain_id
    for r, s in ((0, 0), (ORDER, 1), (1, 0)):
        with pytest.raises(Exception, match=r"(?i)recover|invalid|not greater|less than"):
            world.chain.submit(raw(tx, v, r, s), {})
    assert world.credit("alice") == rich
    assert world.view("credits", world.token.address, "0x" + "00" * 20) == 0
