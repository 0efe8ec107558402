"""Bodies of requests: of bounded size, and read where they hold up nobody else's answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from ree.serving import connections
from ree.serving.errors import ApiError

MAX_BODY = 8 << 20
SMALL = 64 << 10  # bytes that are read in a millisecond or two
T = TypeVar("T")


class Bodies:
    """Reads bodies; of large ones one at a time, in a thread, so that an event loop shares its processor with
    one of them at most."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()

    async def read(self, request: Request, parse: Callable[[bytes], T]) -> T:
        """What `parse` makes of a request's body. ApiError."""
        raw = await body_of(request)
        if len(raw) <= SMALL:
            return parse(raw)
        async with self._one:
            return await run_in_threadpool(parse, raw)


async def body_of(request: Request) -> bytes:
    """The body; ApiError 413 over MAX_BODY, before more than that is read, 408 where it takes too long."""
    told = request.headers.get("content-length", "0")
    size = int(told) if told.isascii() and told.isdecimal() and len(told) < 20 else 0
    out = bytearray()
    if size <= MAX_BODY:
        try:
            async with asyncio.timeout(connections.BODY_SECONDS):
                async for part in request.stream():
                    out += part
                    if len(out) > MAX_BODY:
                        break
                else:
                    return bytes(out)
        except TimeoutError as e:
            seconds = connections.BODY_SECONDS
            raise ApiError(f"the body took over {seconds:g} seconds", status=408) from e
    raise ApiError(f"the body has over {MAX_BODY} bytes", status=413)
