"""Contracts on a node, called as `evm.Contract` calls them in memory: no client in between, so that tests may
send what no client would."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from eth_utils.crypto import keccak

from ree.settlement.compile import Compiled
from ree.settlement.embedded import Embedded
from ree.settlement.keys import Key, role_key
from ree.settlement.testing.anvil import Anvil
from ree.settlement.testing.evm import Reverted, abi_type

GAS = 16_000_000  # of a transaction: below the cap of the network
PRICE = 10**10  # wei: above what a block asks for
DEPLOYER = "deployer"
NAMED = {"post": 1, "open_challenge": 2, "confront": 2}  # the topic of their event that they return


class NodeChain:
    """A chain behind JSON-RPC, with `now` set by hand: the timestamp of the block that the next call is in."""

    def __init__(self, control: Embedded | Anvil) -> None:
        self.control, self.web3 = control, control.web3
        self.chain_id = int(self.web3.eth.chain_id)
        self._now = 0
        self._keys: dict[str, Key] = {}
        self.know(DEPLOYER)

    def know(self, *names: str) -> None:
        """Roles that may send, with ether."""
        for name in names:
            if role_key(name).address in self._keys:
                continue
            node = self.control.account(name)
            assert node.key is not None  # of a role
            self._keys[node.account] = node.key

    @property
    def now(self) -> int:
        return max(self._now, self.control.now + 1)

    @now.setter
    def now(self, seconds: int) -> None:
        self._now = seconds

    def snapshot(self) -> Any:
        """A point to come back to with `revert`, once."""
        return self.control.snapshot(), self._now, dict(self._keys)

    def revert(self, snapshot: Any) -> None:
        self.control.revert(snapshot[0])
        self._now, self._keys = snapshot[1:]

    def deploy(self, compiled: Compiled, *args: Any) -> NodeContract:
        """A contract, constructed with arguments."""
        made = self.web3.eth.contract(abi=list(compiled.abi), bytecode=compiled.creation)
        data = made.constructor(*args).data_in_transaction
        receipt = self.transact(role_key(DEPLOYER).address, None, bytes.fromhex(data[2:]))
        return NodeContract(self, compiled, receipt["contractAddress"])

    def transact(self, by: str, to: str | None, data: bytes, **fields: Any) -> Any:
        """Receipt of a transaction in a block at `now`. Reverted if it fails."""
        eth, key = self.web3.eth, self._keys[by]
        tx = {
            "nonce": eth.get_transaction_count(by), "gas": GAS, "gasPrice": PRICE, "value": 0,
            "data": data, "chainId": self.chain_id, **({"to": to} if to else {}), **fields,
        }  # fmt: skip
        return self.submit(key.sign(tx), {"from": by, "data": data, **({"to": to} if to else {})})

    def submit(self, raw: bytes, call: Mapping[str, Any]) -> Any:
        """Receipt of a signed transaction in a block at `now`; `call` is what is repeated for the reason of a
        failure."""
        eth = self.web3.eth
        self.control.next_at(self.now)
        receipt = eth.wait_for_transaction_receipt(eth.send_raw_transaction(raw), poll_latency=0.01)
        if receipt["status"] != 1:
            try:
                eth.call({**call, "gas": GAS}, receipt["blockNumber"])
            except Exception as e:  # web3 and eth-tester share no base
                raise Reverted(reason(e)) from e
            raise Reverted("for no reason that a second look shows")
        return receipt


class NodeContract:
    """A contract on a node."""

    def __init__(self, chain: NodeChain, compiled: Compiled, address: str) -> None:
        self.chain, self.address = chain, address
        self._made = chain.web3.eth.contract(address=address, abi=list(compiled.abi))
        self._functions = {f["name"]: f for f in compiled.abi if f["type"] == "function"}

    def call(self, name: str, *args: Any, by: str | None = None) -> Any:
        """What a view gives. Of a transaction, the name that its last event bears. Reverted if it reverts."""
        sender, data = by or role_key(DEPLOYER).address, self._data(name, *args)
        if self._functions[name]["stateMutability"] in ("view", "pure"):
            function = getattr(self._made.functions, name)
            try:
                return function(*map(_checksum, args)).call({"from": sender, "gas": GAS})
            except Exception as e:
                raise Reverted(reason(e)) from e
        receipt = self.chain.transact(sender, self.address, data)
        return bytes(receipt["logs"][-1]["topics"][NAMED[name]]) if name in NAMED else None

    def encode(self, name: str, *args: Any) -> bytes:
        """Arguments as the contract reads them, without the selector."""
        return self._data(name, *args)[4:]

    def selector(self, name: str) -> bytes:
        inputs = ",".join(map(abi_type, self._functions[name]["inputs"]))
        return bytes(keccak(text=f"{name}({inputs})")[:4])

    def _data(self, name: str, *args: Any) -> bytes:
        data = self._made.encode_abi(name, [_checksum(a) for a in args])
        return bytes.fromhex(data[2:])


def _checksum(value: Any) -> Any:
    """Addresses as web3 wants them, inside tuples too."""
    from eth_utils.address import is_hex_address, to_checksum_address

    if isinstance(value, tuple | list):
        return type(value)(map(_checksum, value))
    return to_checksum_address(value) if isinstance(value, str) and is_hex_address(value) else value


def reason(e: Exception) -> str:
    """The text of `assert x, "text"` in what a node says of a call that reverts."""
    text = str(e.args[0] if e.args else e).removeprefix("execution reverted: ")
    found = re.search(r"[a-z]+: [^'\"]*[^'\" .]", text)
    return found[0] if found else text
