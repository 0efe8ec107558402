"""A party over HTTP: GET /statement says what it stands for, POST /move answers a dispute so far.

The server keeps nothing between two requests and may be stopped and started at any time. With a token it
answers nobody who does not bear it.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ree.errors import DisputeError
from ree.verde.connections import Connections, guarded
from ree.verde.messages import MAX_REQUEST, MessageError, encode_terms
from ree.verde.service import RefusedQuestion, Service

JSON = "application/json"
MOVES = 32  # questions for a move that wait or are answered
MOVES_OF_PEER = 8

Endpoint = Callable[[Request], Awaitable[Response]]


async def _bounded(request: Request) -> bytes | None:
    """The body; None if it is too long."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_REQUEST:
            return None
    return bytes(data)


class Queue:
    """Moves are made one at a time, in the order of the questions, of which each peer may have a few."""

    def __init__(self) -> None:
        self._one, self._of = asyncio.Lock(), Counter[str]()

    async def answer(self, service: Service, request: Request, body: bytes) -> Response:
        """The party's answer, or 429."""
        host = request.client.host if request.client else ""
        if self._of[host] >= MOVES_OF_PEER or self._of.total() >= MOVES:
            return PlainTextResponse("too many questions\n", 429, {"Retry-After": "1"})
        self._of[host] += 1
        try:
            async with self._one:
                if await request.is_disconnected():
                    return PlainTextResponse("gone\n", 400)
                return Response(await run_in_threadpool(service.answer, body), media_type=JSON)
        except MessageError as e:
            return PlainTextResponse(f"{e}\n", 400)
        except RefusedQuestion as e:
            return PlainTextResponse(f"{e}\n", 409)
        finally:
            self._of[host] -= 1
            self._of += Counter()  # forgets who has none


def application(
    service: Service, token: str | None = None, connections: Connections | None = None
) -> Starlette:
    """The ASGI application of a party; `token`: of whoever may ask it."""
    known, queue, open_ = encode_terms(service.terms), Queue(), connections or Connections()
    expected = None if token is None else f"Bearer {token}".encode()

    def bearing(endpoint: Endpoint) -> Endpoint:
        async def checked(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if expected is not None and not hmac.compare_digest(given, expected):
                return PlainTextResponse("expected the token of this party\n", 401,
                                         {"WWW-Authenticate": "Bearer", "Connection": "close"})  # fmt: skip
            return await endpoint(request)

        return checked

    async def statement(request: Request) -> Response:
        return Response(known, media_type=JSON)

    async def move(request: Request) -> Response:
        try:
            body = await _bounded(request)
        except ClientDisconnect:
            return PlainTextResponse("gone\n", 400)
        if body is None:
            return PlainTextResponse(f"expected at most {MAX_REQUEST} bytes\n", 413)
        peer = tuple(request.client) if request.client else ()
        open_.busy(peer)
        try:
            return await queue.answer(service, request, body)
        finally:
            open_.waits(peer)

    return Starlette(
        routes=[Route("/statement", bearing(statement)),
                Route("/move", bearing(move), methods=["POST"])]
    )  # fmt: skip


def serve(
    service: Service, host: str, port: int, ready: Callable[[str], None], token: str | None = None
) -> None:
    """Serve until interrupted; `ready` is called with the URL once connections are accepted."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(1024)
    except (OSError, OverflowError) as e:
        sock.close()
        raise DisputeError(
            f"cannot listen on {host}:{port}: {getattr(e, 'strerror', None) or e}"
        ) from e
    connections = Connections()
    # proxy_headers: a peer is who it is, not who it says
    config = uvicorn.Config(application(service, token, connections), http=guarded(connections), ws="none",
                            log_level="critical", access_log=False, timeout_keep_alive=5, lifespan="off",
                            proxy_headers=False, timeout_graceful_shutdown=5)  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{sock.getsockname()[1]}")
    uvicorn.Server(config).run(sockets=[sock])
