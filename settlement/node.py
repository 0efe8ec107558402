"""A connection to an Ethereum node: the only code that speaks RPC. Needs the extra `settlement`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ree.errors import ChainError
from ree.settlement.keys import Key

TIMEOUT = 30.0  # seconds for an answer of the node
MAX_ANSWER = 64 << 20  # bytes of it
RANGE = 1 << 20  # blocks that one question for logs spans at most; nodes limit it, or the answer
MINED = 180.0  # seconds until a transaction must be in a block
POLL = 0.1  # seconds between two looks for it
PATIENCE = 1  # blocks that a transaction may miss before it offers more
GAS_CAP = 1 << 24  # of a transaction, EIP-7825
BIDS = 16  # a replacement must offer more each time
NOBODY = "0x" + "00" * 20
FEES = ("gasPrice", "maxFeePerGas", "maxPriorityFeePerGas")


@lru_cache(maxsize=1)
def interfaces() -> dict[str, Any]:
    """ABIs of court, referee and token; `python -m ree.settlement.interfaces` writes them."""
    out: dict[str, Any] = json.loads((Path(__file__).parent / "interfaces.json").read_text())
    return out


@dataclass(frozen=True)
class Receipt:
    """A transaction that is in a block; gas is what it used."""

    function: str
    gas: int
    block: int
    hash: str


class Node:
    """A connection to a node, with or without a key to sign with."""

    def __init__(self, web3: Any, key: Key | None = None, gas: int | None = None) -> None:
        """gas: limit of a transaction, where the node shall not estimate it."""
        self.web3, self.key, self.gas = web3, key, gas
        self.receipts: list[Receipt] = []
        self._span = RANGE

    @classmethod
    def connect(cls, url: str, key: Key | None = None) -> Node:
        """A node over HTTP; ChainError if it does not answer."""
        from web3 import Web3

        if not re.match(r"https?://", url):
            raise ChainError(f"rpc: expected an http or https URL, got '{url[:60]}'")
        how = {"timeout": TIMEOUT}
        provider = Web3.HTTPProvider(
            url, how, session=_session(), exception_retry_configuration=None
        )
        node = cls(plain(Web3(provider)), key)
        node.ask(lambda: node.web3.eth.chain_id)
        return node

    @property
    def account(self) -> str:
        """The address that signs."""
        if self.key is None:
            raise ChainError("no key", "name a file with --key, or set REE_KEY")
        return self.key.address

    def view(self, function: Any) -> Any:
        """Result of a contract's function, called and not sent."""
        caller = self.key.address if self.key else NOBODY
        return self.ask(lambda: function().call({"from": caller}))

    @property
    def chain_id(self) -> int:
        return int(self.ask(lambda: self.web3.eth.chain_id))

    @property
    def now(self) -> int:
        """Timestamp of the latest block, in seconds."""
        return int(self.ask(lambda: self.web3.eth.get_block("latest"))["timestamp"])

    @property
    def newest(self) -> int:
        """Number of the latest block."""
        return int(self.ask(lambda: self.web3.eth.block_number))

    def head(self) -> tuple[int, bytes]:
        """Number and hash of the latest block."""
        block = self.ask(lambda: self.web3.eth.get_block("latest"))
        return int(block["number"]), bytes(block["hash"])

    def block(self, number: int) -> bytes:
        """Hash of a block; empty if there is none."""
        from web3.exceptions import BlockNotFound

        try:
            return bytes(self.web3.eth.get_block(number)["hash"])
        except BlockNotFound:
            return b""
        except Exception as e:
            raise ChainError(_line(e)) from e

    def logs(self, address: str, topics: list[Any], first: int, last: int) -> list[Any]:
        """Logs of a contract with topics in a range of blocks, both ends included: in one question, or in as
        many as the node needs, each of half the blocks. ChainError if it does not answer about one block."""
        out: list[Any] = []
        start = max(first, 0)
        while start <= last:
            end = min(start + self._span - 1, last)
            asked = {"address": address, "topics": topics, "fromBlock": start, "toBlock": end}
            try:
                out += self.ask(partial(self.web3.eth.get_logs, asked))
            except ChainError as e:
                if end == start or "(ConnectionError)" in e.message:
                    raise
                self._span = (end - start + 1) // 2
            else:
                start = end + 1
                self._span = min(2 * self._span, RANGE)
        return out

    def topics(self, contract: Any) -> dict[bytes, Any]:
        """A contract's events by their first topic."""
        from eth_utils.abi import event_abi_to_log_topic

        events = (e() for e in contract.events)
        return {bytes(event_abi_to_log_topic(e.abi)): e for e in events}

    def ask(self, call: Callable[[], Any]) -> Any:
        """What a call gives; its failures as one line."""
        try:
            return call()
        except ChainError:
            raise
        except Exception as e:  # web3, its transports and eth-tester share no base
            raise ChainError(_line(e)) from e

    def contract(self, name: str, address: str) -> Any:
        """A deployed contract by the name of its interface; ChainError where there is none."""
        where = checksum(address)
        if not self.ask(lambda: self.web3.eth.get_code(where)):
            raise ChainError(f"no contract at {where} on chain {self.chain_id}")
        return self.web3.eth.contract(address=where, abi=interfaces()[name])

    def send(self, what: str, call: Any) -> Receipt:
        """Sign and send a call or a construction, and wait until it is in a block."""
        key, sender = self.key, self.account
        assert key is not None  # `account` has looked

        def go() -> Receipt:
            found = self._included(*self._submit(call, sender, key), key)
            if found["status"] != 1:
                raise ChainError(f"{what}: the transaction failed")
            self.created = found["contractAddress"]
            return Receipt(what, int(found["gasUsed"]), int(found["blockNumber"]),
                           found["transactionHash"].hex())  # fmt: skip

        receipt: Receipt = self.ask(go)
        self.receipts.append(receipt)
        return receipt

    def _included(self, sent: bytes, tx: dict[str, Any], key: Key) -> Any:
        """Receipt of a transaction that the node has. While blocks come without it, it offers more."""
        from web3.exceptions import TransactionNotFound

        eth, hashes, end = self.web3.eth, [sent], time.monotonic() + MINED
        seen: int | None = None
        while True:
            for h in hashes:
                try:
                    return eth.get_transaction_receipt(h)
                except TransactionNotFound:
                    pass
            block = eth.get_block("latest")
            number, base = int(block["number"]), int(block.get("baseFeePerGas") or 0)
            if seen is None:
                seen = number
            cheap = base > tx.get("maxFeePerGas", tx.get("gasPrice", base))
            if number > seen + PATIENCE or (cheap and number > seen):
                seen = number
                raised = {k: tx[k] * 5 // 4 + 1 for k in FEES if k in tx}
                if "maxFeePerGas" in raised:
                    least = 2 * base + raised["maxPriorityFeePerGas"]
                    raised["maxFeePerGas"] = max(raised["maxFeePerGas"], least)
                tx.update(raised)
                try:
                    hashes.append(bytes(eth.send_raw_transaction(key.sign(tx))))
                except Exception as e:  # it may be in a block by now, or wait at this price
                    if "insufficient" in str(e).lower():
                        raise
            if time.monotonic() > end:
                raise ChainError(f"the transaction is in no block after {MINED:.0f} s")
            time.sleep(POLL)

    def _submit(self, call: Any, sender: str, key: Key) -> tuple[bytes, dict[str, Any]]:
        """Hash of the signed transaction, once the node has it, and what was signed. One of this account that
        still waits for a block, from before a restart, is waited for or outbid."""
        from eth_utils.crypto import keccak

        eth = self.web3.eth
        fields = {
            "from": sender,
            "nonce": eth.get_transaction_count(sender),
            "chainId": eth.chain_id,
        }
        # either way the node runs it first: a refusal costs nothing
        if self.gas is None:
            tx = call.build_transaction(fields)
            tx["gas"] = min(tx["gas"] * 5 // 4, GAS_CAP)  # another block may make it dearer
        else:
            tx = call.build_transaction({**fields, "gas": self.gas})
            eth.call(tx)
        for _ in range(BIDS):
            raw = key.sign(tx)
            try:
                return bytes(eth.send_raw_transaction(raw)), tx
            except Exception as e:
                if re.search("already (known|imported)", str(e)):
                    return bytes(keccak(raw)), tx
                if "underpriced" not in str(e):
                    raise
                tx.update({k: v * 5 // 4 + 1 for k, v in tx.items() if k in FEES})
        raise ChainError("another transaction of this account waits for a block at a higher price")

    def deploy(self, compiled: Any, *args: Any) -> str:
        """Address of a new contract."""
        made = self.web3.eth.contract(abi=list(compiled.abi), bytecode=compiled.creation)
        self.send("deploy", self.ask(lambda: made.constructor(*args)))
        return str(self.created)


def plain(web3: Any) -> Any:
    """web3 without names, and without a question for the chain's id before each of ours."""
    for layer in ("ens_name_to_address", "validation"):
        web3.middleware_onion.remove(layer)
    return web3


def _session() -> Any:
    """A session of HTTP that reads answers up to a size and a time."""
    import requests
    from requests.adapters import HTTPAdapter

    class Bounded(HTTPAdapter):  # type: ignore[misc]
        def send(self, request: Any, *args: Any, **how: Any) -> Any:
            end = time.monotonic() + TIMEOUT
            answer = super().send(request, *args, **{**how, "stream": True})
            read = bytearray()
            for piece in answer.iter_content(1 << 16):
                read += piece
                if len(read) > MAX_ANSWER or time.monotonic() > end:
                    answer.close()
                    raise requests.RequestException("too long an answer")
            answer._content = bytes(read)
            return answer

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, Bounded())
    return session


def checksum(address: str) -> str:
    """An address in its usual form; ChainError if it is none."""
    from eth_utils.address import is_address, to_checksum_address

    if not is_address(address):
        raise ChainError(f"expected an address, got '{str(address)[:60]}'")
    return str(to_checksum_address(address))


def _line(e: Exception) -> str:
    """What went wrong, in one line."""
    import requests

    text = " ".join(str(e).split())
    if isinstance(e, requests.exceptions.RequestException):
        return f"the node does not answer ({type(e).__name__})"
    reason = re.search(r"(court|bank|mock|referee|merkle|token): [a-z ,^0-9]+", text)
    if reason:
        return f"the chain refuses: {reason[0]}"
    if "insufficient" in text.lower() or "cannot afford" in text:
        return "the account has too little ether for gas"
    return f"{type(e).__name__}: {text[:200]}"
