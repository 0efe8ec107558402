"""Transactions on their way into a block: offered, outbid, waited for."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ree.errors import ChainError
from ree.settlement.keys import Key

PATIENCE = 1  # blocks that a transaction may miss before it offers more
GAS_CAP = 1 << 24  # of a transaction, EIP-7825
BIDS = 16  # a replacement must offer more each time
FEES = ("gasPrice", "maxFeePerGas", "maxPriorityFeePerGas")
FLYING = 16  # of an account at a time: what nodes keep at least
LATE = 3.0  # seconds after which a receipt that is not known is none
FRESH = 0.2  # seconds for which the newest block is not asked for again
# The base fee grows by an eighth a block at most. What is offered bears the growth of so many blocks: few while
# there is an hour, most when there is no time for another offer. What is not needed is not paid.
CALM, URGENT, HOUR = 6, 50, 3600


class Pending(ChainError):
    """A transaction that the node has and no block yet."""

    def __init__(self, flight: Flight) -> None:
        super().__init__(f"{flight.what}: in no block yet")
        self.flight = flight


@dataclass(eq=False)
class Flight:
    """A transaction on its way. by: the time by which it must be in a block, if there is one; seen: the block
    in which it was last offered."""

    what: str
    tx: dict[str, Any]
    by: int | None
    hashes: list[bytes] = field(default_factory=list)
    seen: int = -1
    missed: float | None = None  # when its number was first taken and its receipt not known


@dataclass(frozen=True)
class _Head:
    """What the newest block says."""

    number: int
    hash: bytes
    time: int
    base: int | None  # fee; None on chains without


class Sender:
    """The transactions of one account on a node, each with a number of its own."""

    def __init__(self, eth: Any, key: Key, gas: int | None) -> None:
        """gas: limit of a transaction, where the node shall not estimate it."""
        self.eth, self.key, self.gas = eth, key, gas
        self.flights: list[Flight] = []
        self.fresh = FRESH
        self._until, self._newest = 0.0, _Head(-1, b"", 0, None)
        self._known: dict[str, Any] = {}  # answers of the node as of the newest block

    def submit(self, what: str, call: Any, by: int | None) -> Flight:
        """Sign and send. A transaction of this account that waits for a block from before a restart is waited
        for, if it is the same, or outbid."""
        self.forget()
        eth, head = self.eth, self._head()
        number, taken = self._count(), {f.tx["nonce"] for f in self.flights}
        while number in taken:  # where a reorganisation has left a gap it is filled
            number += 1
        fields = {"from": self.key.address, "nonce": number, "chainId": eth.chain_id}
        if head.base is not None:
            tip = int(eth.max_priority_fee)
            fields |= {"maxFeePerGas": 2 * head.base + tip, "maxPriorityFeePerGas": tip}
        # either way the node runs it first: a refusal costs nothing
        if self.gas is None:
            tx = call.build_transaction(fields)
            tx["gas"] = min(tx["gas"] * 5 // 4, GAS_CAP)  # another block may make it dearer
        else:
            tx = call.build_transaction({**fields, "gas": self.gas})
            eth.call(tx)
        flight = Flight(what, tx, by, seen=head.number)
        if head.base is not None:
            tx["maxFeePerGas"] = max(tx["maxFeePerGas"], self._bearable(flight, head))
        self._enter(flight)
        self.flights.append(flight)
        self.forget()  # where a transaction is a block, there is another
        return flight

    def _enter(self, flight: Flight) -> None:
        """The node takes it, whatever it must offer to replace one from before a restart."""
        from eth_utils.crypto import keccak

        for _ in range(BIDS):
            raw = self.key.sign(flight.tx)
            try:
                flight.hashes.append(bytes(self.eth.send_raw_transaction(raw)))
                return
            except Exception as e:
                if re.search("already (known|imported)", str(e)):
                    flight.hashes.append(bytes(keccak(raw)))
                    return
                if "underpriced" not in str(e):
                    raise
                flight.tx.update(_more(flight.tx))
        raise ChainError("another transaction of this account waits for a block at a higher price")

    def look(self, flight: Flight) -> Any:
        """Receipt of a transaction, or None while no block has it; then it offers more, where it must.
        ChainError where another of this account has its number: it flies no more."""
        self._head()
        if self._count() <= flight.tx["nonce"]:
            self._offer_more(flight)
            return None
        found = self._receipt(flight)
        if found is None:  # a node may count a block whose receipts it does not have yet
            flight.missed = flight.missed or time.monotonic()
            if time.monotonic() < flight.missed + LATE:
                return None
        self.drop(flight)
        if found is None:
            raise ChainError(f"{flight.what}: another transaction of this account came first")
        return found

    def drop(self, flight: Flight) -> None:
        """Wait for it no more."""
        if flight in self.flights:
            self.flights.remove(flight)

    def _receipt(self, flight: Flight) -> Any:
        from web3.exceptions import TransactionNotFound

        for h in reversed(flight.hashes):
            try:
                return self.eth.get_transaction_receipt(h)
            except TransactionNotFound:
                pass
        return None

    def _offer_more(self, flight: Flight) -> None:
        """Where the base fee is too high for it, or dearer ones were taken before it; else send it again, for a
        node that has forgotten it."""
        head, tx = self._head(), flight.tx
        cheap = head.base is not None and head.base > tx.get("maxFeePerGas", head.base)
        if head.number <= flight.seen + (0 if cheap else PATIENCE):
            return
        flight.seen = head.number
        tip, paid = tx.get("maxPriorityFeePerGas", 0), self._tip()
        outbid = paid is None or paid >= tip
        if cheap or outbid:
            tx.update(_more(tx))
        if (cheap or outbid) and "maxFeePerGas" in tx:
            if outbid and paid is not None:  # above what others pay at once, if there is a hurry
                most = 2 * tip if _left(flight, head) > HOUR // 2 else self._share(tx)
                tx["maxPriorityFeePerGas"] = max(
                    tx["maxPriorityFeePerGas"], min(paid * 9 // 8, most)
                )
            least = tx["maxPriorityFeePerGas"]
            tx["maxFeePerGas"] = max(tx["maxFeePerGas"], least, self._bearable(flight, head))
        try:
            sent = bytes(self.eth.send_raw_transaction(self.key.sign(tx)))
        except Exception as e:  # it may be in a block by now, or wait at this price
            if cheap and "insufficient" in str(e).lower():
                raise
            return
        if sent not in flight.hashes:
            flight.hashes.append(sent)

    def forget(self) -> None:
        """Ask for the newest block again."""
        self._until = 0.0

    def _ask(self, name: str, call: Callable[[], Any]) -> Any:
        """An answer that holds until there is another block."""
        if name not in self._known:
            self._known[name] = call()
        return self._known[name]

    def _count(self) -> int:
        return int(self._ask("count", lambda: self.eth.get_transaction_count(self.key.address)))

    def _balance(self) -> int:
        return int(self._ask("balance", lambda: self.eth.get_balance(self.key.address)))

    def _head(self) -> _Head:
        if time.monotonic() < self._until:
            return self._newest
        block = self.eth.get_block("latest")
        base = block.get("baseFeePerGas")
        head = _Head(int(block["number"]), bytes(block["hash"]), int(block["timestamp"]),
                     None if base is None else int(base))  # fmt: skip
        if head != self._newest or not self._until:
            self._newest, self._known = head, {}
        self._until = time.monotonic() + self.fresh
        return head

    def _tip(self) -> int | None:
        """What the dearest tenth of the newest block has paid on top, at least; None if it is not known."""
        try:
            told = self._ask("tips", lambda: self.eth.fee_history(1, "latest", [90]))
            return int(told["reward"][-1][0])
        except Exception:  # nodes that do not keep it
            return None

    def _bearable(self, flight: Flight, head: _Head) -> int:
        """The most that a transaction should offer for gas by the time left, and that the account can: a part
        of its ether, since nodes count all of an account together."""
        assert head.base is not None  # asked for where there is one
        blocks = URGENT - (URGENT - CALM) * min(max(_left(flight, head), 0), HOUR) // HOUR
        tip = int(flight.tx["maxPriorityFeePerGas"])
        grown = int(head.base * 9**blocks // 8**blocks)
        return min(grown + tip, self._share(flight.tx))

    def _share(self, tx: dict[str, Any]) -> int:
        """What a part of the account's ether is for each gas."""
        return self._balance() // FLYING // int(tx["gas"])


def _left(flight: Flight, head: _Head) -> int:
    """Seconds until it must be in a block; of what has no deadline, half an hour."""
    return HOUR // 2 if flight.by is None else flight.by - head.time


def _more(tx: dict[str, Any]) -> dict[str, int]:
    """A quarter more: nodes want a tenth."""
    return {k: tx[k] * 5 // 4 + 1 for k in FEES if k in tx}
