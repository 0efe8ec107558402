"""A chain in memory that runs one contract, for tests and figures."""

from __future__ import annotations

import re
from typing import Any

from ree.settlement.compile import Compiled

CALLER = "0x" + "11" * 20
GAS = 10**12  # more than a block's, so that thousands of cases fit in a call


class Reverted(Exception):
    """The contract reverted; the message is its reason, if it gave one."""


class Contract:
    """A deployed contract: `contract.call("name", ...)` encodes, executes and decodes."""

    def __init__(self, compiled: Compiled, *args: Any, beside: Contract | None = None) -> None:
        """args: of the constructor. beside: a contract on whose chain this one is deployed too."""
        from eth_abi import encode
        from pyrevm import EVM

        self._evm: Any = beside._evm if beside else EVM(spec_id="PRAGUE", gas_limit=GAS)
        makers = [f for f in compiled.abi if f["type"] == "constructor"]
        types = [i["type"] for f in makers for i in f["inputs"]]
        self.address = str(self._evm.deploy(CALLER, compiled.creation + encode(types, args)))
        self._functions = {f["name"]: f for f in compiled.abi if f["type"] == "function"}

    def call(self, name: str, *args: Any) -> Any:
        """Result of an external function; a tuple if it has several. Reverted if it reverts."""
        data = self.call_raw(name, self.encode(name, *args))
        from eth_abi import decode

        out = decode([o["type"] for o in self._functions[name]["outputs"]], data)
        return out[0] if len(out) == 1 else out

    def encode(self, name: str, *args: Any) -> bytes:
        """Arguments as the contract reads them, without the selector."""
        from eth_abi import encode

        return bytes(encode([i["type"] for i in self._functions[name]["inputs"]], args))

    def call_raw(self, name: str, arguments: bytes) -> bytes:
        """Returned bytes for encoded arguments. Reverted if the call reverts."""
        try:
            data = self._evm.message_call(
                CALLER, self.address, calldata=self.selector(name) + arguments, gas=GAS
            )
        except RuntimeError as e:
            raise Reverted(_reason(str(e))) from e
        return bytes(data)

    def selector(self, name: str) -> bytes:
        from eth_utils.crypto import keccak

        types = ",".join(i["type"] for i in self._functions[name]["inputs"])
        return bytes(keccak(text=f"{name}({types})")[:4])


def _reason(message: str) -> str:
    """The text of `assert x, "text"`; otherwise what the machine says (out of gas, no reason)."""
    from eth_abi import decode

    found = re.search(r"output: 0x08c379a0([0-9a-f]+)", message)
    return str(decode(["string"], bytes.fromhex(found[1]))[0]) if found else message
