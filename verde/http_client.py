"""The way to a party over HTTP: bounded in bytes and in time, whatever the other side does."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from ree.errors import DisputeError
from ree.verde.messages import (
    MAX_ANSWER,
    MessageError,
    Parties,
    Signed,
    Terms,
    decode_terms,
    encode_request,
)
from ree.verde.referee import InvalidResponse, NoResponse

CHUNK = 16 << 10
# answers of a server that is busy, restarting or asked without its token: no answer of the party
SILENCE = (401, 403, 408, 425, 429)


class HttpTransport:
    """A party at a URL: GET /statement, POST /move; `token`: what it answers to."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as e:
            raise DisputeError(f"'{url}': {e}") from e
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
            or parts.fragment
        ):
            raise DisputeError(f"expected a URL such as http://127.0.0.1:8650, got '{url}'")
        self.url, self.host, self.port = url, parts.hostname, port
        self.secure, self.path = parts.scheme == "https", parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Connection": "close"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def terms(self, seconds: float) -> Terms:
        """What the party stands for; NoResponse, InvalidResponse."""
        try:
            return decode_terms(self._call("GET", "/statement", None, seconds))
        except MessageError as e:
            raise InvalidResponse(str(e)) from e

    def ask(self, dispute: Parties, moves: Sequence[Signed], seconds: float) -> bytes:
        """The party's answer within `seconds`; NoResponse, InvalidResponse."""
        return self._call("POST", "/move", encode_request(dispute, moves), seconds)

    def _call(self, method: str, path: str, body: bytes | None, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        make = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        connection = make(self.host, self.port, timeout=max(seconds, 0.001))
        timer = None
        try:
            connection.connect()
            # a timeout of the socket bounds one read, and a head may come in drops
            timer = threading.Timer(deadline - time.monotonic(), _cut, (connection.sock,))
            timer.daemon = True
            timer.start()
            connection.request(method, self.path + path, body, self._headers)
            response = connection.getresponse()
            data = self._body(response)
            if time.monotonic() >= deadline:
                raise TimeoutError  # what was cut off may look whole
        except (OSError, http.client.HTTPException, ValueError) as e:
            if time.monotonic() >= deadline:
                raise NoResponse(f"no answer from {self.url}: timed out") from e
            if isinstance(e, OSError | http.client.RemoteDisconnected | http.client.IncompleteRead):
                raise NoResponse(f"no answer from {self.url}: {_short(e)}") from e
            raise InvalidResponse(f"{self.url} does not speak HTTP: {_short(e)}") from e
        finally:
            if timer is not None:
                timer.cancel()
            connection.close()
        if response.status != 200:
            text = data[:200].decode("ascii", "replace").splitlines()
            said = f"{self.url} answered {response.status}: {text[0] if text else ''}"
            if response.status >= 500 or response.status in SILENCE:
                raise NoResponse(said)
            raise InvalidResponse(said)
        return data

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        """The answer's bytes, no more than a message may have."""
        data = bytearray()
        while piece := response.read1(CHUNK):
            data += piece
            if len(data) > MAX_ANSWER:
                raise InvalidResponse(f"{self.url} answered more than {MAX_ANSWER} bytes")
        if response.length:  # it ended before what it announced
            raise http.client.IncompleteRead(b"", response.length)
        return bytes(data)


def _cut(sock: socket.socket) -> None:
    """End all reads of a socket."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _short(e: Exception) -> str:
    text = (getattr(e, "strerror", None) or str(e) or type(e).__name__).splitlines()
    return text[0][:200] if text else ""
