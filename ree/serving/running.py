"""A server on a socket, by uvicorn, until it is interrupted."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from ree.errors import PlatformError, ReeError
from ree.serving.app import Server
from ree.serving.connections import IDLE_SECONDS, Connection, more_files, patient_socket

BACKLOG = 1024
GRACE = 30  # seconds that answers under way have to end in once the server is told to stop


def http_config(server: Server, **options: Any) -> uvicorn.Config:
    """How uvicorn serves it: no connection waits for ever."""
    settings: dict[str, Any] = {
        "log_level": "warning",
        "timeout_graceful_shutdown": GRACE,
    } | options
    return uvicorn.Config(
        server.app(), http=Connection, access_log=False, lifespan="on", ws="none", proxy_headers=False,
        timeout_keep_alive=IDLE_SECONDS, h11_max_incomplete_event_size=64 << 10, **settings,
    )  # fmt: skip


def serve(server: Server, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until interrupted; `ready` is called with the URL once connections are accepted.

    PlatformError where nobody can listen; what a model raises when it is loaded ends the server.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    patient_socket(sock)
    more_files()
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except (OSError, OverflowError) as e:
        sock.close()
        raise PlatformError(
            f"cannot listen on {host}:{port}: {getattr(e, 'strerror', None) or e}"
        ) from e
    http = uvicorn.Server(http_config(server))
    failures: list[ReeError] = []

    def stop(e: ReeError) -> None:
        failures.append(e)
        http.should_exit = True

    for service in server.everything.values():
        service.on_failure = stop
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{sock.getsockname()[1]}")
    http.run(sockets=[sock])
    if failures:
        raise failures[0]
