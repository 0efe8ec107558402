"""Which connections a server keeps: bounded in number and in time, so that nobody else's cost a request.

A connection that waits (for a request, for its body, for its answer to be read) has a deadline. When there are
too many, the host with the most waiting ones loses the oldest of them; one whose move is computed is kept.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 512  # connections at a time, where the limit of open files lets them
REQUEST_SECONDS = 30.0  # for a whole request, and for reading an answer

Peer = tuple[Any, ...]


@dataclass
class _Connection:
    transport: asyncio.Transport
    host: str
    timer: asyncio.TimerHandle | None = None


@dataclass
class Connections:
    """The open connections of a server, by their peer's address; those that wait, oldest first."""

    most: int = MOST
    seconds: float = REQUEST_SECONDS
    _waiting: dict[Peer, _Connection] = field(default_factory=dict)
    _busy: dict[Peer, _Connection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files != resource.RLIM_INFINITY:
            self.most = max(1, min(self.most, files // 2))

    def made(self, peer: Peer, transport: asyncio.Transport) -> None:
        """A new connection; another one may have to go."""
        self._wait(peer, _Connection(transport, str(peer[0])))
        if len(self._waiting) + len(self._busy) > self.most:
            counts = Counter(c.host for c in self._waiting.values())
            (host, _) = counts.most_common(1)[0]
            self._drop(next(p for p, c in self._waiting.items() if c.host == host))

    def lost(self, peer: Peer) -> None:
        for group in (self._waiting, self._busy):
            c = group.pop(peer, None)
            if c is not None and c.timer is not None:
                c.timer.cancel()

    def busy(self, peer: Peer) -> None:
        """Its request is here and is worked on: it does not wait any more."""
        c = self._waiting.pop(peer, None)
        if c is not None:
            if c.timer is not None:
                c.timer.cancel()
            self._busy[peer] = c

    def waits(self, peer: Peer) -> None:
        """Its answer is made; it has to be read."""
        c = self._busy.pop(peer, None)
        if c is not None:
            self._wait(peer, c)

    def _wait(self, peer: Peer, c: _Connection) -> None:
        self._waiting[peer] = c
        c.timer = asyncio.get_running_loop().call_later(self.seconds, self._drop, peer)

    def _drop(self, peer: Peer) -> None:
        c = self._waiting.get(peer)
        self.lost(peer)
        if c is not None:
            c.transport.abort()


def guarded(connections: Connections) -> type[H11Protocol]:
    """HTTP on connections that are counted."""

    class Guarded(H11Protocol):
        _peer: Peer = ()

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._peer = self.client or ("", id(self))
            connections.made(self._peer, transport)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.lost(self._peer)
            super().connection_lost(exc)

    return Guarded
