"""A party over HTTP: GET /statement says what it stands for, POST /move answers a dispute so far.

The server keeps nothing between two requests and may be stopped and started at any time.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ree.errors import DisputeError
from ree.verde.messages import MAX_REQUEST, MessageError, encode_terms
from ree.verde.service import Refused, Service

JSON = "application/json"


async def _bounded(request: Request) -> bytes | None:
    """The body; None if it is too long."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_REQUEST:
            return None
    return bytes(data)


def application(service: Service) -> Starlette:
    """The ASGI application of a party."""

    async def statement(request: Request) -> Response:
        return Response(encode_terms(service.terms), media_type=JSON)

    async def move(request: Request) -> Response:
        try:
            body = await _bounded(request)
        except ClientDisconnect:
            return PlainTextResponse("gone\n", 400)
        if body is None:
            return PlainTextResponse(f"expected at most {MAX_REQUEST} bytes\n", 413)
        try:
            return Response(await run_in_threadpool(service.answer, body), media_type=JSON)
        except MessageError as e:
            return PlainTextResponse(f"{e}\n", 400)
        except Refused as e:
            return PlainTextResponse(f"{e}\n", 409)

    return Starlette(
        routes=[Route("/statement", statement), Route("/move", move, methods=["POST"])]
    )


def serve(service: Service, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until interrupted; `ready` is called with the URL once connections are accepted."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(64)
    except (OSError, OverflowError) as e:
        sock.close()
        raise DisputeError(
            f"cannot listen on {host}:{port}: {getattr(e, 'strerror', None) or e}"
        ) from e
    config = uvicorn.Config(application(service), log_level="error", access_log=False, limit_concurrency=64,
                            timeout_keep_alive=5, lifespan="off")  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{sock.getsockname()[1]}")
    uvicorn.Server(config).run(sockets=[sock])
