"""Events of a contract: asked for by topic, and each block once unless the chain is reorganised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ree.errors import ChainError
from ree.settlement.node import Node

SETTLED = 64  # blocks that a reorganisation may move an event back, at most


@dataclass
class _Log:
    """Events of some topics, each with its block; `last` and `mark`: the newest block read, and its hash."""

    first: int
    found: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list)
    last: int = -1
    mark: bytes = b""

    def __post_init__(self) -> None:
        self.last = self.first - 1


def _topic(value: Any) -> bytes:
    """An indexed argument, a hash or an address, as a topic."""
    raw = bytes(value) if isinstance(value, bytes) else bytes.fromhex(value[2:])
    return raw.rjust(32, b"\0")


class Events:
    """Events of the Court at an address, from the block `since` on."""

    def __init__(self, node: Node, contract: Any, address: str, since: int) -> None:
        self.node, self.address, self.since = node, address, since
        self._topics = node.topics(contract)
        self._logs: dict[tuple[Any, ...], _Log] = {}  # by topics
        self._born: dict[bytes, int] = {}  # blocks of jobs and disputes

    def of(self, name: str, **arguments: Any) -> list[Mapping[str, Any]]:
        """Arguments of events by name and value, oldest first. The node is asked for these alone, however many
        others there are."""
        topic, event = next((t, e) for t, e in self._topics.items() if e.event_name == name)
        indexed = [i["name"] for i in event.abi["inputs"] if i["indexed"]]
        topics = [topic, *[_topic(arguments[i]) if i in arguments else None for i in indexed]]
        while topics[-1] is None:
            topics.pop()
        log = self._logs.setdefault(tuple(topics), _Log(self._first(arguments)))
        found = [a for _, a in self._read(log, topics, event)]
        return [a for a in found if all(a[k] == v for k, v in arguments.items())]

    def _first(self, arguments: Mapping[str, Any]) -> int:
        """The block to look from: nothing about a job or a dispute is older than itself."""
        for name in ("dispute", "job"):
            if name in arguments and (at := self._born.get(bytes(arguments[name]))) is not None:
                return max(self.since, at - SETTLED)
        return self.since

    def _read(
        self, log: _Log, topics: list[Any], event: Any
    ) -> list[tuple[int, Mapping[str, Any]]]:
        """Events with topics, and their blocks."""
        node, (newest, mark) = self.node, self.node.head()
        if (newest, mark) == (log.last, log.mark):
            return log.found
        if log.mark and node.block(log.last) != log.mark:
            log.found, log.last, log.mark = [], log.first - 1, b""
        if newest > log.last:
            logs = node.logs(self.address, topics, log.last + 1, newest)
            if node.block(newest) != mark:
                raise ChainError("the chain is being reorganised; try again")
            new = node.ask(
                lambda: [(int(x["blockNumber"]), event.process_log(x)["args"]) for x in logs]
            )
            log.found, log.last, log.mark = [*log.found, *new], newest, mark
            for at, a in new:
                if event.event_name in ("Posted", "Opened"):
                    self._born[bytes(a["dispute" if event.event_name == "Opened" else "job"])] = at
        return log.found
