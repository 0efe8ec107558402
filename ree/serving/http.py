"""What every endpoint does alike: keys, errors as JSON, clients that go away."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ree.errors import InternalError, ReeError
from ree.serving.errors import ApiError
from ree.serving.page import FILES
from ree.serving.service import RETRY_SECONDS

OPEN_PATHS = ("/health", *FILES)  # which need no key
T = TypeVar("T")


class Json(Response):
    """JSON on one line, UTF-8."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json_line(content)


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def json_line(value: Any) -> bytes:
    """JSON without line ends; half a surrogate pair, as names of unknown fields may have, is escaped."""
    return _ENCODER.encode(value).encode(errors="backslashreplace")


def refusal(e: ApiError) -> Json:
    """The response of an error."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if e.status in (429, 503) else {}
    if e.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Json(e.body(), e.status, headers)


async def on_ree_error(request: Request, e: Exception) -> Response:
    assert isinstance(e, ReeError)
    if isinstance(e, InternalError):
        return refusal(ApiError(e.message, status=500, hint=e.hint))
    return refusal(ApiError.of(e))


async def on_http_error(request: Request, e: Exception) -> Response:
    assert isinstance(e, HTTPException)
    what = {
        404: f"there is no {request.url.path[:100]}",
        405: f"{request.method} is not for {request.url.path[:100]}",
    }
    return refusal(ApiError(what.get(e.status_code, str(e.detail)), status=e.status_code))


async def on_gone(request: Request, e: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def on_defect(request: Request, e: Exception) -> Response:
    """A defect of ours: the client hears that there is one; whoever runs the server sees what is raised."""
    return refusal(ApiError(f"unexpected {type(e).__name__}; this is a defect of REE", status=500))


HANDLERS: dict[Any, Any] = {
    ReeError: on_ree_error, HTTPException: on_http_error, ClientDisconnect: on_gone, Exception: on_defect,
}  # fmt: skip


class Keys:
    """Lets pass who has one of the keys (`Authorization: Bearer KEY`), or everyone if there are none."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = [hashlib.sha256(k.encode()).digest() for k in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._keys and scope["path"] not in OPEN_PATHS:
            scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
            given = hashlib.sha256(key.strip().encode()).digest()
            known = [
                hmac.compare_digest(given, k) for k in self._keys
            ]  # each, so that time tells nothing
            if scheme.lower() != "bearer" or not any(known):
                response = refusal(ApiError("the API key is missing or wrong", status=401))
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


class OwnPages:
    """Refuses what a browser sends for a page of another site, which needs no key where none is asked for.

    local: this machine alone is served, so that requests are to an address or localhost; another name that
    leads here is another site's.
    """

    def __init__(self, app: ASGIApp, local: bool) -> None:
        self._app, self._local = app, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            site, host = headers.get("sec-fetch-site", "none"), headers.get("host", "")
            if scope["method"] == "POST" and site in ("cross-site", "same-site"):
                e = ApiError("a page of another site asks, which is not served", status=403)
                return await refusal(e)(scope, receive, send)
            if self._local and not is_local_name(host):
                e = ApiError(f"the request is to host {host[:100]!r}, expected localhost or an address",
                             status=403, hint="with --api-key any name is served")  # fmt: skip
                return await refusal(e)(scope, receive, send)
        await self._app(scope, receive, send)


def is_local_name(host: str) -> bool:
    """Whether a Host header is localhost or an address, with a port or without."""
    name = host.rpartition(":")[0] if re.search(r":\d*$", host) else host
    if name in ("", "localhost") or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


async def while_there(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; ClientDisconnect, and `work` is cancelled, if the client goes away before."""
    working, watching = asyncio.create_task(work), asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    message: Message = {}
    while message.get("type") != "http.disconnect":
        message = await receive()


class EventStream(Response):
    """Server-sent events: `events` come in lists, each a value or a comment that keeps the connection open
    (None).

    After the last one comes [DONE]. `on_end` is called in the end, also when the client went away before.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[list[Any], None],
        headers: dict[str, str],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers}
        )
        del self.headers["content-length"]
        self._events, self._on_end = events, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def pump() -> None:
            start = {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
            await send(start)
            async with aclosing(self._events) as events:
                async for together in events:
                    lines = b"".join(map(_event, together))
                    if lines:
                        await send({"type": "http.response.body", "body": lines, "more_body": True})
            await send(
                {"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False}
            )

        try:
            with suppress(ClientDisconnect, OSError):
                await while_there(receive, pump())
        finally:
            self._on_end()


def _event(value: Any) -> bytes:
    return b": wait\n\n" if value is None else b"data: " + json_line(value) + b"\n\n"
