"""A connection to an Ethereum node: the only code that speaks RPC. Needs the extra `settlement`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ree.errors import ChainError
from ree.settlement.keys import Key
from ree.settlement.transactions import GAS_CAP, Flight, Pending, Sender

TIMEOUT = 30.0  # seconds for an answer of the node
MAX_ANSWER = 64 << 20  # bytes of it
RANGE = 1 << 20  # blocks that one question for logs spans at most; nodes limit it, or the answer
MINED = 180.0  # seconds until a transaction must be in a block
POLL = 0.1  # seconds between two looks for it
NO_KEY = "no key", "name a file with --key, or set REE_KEY"
NOBODY = "0x" + "00" * 20


@lru_cache(maxsize=1)
def interfaces() -> dict[str, Any]:
    """ABIs of court, referee and token, names in reasons; `python -m ree.settlement.interfaces` writes them."""
    out: dict[str, Any] = json.loads((Path(__file__).parent / "interfaces.json").read_text())
    return out


@dataclass(frozen=True)
class TransactionReceipt:
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
        self.receipts: list[TransactionReceipt] = []
        self._span = RANGE
        self._sending: Sender | None = None
        self._flying = False
        self._by: int | None = None

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
            raise ChainError(*NO_KEY)
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
    def block_gas(self) -> int:
        """Gas of the latest block, at most."""
        return int(self.ask(lambda: self.web3.eth.get_block("latest"))["gasLimit"])

    @property
    def newest(self) -> int:
        """Number of the latest block."""
        return int(self.ask(lambda: self.web3.eth.block_number))

    def head(self) -> tuple[int, bytes]:
        """Number and hash of the latest block."""
        block = self.ask(lambda: self.web3.eth.get_block("latest"))
        if self._sending is not None:
            self._sending.forget()  # what it knows may be of the block before
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

    def send(self, what: str, call: Any) -> TransactionReceipt:
        """Sign and send a call or a construction, and wait until it is in a block; within `flying`, Pending if
        it is not yet."""
        sender = self._sender()
        flight = self.ask(lambda: sender.submit(what, call, self._by))
        end = time.monotonic() + MINED
        while (receipt := self.land(flight, patient=True)) is None:
            if self._flying:
                raise Pending(flight)
            if time.monotonic() > end:
                sender.drop(flight)
                raise ChainError(f"the transaction is in no block after {MINED:.0f} s")
            time.sleep(POLL)
        return receipt

    def land(self, flight: Flight, patient: bool = False) -> TransactionReceipt | None:
        """The receipt of a transaction once it is in a block. ChainError where it failed, and where the node
        does not answer, unless patient."""
        sender = self._sender()
        try:
            found = self.ask(lambda: sender.look(flight))
        except ChainError:
            if patient and flight in sender.flights:
                return None
            raise
        if found is None:
            return None
        if found["status"] != 1:
            raise ChainError(f"{flight.what}: the transaction failed")
        self.created = found["contractAddress"]
        receipt = TransactionReceipt(flight.what, int(found["gasUsed"]), int(found["blockNumber"]),
                          found["transactionHash"].hex())  # fmt: skip
        self.receipts.append(receipt)
        return receipt

    @property
    def flights(self) -> list[Flight]:
        """Transactions that are in no block yet."""
        return [] if self._sending is None else list(self._sending.flights)

    @contextmanager
    def flying(self, by: int) -> Iterator[None]:
        """What is sent is not waited for, and offers by the time that is left until `by`, a timestamp."""
        self._flying, self._by = True, by
        try:
            yield
        finally:
            self._flying, self._by = False, None

    def _sender(self) -> Sender:
        if self._sending is None:
            if self.key is None:
                raise ChainError(*NO_KEY)
            self._sending = Sender(self.web3.eth, self.key, self.gas)
        return self._sending

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
    reason = re.search(rf"\b({'|'.join(interfaces()['reasons'])}): [a-z ,^0-9]+", text)
    if reason:
        return f"the chain refuses: {reason[0]}"
    allowance = re.search(r"gas required exceeds allowance[: (]+(\d+)", text)  # what its ether buys
    poor = allowance is not None and int(allowance[1]) < GAS_CAP
    if poor or "insufficient" in text.lower() or "cannot afford" in text:
        return "the account has too little ether for gas"
    return f"{type(e).__name__}: {text[:200]}"
