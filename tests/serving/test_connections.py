"""Clients that are slow, silent, many or gone: each is let go of, and the others are answered."""

import json
import select
import socket
import time

import pytest

from ree.serving import connections
from ree.serving.connections import more_files, patient_socket

from .conftest import HI, serving
from .test_service import wait_for

BODY = json.dumps({"model": "tiny", "messages": HI, "max_tokens": 3}).encode()
HEAD = (
    f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.5)


def until_closed(s):
    """(seconds until the other side closes, what it said)."""
    start, said = time.monotonic(), b""
    s.settimeout(30)
    try:
        while part := s.recv(1 << 16):
            said += part
    except ConnectionResetError:
        pass
    return time.monotonic() - start, said


def drip(s, raw):
    """Send a byte at a time until the other side closes; seconds."""
    start = time.monotonic()
    try:
        for b in raw:
            s.sendall(bytes([b]))
            if select.select([s], [], [], 0.1)[0]:
                break
    except (BrokenPipeError, ConnectionResetError):
        pass
    return time.monotonic() - start


def connect(client):
    return socket.create_connection(("127.0.0.1", client.port))


def test_a_head_that_does_not_come_or_comes_slowly(impatient):
    with serving() as client:
        with connect(client) as s:
            seconds, said = until_closed(s)
            assert (seconds < 10, said) == (True, b"")
        with connect(client) as s:
            assert 0.4 < drip(s, HEAD) < 10
        with connect(client) as s:  # the second request of a connection
            s.sendall(HEAD + BODY)
            assert s.recv(1 << 16).startswith(b"HTTP/1.1 200")
            assert drip(s, HEAD) < 10
        assert client.chat(max_tokens=1)["choices"]


def test_a_body_that_comes_slowly(impatient):
    with serving() as client:
        with connect(client) as s:
            s.sendall(HEAD)
            assert drip(s, BODY) < 10
            assert b" 408 " in s.recv(1 << 16)
        with connect(client) as s:  # a body that nobody reads
            s.sendall(HEAD.replace(b"chat/completions", b"nothing"))
            assert b" 404 " in s.recv(1 << 16)
            assert drip(s, BODY) < 10
            assert drip(s, BODY) < 10
            assert until_closed(s)[0] < 10
        assert client.chat(max_tokens=1)["choices"]


def test_a_request_that_comes_a_byte_at_a_time_in_time_is_answered():
    with serving() as client, connect(client) as s:
        for _ in range(2):  # on one connection
            for b in HEAD + BODY:
                s.sendall(bytes([b]))
                time.sleep(0.001)
            s.settimeout(30)
            said = b""
            while b"\r\n\r\n{" not in said or not said.endswith(
                b"}"
            ):  # head and body may come apart
                piece = s.recv(1 << 16)
                assert piece, said
                said += piece
            assert said.startswith(b"HTTP/1.1 200")
            assert b'"finish_reason"' in said


def test_a_request_that_takes_long_is_not_cut(impatient, slow):
    with serving() as client:
        start = time.monotonic()
        assert client.chat(max_tokens=40, ignore_eos=True)["usage"]["completion_tokens"] == 40
        assert time.monotonic() - start > 1.5


def test_a_thousand_connections_that_say_nothing():
    more_files()
    with serving() as client:
        opened = [connect(client) for _ in range(1000)]
        wait_for(lambda: len(client.http.server_state.connections) >= 1000)
        for s in (opened[0], opened[-1]):
            s.sendall(HEAD + BODY)
            assert s.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert client.chat(max_tokens=2)["choices"]
        for s in opened:
            s.close()
        wait_for(lambda: len(client.http.server_state.connections) < 5)


def test_who_takes_nothing_in_is_cut_off_by_the_system(monkeypatch):
    """A pair of sockets: what the far side does not take in fills both buffers."""
    monkeypatch.setattr(connections, "TAKING_SECONDS", 1)
    with socket.socket() as listening:
        patient_socket(listening)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with socket.socket() as far:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            far.connect(listening.getsockname())
            near, _ = listening.accept()
            with near:
                near.settimeout(30)
                start = time.monotonic()
                with pytest.raises(TimeoutError) as e:
                    while True:
                        near.sendall(bytes(1 << 16))
                assert e.value.errno is not None  # the system's, not this test's own limit
                assert time.monotonic() - start < 25
