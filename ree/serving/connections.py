"""Connections that do not wait for ever: for the head of a request, and for a client that takes nothing in."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = (
    20.0  # from a connection's first byte, or its beginning, to the end of a request's head
)
BODY_SECONDS = 60.0  # from there to the end of the body
IDLE_SECONDS = 75  # between requests
TAKING_SECONDS = 60  # without the client taking in anything of what is sent to it
MOST_FILES = 1 << 16


class Connection(H11Protocol):
    """uvicorn's connection, closed if a request's head, or a body that nobody reads, takes too long."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        state = self.conn.their_state
        unread = state is h11.SEND_BODY and self.cycle is not None and self.cycle.response_complete
        if state is not h11.IDLE and not unread:
            self._forget()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def patient_socket(sock: socket.socket) -> None:
    """Let the system close connections whose client is no longer there or takes nothing in, where it can;
    those that `sock` accepts are alike."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_USER_TIMEOUT", TAKING_SECONDS * 1000),
        ("TCP_KEEPIDLE", TAKING_SECONDS),
    ):
        if hasattr(socket, name):
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def more_files() -> None:
    """Allow as many open files, and so connections, as the system lets a process have."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
