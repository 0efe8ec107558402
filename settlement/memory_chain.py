"""A chain in memory that runs contracts: rehearsals play on it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ree.settlement.compile import Compiled

CALLER = "0x" + "11" * 20
GAS = 10**12  # more than a block's, so that thousands of cases fit in a call
START = 1_800_000_000  # seconds


class Reverted(Exception):
    """The contract reverted; the message is its reason, if it gave one."""


class MemoryChain:
    """Contracts that see each other, and a clock that is set by hand."""

    def __init__(self, now: int = START) -> None:
        from pyrevm import EVM

        self.evm = EVM(spec_id="PRAGUE", gas_limit=GAS)
        self.now = now

    @property
    def now(self) -> int:
        """Timestamp of the block that the next call is in, in seconds."""
        return self._now

    @now.setter
    def now(self, seconds: int) -> None:
        from pyrevm import BlockEnv

        self._now = seconds
        self.evm.set_block_env(BlockEnv(timestamp=seconds, gas_limit=GAS))


class Contract:
    """A deployed contract: `contract.call("name", ...)` encodes, executes and decodes."""

    def __init__(
        self, compiled: Compiled, *args: Any, beside: Contract | MemoryChain | None = None
    ) -> None:
        """args: of the constructor. beside: the chain, or a contract on it, where this one is deployed."""
        from eth_abi import encode

        beside = beside or MemoryChain()
        self._evm: Any = beside._evm if isinstance(beside, Contract) else beside.evm
        made: Mapping[str, Any] = next(
            (f for f in compiled.abi if f["type"] == "constructor"), {"inputs": []}
        )
        code = compiled.creation + encode([abi_type(i) for i in made["inputs"]], args)
        try:
            self.address = str(self._evm.deploy(CALLER, code))
        except RuntimeError as e:
            raise Reverted(_reason(str(e))) from e
        self._functions = {f["name"]: f for f in compiled.abi if f["type"] == "function"}

    @property
    def names(self) -> list[str]:
        """The external functions."""
        return list(self._functions)

    def call(self, name: str, *args: Any, by: str = CALLER) -> Any:
        """Result of an external function; a tuple if it has several, None if it has none.
        Reverted if it reverts."""
        data = self.call_raw(name, self.encode(name, *args), by)
        from eth_abi import decode

        out = decode([abi_type(o) for o in self._functions[name]["outputs"]], data)
        return (out[0] if len(out) == 1 else out) if out else None

    def encode(self, name: str, *args: Any) -> bytes:
        """Arguments as the contract reads them, without the selector."""
        from eth_abi import encode

        return bytes(encode([abi_type(i) for i in self._functions[name]["inputs"]], args))

    def call_raw(self, name: str, arguments: bytes, by: str = CALLER) -> bytes:
        """Returned bytes for encoded arguments. Reverted if the call reverts."""
        try:
            data = self._evm.message_call(
                by, self.address, calldata=self.selector(name) + arguments, gas=GAS
            )
        except RuntimeError as e:
            raise Reverted(_reason(str(e))) from e
        return bytes(data)

    @property
    def gas(self) -> int:
        """Gas of the last call, with the transaction around it, before refunds."""
        return int(self._evm.result.gas_used)

    def selector(self, name: str) -> bytes:
        from eth_utils.crypto import keccak

        types = ",".join(map(abi_type, self._functions[name]["inputs"]))
        return bytes(keccak(text=f"{name}({types})")[:4])


def abi_type(item: Mapping[str, Any]) -> str:
    """The type of an argument, tuples written out."""
    kind: str = item["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(map(abi_type, item['components']))}){kind.removeprefix('tuple')}"


def _reason(message: str) -> str:
    """The text of `assert x, "text"`; otherwise what the machine says (out of gas, no reason)."""
    from eth_abi import decode

    found = re.search(r"output: 0x08c379a0([0-9a-f]+)", message)
    return str(decode(["string"], bytes.fromhex(found[1]))[0]) if found else message
