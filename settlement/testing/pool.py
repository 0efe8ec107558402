"""A node in memory with a pool: a test says when there is a block, at what time, and what it has room for.

The client speaks to it as to any other node."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from eth_account import Account
from eth_account.typed_transactions import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from web3 import Web3
from web3.providers.base import BaseProvider

from ree.settlement.keys import Key, role_key
from ree.settlement.node import Node, checksum, plain
from ree.settlement.testing.evm import START, Chain

ETHER, GWEI = 10**18, 10**9
BLOCK_GAS = 30_000_000
TIP = GWEI
BLOCK = 12  # seconds


@dataclass(frozen=True)
class Waiting:
    """A transaction of the pool. to: empty for a construction; fees in wei for each gas."""

    hash: bytes
    sender: str
    number: int
    to: str
    data: bytes
    gas: int
    most: int
    tip: int


@dataclass(frozen=True)
class Block:
    """A block with what is in it; `before`: how to come back to the state without it."""

    number: int
    hash: bytes
    time: int
    base: int
    before: Any
    used: int = 0
    txs: tuple[Waiting, ...] = ()
    tips: tuple[int, ...] = ()
    receipts: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    logs: tuple[dict[str, Any], ...] = ()


class PoolRefusal(Exception):
    """What the node says no to; `data`: what a contract has returned."""

    def __init__(self, text: str, data: str = "0x") -> None:
        super().__init__(text)
        self.data = data


class Pool:
    """A chain, its pool and its node. auto: each transaction has a block of its own at once."""

    name = "pool"

    def __init__(self, now: int = START) -> None:
        self.chain, self.auto = Chain(now), True
        self.ether: dict[str, int] = {}
        self.numbers: dict[str, int] = {}
        self.waiting: dict[tuple[str, int], Waiting] = {}
        self.salt, self._next = 0, 0
        self.blocks = [Block(0, self._hash(b"", now), now, GWEI, None)]
        self._marks: list[Any] = []
        self._places: dict[bytes, int] = {}  # of transactions in blocks
        self.web3: Any = plain(Web3(_Provider(self)))

    # as the other chains of tests

    def account(self, name: str) -> Node:
        """A node with a key made from a name, and 100 ether."""
        key = role_key(name)
        self.ether[key.address] = 100 * ETHER
        return self.connect(key)

    def connect(self, key: Key | None) -> Node:
        """A client of this node; it asks for the newest block as often as it wants."""
        return Node(self.web3, key)

    @property
    def head(self) -> Block:
        return self.blocks[-1]

    @property
    def now(self) -> int:
        """Timestamp of the latest block."""
        return self.head.time

    def next_at(self, timestamp: int) -> None:
        """The next block is to have this timestamp."""
        self._next = timestamp

    def wait_until(self, timestamp: int) -> None:
        """Mine a block at a time in the future; one that has passed is no error."""
        if timestamp > self.now:
            self.mine(timestamp)

    def snapshot(self) -> Any:
        """A point to come back to with `revert`, as often as one wants."""
        return self._mark(), list(self.blocks), dict(self.waiting), dict(self._places), self.auto

    def revert(self, snapshot: Any) -> None:
        mark, blocks, waiting, places, self.auto = snapshot
        self.blocks, self.waiting, self._places = list(blocks), dict(waiting), dict(places)
        self._next = 0
        self._back(mark)
        self._marks.append(self.chain.evm.snapshot())  # to come back again

    # blocks

    def mine(
        self, timestamp: int = 0, *, room: int = BLOCK_GAS, out: Collection[str] = ()
    ) -> Block:
        """A block at a time, by default one second later, with room for so much gas, the rest being strangers'.
        out: accounts whose transactions are kept out."""
        time = max(timestamp, self._next, self.now + 1)
        head, self._next, self.salt = self.head, 0, self.salt + 1
        base = _next_base(head)
        block = Block(
            head.number + 1, self._hash(head.hash, time), time, base, self._mark(), BLOCK_GAS - room
        )
        self.chain.now = time
        txs, tips, logs = list[Waiting](), list[int](), list[dict[str, Any]]()
        used, full = block.used, set(out)
        while True:
            able = [t for t in self.waiting.values() if t.sender not in full
                    and t.number == self.numbers.get(t.sender, 0) and t.most >= base]  # fmt: skip
            if not able:
                break
            t = max(able, key=lambda t: (min(t.tip, t.most - base), t.hash))
            if (used + t.gas > BLOCK_GAS and room < BLOCK_GAS) or used + 21_000 > BLOCK_GAS:
                full.add(t.sender)
                continue
            del self.waiting[t.sender, t.number]
            receipt = self._include(block, t, base, len(txs))
            used += int(receipt["gasUsed"], 16)
            for log in receipt["logs"]:
                log["logIndex"] = hex(len(logs))
                logs.append(log)
            txs.append(t)
            tips.append(min(t.tip, t.most - base))
            block.receipts[t.hash] = receipt
            self._places[t.hash] = block.number
        self.blocks.append(
            replace(block, used=used, txs=tuple(txs), tips=tuple(tips), logs=tuple(logs))
        )
        return self.head

    def dearer(self, times: int) -> None:
        """The base fee jumps."""
        self.blocks[-1] = replace(self.head, base=self.head.base * times)

    def drop(self, blocks: int, *, lose: bool = False) -> None:
        """Put empty blocks in the place of the newest; their transactions wait again, or are lost."""
        gone = self.blocks[-blocks:]
        del self.blocks[-blocks:]
        self._back(gone[0].before)
        for b in gone:
            for t in b.txs:
                self._places.pop(t.hash, None)
                if not lose:
                    self.waiting.setdefault((t.sender, t.number), t)
        for b in gone:
            self.mine(b.time, room=0)

    # what happens inside

    def _mark(self) -> tuple[int, dict[str, int], dict[str, int]]:
        self._marks.append(self.chain.evm.snapshot())
        return len(self._marks), dict(self.ether), dict(self.numbers)

    def _back(self, mark: tuple[int, dict[str, int], dict[str, int]]) -> None:
        """The machine takes its snapshots back one by one."""
        while len(self._marks) >= mark[0]:
            self.chain.evm.revert(self._marks.pop())
        self.ether, self.numbers = dict(mark[1]), dict(mark[2])
        self.chain.now = self.now

    def _hash(self, before: bytes, time: int) -> bytes:
        return bytes(keccak(before + time.to_bytes(8, "big") + self.salt.to_bytes(8, "big")))

    def run(self, by: str, to: str, data: bytes, gas: int = BLOCK_GAS) -> bytes:
        """What a call returns, or the address of what it makes. Refused with what the contract says."""
        evm = self.chain.evm
        try:
            if not to:
                return bytes.fromhex(str(evm.deploy(by, data))[2:])
            return bytes(evm.message_call(by, to, calldata=data, gas=gas))
        except RuntimeError as e:
            text = str(e)
            at = text.find("output: 0x")
            raw = "0x" + text[at + 10 :].split()[0].strip("}),") if at >= 0 else "0x"
            reason = (
                bytes.fromhex(raw[138:])[: int(raw[74:138], 16)].decode()
                if len(raw) > 138
                else text[:80]
            )
            raise PoolRefusal(f"execution reverted: {reason}", raw) from e

    @property
    def _result(self) -> Any:
        return self.chain.evm.result

    def _used(self) -> int:
        """Gas of what was run last."""
        return int(self._result.gas_used)

    def look(self, by: str, to: str, data: bytes) -> tuple[bytes, int]:
        """As `run`, and the gas, with nothing changed, at the time of the latest block."""
        mark = self.chain.evm.snapshot()
        self.chain.now = self.now
        try:
            return self.run(by, to, data), self._used()
        finally:
            self.chain.evm.revert(mark)

    def _include(self, block: Block, t: Waiting, base: int, place: int) -> dict[str, Any]:
        made, logs, status = None, list[Any](), 1
        try:
            result = self.run(t.sender, t.to, t.data, t.gas)
            made = None if t.to else checksum("0x" + result.hex())
            logs = list(self._result.logs)
        except PoolRefusal:
            status = 0
        used = min(self._used(), t.gas)
        price = min(t.most, base + t.tip)
        self.ether[t.sender] -= used * price
        self.numbers[t.sender] = t.number + 1
        common = {"transactionHash": "0x" + t.hash.hex(), "transactionIndex": hex(place),
                  "blockHash": "0x" + block.hash.hex(), "blockNumber": hex(block.number)}  # fmt: skip
        return {
            **common, "status": hex(status), "gasUsed": hex(used), "contractAddress": made,
            "from": t.sender, "to": t.to or None, "cumulativeGasUsed": hex(used), "type": "0x2",
            "effectiveGasPrice": hex(price), "logsBloom": "0x" + "00" * 256,
            "logs": [{**common, "address": checksum(x.address), "removed": False,
                      "topics": ["0x" + y.hex() for y in x.data[0]], "data": "0x" + x.data[1].hex()}
                     for x in logs],
        }  # fmt: skip

    def submit(self, raw: bytes) -> bytes:
        """Into the pool."""
        told = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        to = bytes(told["to"])
        t = Waiting(
            bytes(keccak(raw)), str(Account.recover_transaction(raw)), int(told["nonce"]),
            checksum("0x" + to.hex()) if to else "", bytes(told["data"]), int(told["gas"]),
            int(told["maxFeePerGas"]), int(told["maxPriorityFeePerGas"]),
        )  # fmt: skip
        if told["chainId"] != self.chain.chain_id:
            raise PoolRefusal("invalid chain id")
        if t.number < self.numbers.get(t.sender, 0):
            raise PoolRefusal("nonce too low")
        old = self.waiting.get((t.sender, t.number))
        if old is not None and old.hash == t.hash:
            raise PoolRefusal("already known")
        if old is not None and (10 * t.most < 11 * old.most or 10 * t.tip < 11 * old.tip):
            raise PoolRefusal("replacement transaction underpriced")
        rest = sum(
            w.gas * w.most for w in self.waiting.values() if w.sender == t.sender and w is not old
        )
        if rest + t.gas * t.most > self.ether.get(t.sender, 0):
            raise PoolRefusal("insufficient funds for gas * price + value")
        self.waiting[t.sender, t.number] = t
        if self.auto:
            self.mine()
        return t.hash

    def send(
        self, by: str, to: str, data: bytes, *, gas: int = 1_000_000, tip: int = 3 * TIP
    ) -> None:
        """Into the pool without a signature, at a price that a block takes: what no client would send."""
        number = self.numbers.get(by, 0)
        while (by, number) in self.waiting:
            number += 1
        digest = bytes(
            keccak(by.encode() + number.to_bytes(8, "big") + data + bytes([self.salt % 256]))
        )
        self.ether.setdefault(by, 10**6 * ETHER)
        self.waiting[by, number] = Waiting(digest, by, number, to, data, gas, 2**100, tip)
        if self.auto:
            self.mine()

    def logs(self, address: str, topics: list[Any], first: int, last: int) -> list[dict[str, Any]]:
        """Logs of a contract in a range of blocks."""
        return [x for b in self.blocks[first : last + 1] for x in b.logs
                if x["address"] == address and len(x["topics"]) >= len(topics)
                and all(w is None or w == h for w, h in zip(topics, x["topics"], strict=False))]  # fmt: skip

    def receipt(self, digest: bytes) -> dict[str, Any] | None:
        at = self._places.get(digest)
        return None if at is None else self.blocks[at].receipts.get(digest)


def _next_base(head: Block) -> int:
    """EIP-1559."""
    target = BLOCK_GAS // 2
    change = head.base * abs(head.used - target) // target // 8
    return max(head.base + (max(change, 1) if head.used > target else -change), 7)


class _Provider(BaseProvider):  # type: ignore[misc]
    """JSON-RPC, spoken without a wire."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self._answers: dict[str, Callable[..., Any]] = {
            name: getattr(self, name) for name in dir(type(self)) if name.startswith("eth_")
        }

    def make_request(self, method: Any, params: Any) -> Any:
        head = {"jsonrpc": "2.0", "id": 1}
        try:
            return {**head, "result": self._answers[method](*params)}
        except PoolRefusal as e:
            return {**head, "error": {"code": 3, "message": str(e), "data": e.data}}

    def is_connected(self, show_traceback: bool = False) -> bool:
        return True

    def eth_chainId(self) -> str:
        return hex(self.pool.chain.chain_id)

    def eth_blockNumber(self) -> str:
        return hex(self.pool.head.number)

    def eth_getBlockByNumber(self, which: str, full: bool) -> dict[str, Any] | None:
        pool = self.pool
        number = pool.head.number if which == "latest" else int(which, 16)
        if number >= len(pool.blocks):
            return None
        b = pool.blocks[number]
        return {"number": hex(b.number), "hash": "0x" + b.hash.hex(), "timestamp": hex(b.time),
                "baseFeePerGas": hex(b.base), "gasLimit": hex(BLOCK_GAS), "gasUsed": hex(b.used)}  # fmt: skip

    def eth_call(self, tx: dict[str, Any], which: str = "latest") -> str:
        return "0x" + self._look(tx)[0].hex()

    def eth_estimateGas(self, tx: dict[str, Any], which: str = "latest") -> str:
        return hex(self._look(tx)[1] * 64 // 63 + 5_000)

    def _look(self, tx: dict[str, Any]) -> tuple[bytes, int]:
        by = tx.get("from", "0x" + "11" * 20)
        return self.pool.look(by, tx.get("to") or "", bytes.fromhex(tx.get("data", "0x")[2:]))

    def eth_getCode(self, address: str, which: str) -> str:
        return "0x" + bytes(self.pool.chain.evm.get_code(address) or b"").hex()

    def eth_getTransactionCount(self, address: str, which: str = "latest") -> str:
        return hex(self.pool.numbers.get(checksum(address), 0))

    def eth_getBalance(self, address: str, which: str = "latest") -> str:
        return hex(self.pool.ether.get(checksum(address), 0))

    def eth_maxPriorityFeePerGas(self) -> str:
        return hex(TIP)

    def eth_feeHistory(self, count: str, newest: str, percentiles: list[int]) -> dict[str, Any]:
        head = self.pool.head
        tips = sorted(head.tips)
        tip = tips[len(tips) * 9 // 10] if tips else 0
        return {"oldestBlock": hex(head.number), "reward": [[hex(tip)]], "gasUsedRatio": [0.5],
                "baseFeePerGas": [hex(head.base), hex(_next_base(head))]}  # fmt: skip

    def eth_sendRawTransaction(self, raw: str) -> str:
        return "0x" + self.pool.submit(bytes.fromhex(raw[2:])).hex()

    def eth_getTransactionReceipt(self, digest: str) -> dict[str, Any] | None:
        return self.pool.receipt(bytes.fromhex(digest[2:]))

    def eth_getLogs(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        first, last = (int(asked[k], 16) for k in ("fromBlock", "toBlock"))
        topics = [t if t is None else "0x" + bytes(t).hex() for t in asked["topics"]]
        address = asked["address"]
        where = checksum(address[0] if isinstance(address, list) else address)
        return self.pool.logs(where, topics, first, last)
