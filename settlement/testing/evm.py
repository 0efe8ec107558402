"""The chain in memory with what tests of any chain ask for: points to come back to, and deployment."""

from __future__ import annotations

from typing import Any

from ree.settlement import memory_chain
from ree.settlement.compile import Compiled
from ree.settlement.memory_chain import CALLER, GAS, START, Contract, Reverted, abi_type

__all__ = ["CALLER", "GAS", "START", "Chain", "Contract", "Reverted", "abi_type"]


class Chain(memory_chain.MemoryChain):
    """As `settlement.testing.nodes` has it for nodes."""

    chain_id = 1

    def know(self, *names: str) -> None:
        """Anyone may send here."""

    def snapshot(self) -> Any:
        """A point to come back to with `revert`, once."""
        return self.evm.snapshot(), self.now

    def revert(self, snapshot: Any) -> None:
        self.evm.revert(snapshot[0])
        self.now = snapshot[1]

    def deploy(self, compiled: Compiled, *args: Any) -> Contract:
        """A contract, constructed with arguments."""
        return Contract(compiled, *args, beside=self)
