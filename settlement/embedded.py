"""A chain inside this process (eth-tester on py-evm), for demonstrations and tests: no node, no network."""

from __future__ import annotations

from typing import Any

from ree.errors import PlatformError
from ree.settlement.keys import Key, role_key
from ree.settlement.node import Node, plain

ETHER = 10**18
BEGIN = 2**32  # seconds: ahead of the machine's clock, which py-evm would follow otherwise
GAS = 16_000_000  # of a transaction: below the 2^24 that the network allows


class Embedded:
    """A chain, and accounts with ether on it. Each transaction is a block."""

    name = "embedded"

    def __init__(self) -> None:
        try:
            from eth_tester import EthereumTester, PyEVMBackend
            from web3 import EthereumTesterProvider, Web3
        except ImportError as e:
            raise PlatformError(
                f"the embedded chain needs '{e.name}'", "pip install 'ree-ml[settlement]'"
            ) from e
        self.web3: Any = plain(
            Web3(EthereumTesterProvider(tester := EthereumTester(PyEVMBackend())))
        )
        self._tester: Any = tester
        self.wait_until(BEGIN)

    def account(self, name: str) -> Node:
        """A node with a key made from a name, and 100 ether."""
        key = role_key(name)
        eth = self.web3.eth
        eth.send_transaction({"from": eth.accounts[0], "to": key.address, "value": 100 * ETHER})
        return self.connect(key)

    def connect(self, key: Key | None) -> Node:
        """A client of this chain."""
        return Node(self.web3, key, gas=GAS)

    @property
    def now(self) -> int:
        """Timestamp of the latest block."""
        return int(self.web3.eth.get_block("latest")["timestamp"])

    def next_at(self, timestamp: int) -> None:
        """The next block is to have this timestamp; one that has passed is no error."""
        if timestamp > self.now + 1:  # one second later is what it has anyway
            self._tester.time_travel(timestamp)

    def wait_until(self, timestamp: int) -> None:
        """Mine a block at a time in the future; one that has passed is no error."""
        if timestamp > self.now:
            self._tester.time_travel(timestamp)
            self._tester.mine_block()

    def snapshot(self) -> Any:
        """A point to come back to with `revert`."""
        return self._tester.take_snapshot()

    def revert(self, snapshot: Any) -> None:
        self._tester.revert_to_snapshot(snapshot)

    def drop(self, blocks: int) -> None:
        """Put empty blocks in the place of the newest."""
        kept = self.web3.eth.block_number - blocks
        self._tester.backend.revert_to_snapshot(bytes(self.web3.eth.get_block(kept)["hash"]))
        self._tester.mine_blocks(blocks)
