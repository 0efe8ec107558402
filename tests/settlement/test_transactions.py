"""What transactions offer, and what becomes of them: against a node made of dictionaries."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("web3", reason="needs the extra settlement")

from ree.errors import ChainError
from ree.settlement import transactions
from ree.settlement.client import Court
from ree.settlement.node import Node
from ree.settlement.transactions import CALM, FLYING, HOUR, URGENT, Pending, Sender

GWEI = 10**9
GAS = 300_000


class Eth:
    """Blocks come when the test says so."""

    def __init__(self):
        self.chain_id, self.max_priority_fee, self.balance = 1, GWEI, 10**21
        self.number, self.time, self.base = 100, 10**6, GWEI
        self.paid = [0]  # tips in the newest block
        self.count, self.receipts, self.sent = 0, {}, []
        self.fail, self.asked = None, 0

    def get_block(self, which):
        self.asked += 1
        return {"number": self.number, "timestamp": self.time, "baseFeePerGas": self.base,
                "hash": b"%d %d" % (self.number, self.count)}  # fmt: skip

    def get_transaction_count(self, account):
        return self.count

    def get_balance(self, account):
        return self.balance

    def fee_history(self, blocks, newest, percentiles):
        return {"reward": [[self.paid[0]]]}

    def send_raw_transaction(self, raw):
        if self.fail:
            raise ValueError(self.fail)
        self.sent.append(json.loads(raw))
        return f"hash {len(self.sent)}".encode()

    def get_transaction_receipt(self, name):
        from web3.exceptions import TransactionNotFound

        if name not in self.receipts:
            raise TransactionNotFound("none")
        return self.receipts[name]

    def mine(self, blocks=1, base=None):
        self.number += blocks
        self.time += 12 * blocks
        self.base = base or self.base


KEY = SimpleNamespace(address="me", sign=lambda tx: json.dumps(tx).encode())
CALL = SimpleNamespace(build_transaction=lambda fields: {**fields, "gas": GAS})


@pytest.fixture
def eth():
    return Eth()


@pytest.fixture
def sender(eth):
    found = Sender(eth, KEY, None)
    found.fresh = 0
    return found


def test_more_is_offered_the_less_time_is_left(eth, sender):
    offers = []
    for left in (10**9, HOUR, 1800, 600, 60, -5):
        flight = sender.submit("respond", CALL, eth.time + left)
        offers.append(flight.tx["maxFeePerGas"])
    assert offers == sorted(offers)
    assert offers[0] == offers[1] == GWEI * 9**CALM // 8**CALM + GWEI
    assert offers[-1] == GWEI * 9**URGENT // 8**URGENT + GWEI > 300 * GWEI  # 50 full blocks
    assert {f.tx["maxPriorityFeePerGas"] for f in sender.flights} == {GWEI}  # what is paid does not
    eth.balance = 10**17
    poor = sender.submit("respond", CALL, eth.time)
    assert poor.tx["maxFeePerGas"] * poor.tx["gas"] * FLYING <= eth.balance
    eth.balance = 1  # the node says that it is too little
    assert sender.submit("respond", CALL, eth.time).tx["maxFeePerGas"] == 3 * GWEI


def test_it_offers_more_when_it_must(eth, sender):
    flight = sender.submit("respond", CALL, eth.time + HOUR)
    first = dict(flight.tx)
    assert sender.look(flight) is None
    assert len(eth.sent) == 1  # no block has passed it by
    eth.mine(base=first["maxFeePerGas"] + 1)  # too dear for it at once
    sender.look(flight)
    assert flight.tx["maxFeePerGas"] >= 2 * eth.base
    assert flight.tx["maxPriorityFeePerGas"] * 10 >= first["maxPriorityFeePerGas"] * 11
    known = dict(flight.tx)
    eth.mine()
    sender.look(flight)
    assert len(eth.sent) == 2  # one block may pass
    eth.mine()
    eth.paid = [known["maxPriorityFeePerGas"] - 1]
    sender.look(flight)  # nobody pays more: it is kept out, or forgotten
    assert (flight.tx, len(eth.sent)) == (known, 3)
    eth.mine(2)
    eth.paid = [known["maxPriorityFeePerGas"]]
    sender.look(flight)  # others pay as much
    assert flight.tx["maxPriorityFeePerGas"] == known["maxPriorityFeePerGas"] * 5 // 4 + 1
    for name in flight.hashes:  # whichever of them is taken
        eth.receipts = {name: {"hash": name}}
        eth.count = 1
        assert sender.look(flight) == {"hash": name}
        assert sender.flights == []
        sender.flights.append(flight)


def test_a_block_full_of_higher_tips(eth, sender):
    """With time left a tip doubles, without it is above the others' at once; never more than a share."""
    calm, urgent = (sender.submit("respond", CALL, eth.time + left) for left in (HOUR, 600))
    eth.paid = [40 * GWEI]
    eth.mine(2)
    for flight in (calm, urgent):
        sender.look(flight)
    assert calm.tx["maxPriorityFeePerGas"] == 2 * GWEI
    assert urgent.tx["maxPriorityFeePerGas"] == 45 * GWEI
    assert urgent.tx["maxFeePerGas"] > eth.base + 45 * GWEI
    eth.paid, eth.balance = [10**9 * GWEI], 10**18
    eth.mine(2)
    sender.look(urgent)
    assert urgent.tx["maxPriorityFeePerGas"] * urgent.tx["gas"] * FLYING <= eth.balance


def test_a_tip_does_not_grow_while_somebody_keeps_it_out(eth, sender):
    flight = sender.submit("respond", CALL, eth.time + HOUR)
    for _ in range(300):
        eth.mine()
        sender.look(flight)
    assert flight.tx["maxPriorityFeePerGas"] == GWEI
    assert len(eth.sent) > 100  # and a node that forgets it hears it again


def test_many_on_their_way_cost_one_question(eth, sender):
    for _ in range(FLYING):
        sender.submit("respond", CALL, None)
    sender.fresh, before = 60, eth.asked
    for flight in sender.flights:
        assert sender.look(flight) is None
    assert eth.asked == before + 1


def test_what_a_node_says_of_its_newest_block_holds_for_transactions(eth):
    """Whoever has seen a block and waits for the next must not miss what came in with it."""
    node = Node(SimpleNamespace(eth=eth), SimpleNamespace(address="me", sign=KEY.sign))
    node._sender().fresh = 60
    with node.flying(eth.time + HOUR), pytest.raises(Pending) as e:
        node.send("respond", CALL)
    assert node.land(e.value.flight) is None
    eth.mine()
    eth.count = 1
    eth.receipts = {e.value.flight.hashes[0]: {"status": 1, "contractAddress": None, "gasUsed": 5,
                                               "blockNumber": 101, "transactionHash": b"h"}}  # fmt: skip
    assert node.land(e.value.flight) is None  # it has not looked
    assert node.head()[0] == 101
    assert node.land(e.value.flight).gas == 5


def test_numbers_are_in_a_row_and_gaps_are_filled(eth, sender):
    a, b, c = (sender.submit(x, CALL, None) for x in "abc")
    assert [f.tx["nonce"] for f in (a, b, c)] == [0, 1, 2]
    eth.receipts = {a.hashes[0]: {}, b.hashes[0]: {}}
    eth.count = 2
    assert sender.look(a) == sender.look(b) == {}
    eth.count = 0  # a reorganisation: c waits for two that are gone
    again = [sender.submit(x, CALL, None).tx["nonce"] for x in "abd"]
    assert again == [0, 1, 3]


def test_a_receipt_that_comes_after_its_block(eth, sender):
    flight = sender.submit("respond", CALL, None)
    eth.count = 1
    assert sender.look(flight) is None
    assert sender.flights == [flight]
    eth.receipts = {flight.hashes[0]: "its receipt"}
    assert sender.look(flight) == "its receipt"


def test_another_with_the_same_number(eth, sender, monkeypatch):
    monkeypatch.setattr(transactions, "LATE", 0)
    flight = sender.submit("respond", CALL, None)
    eth.count = 1
    with pytest.raises(ChainError, match="respond: another transaction of this account came first"):
        sender.look(flight)
    assert sender.flights == []


def test_a_node_that_does_not_answer_loses_nothing(eth):
    node = Node(SimpleNamespace(eth=eth), SimpleNamespace(address="me", sign=KEY.sign))
    node._sender().fresh = 0
    with node.flying(eth.time + HOUR), pytest.raises(Pending) as e:
        node.send("respond", CALL)
    flight, look = e.value.flight, eth.get_block
    eth.get_block = lambda which: (_ for _ in ()).throw(OSError("gone"))
    with pytest.raises(ChainError, match="gone"):
        node.land(flight)
    assert node.flights == [flight]
    assert node.land(flight, patient=True) is None
    eth.get_block = look
    eth.count = 1
    eth.receipts = {flight.hashes[0]: {"status": 1, "contractAddress": None, "gasUsed": 5, "blockNumber": 101,
                                       "transactionHash": b"h"}}  # fmt: skip
    assert node.land(flight).gas == 5
    assert (node.flights, len(node.receipts)) == ([], 1)


def test_what_flies_is_its_senders_to_wait_for():
    """Were it taken for done because a block has it meanwhile, nobody would look for its receipt."""
    asked, flight = [], SimpleNamespace(what="respond")

    def send(what, call):
        raise Pending(flight)

    def done():
        asked.append(1)
        return len(asked) > 1

    court = object.__new__(Court)
    court.node = SimpleNamespace(send=send, ask=lambda call: call())
    court._court = SimpleNamespace(functions=SimpleNamespace(respond=lambda: None))
    with pytest.raises(Pending):
        court._do(done, "respond")
    assert asked == [1]
