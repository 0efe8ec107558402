"""A server of a tiny model, on a port of this machine."""

import http.client
import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn

from ree.generation.engine import Engine
from ree.generation.scheduler import Scheduler
from ree.serving.app import Server
from ree.serving.metrics import ServerMetrics
from ree.serving.receipts import Receipts
from ree.serving.running import http_config
from ree.serving.service import ModelService

from ..generation.tiny import CONTEXT, STOP, model_of  # noqa: F401, TID252 - for the tests beside it

HI = [{"role": "user", "content": "hi"}]


class Client:
    """Requests to a server, one connection each."""

    def __init__(self, port, server, http=None):
        self.port, self.server, self.http = port, server, http
        self.url = f"http://127.0.0.1:{port}"

    def open(self, method, path, body=None, headers=None):
        """A connection whose response has begun, and the response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, raw, headers or {})
        return connection, connection.getresponse()

    def ask(self, path, body=None, headers=None, method=None):
        """(status, JSON or text, headers)."""
        connection, response = self.open(
            method or ("GET" if body is None else "POST"), path, body, headers
        )
        raw = response.read()
        connection.close()
        value = (
            json.loads(raw)
            if response.headers["content-type"] == "application/json"
            else raw.decode()
        )
        return response.status, value, response.headers

    def chat(self, **fields):
        status, value, _ = self.ask(
            "/v1/chat/completions", {"model": "tiny", "messages": HI} | fields
        )
        assert status == 200, value
        return value

    def complete(self, **fields):
        status, value, _ = self.ask("/v1/completions", {"model": "tiny"} | fields)
        assert status == 200, value
        return value

    def stream(self, path="/v1/chat/completions", **fields):
        """The events of a stream, without the last, [DONE]."""
        body = (
            {"model": "tiny", "stream": True}
            | ({"messages": HI} if "prompt" not in fields else {})
            | fields
        )
        connection, response = self.open("POST", path, body)
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        events = response.read().decode().split("\n\n")
        connection.close()
        assert events[-2:] == ["data: [DONE]", ""]
        return [json.loads(e.removeprefix("data: ")) for e in events[:-2]]

    @property
    def running(self):
        return sum(s.load_now[0] for s in self.server.services.values())

    def quiet(self):
        """Wait until nothing is under way."""
        deadline = time.monotonic() + 30
        while self.running:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@contextmanager
def serving(load=model_of, ready=True, services=None, **settings):
    """A client of a server that runs in a thread."""
    of_service = {
        k: settings.pop(k) for k in ("slots", "queue", "positions", "warm") if k in settings
    }
    receipts, metrics = settings.pop("receipts", None) or Receipts(), ServerMetrics()
    one = ModelService("tiny", load, keep=receipts.keep, metrics=metrics, threads=1, **of_service)
    server = Server(services or {"tiny": one}, receipts, metrics, **settings)
    config = http_config(server, port=0, log_level="critical", timeout_graceful_shutdown=5)
    http_server = uvicorn.Server(config)
    thread = threading.Thread(target=http_server.run)
    thread.start()
    try:
        while not http_server.started:
            time.sleep(0.01)
        client = Client(http_server.servers[0].sockets[0].getsockname()[1], server, http_server)
        while ready and client.ask("/health")[0] != 200:
            assert not one.failure, one.failure
            time.sleep(0.01)
        yield client
    finally:
        http_server.should_exit = True
        thread.join()


@pytest.fixture(
    scope="module"
)  # not longer: tests elsewhere set the clock, and an event loop would sleep on
def client():
    with serving() as client:
        yield client


@pytest.fixture
def slow(monkeypatch):
    """Every token that is drawn takes a while, so that there is time to go away in."""
    step = Engine.step

    def slowly(self, *args):
        time.sleep(0.05)
        return step(self, *args)

    monkeypatch.setattr(Engine, "step", slowly)
    monkeypatch.setattr(Scheduler, "_guess", lambda self, g: [])  # which takes in several at once


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.ree"
    model_of().program.save(path)
    return str(path)


def start(*args):
    """A server of its own process, and what it said once it listens."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "ree",
        "serve",
        *args,
        "--port",
        "0",
        "--json",
        "--threads",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = [process.stdout.readline()]
    while lines[-1] not in ("}\n", ""):
        lines.append(process.stdout.readline())
    return process, json.loads("".join(lines))


def wait_until_ready(host):
    status = 503
    while status == 503:
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.request("GET", "/health")
        status = connection.getresponse().status
        connection.close()
        time.sleep(0.05)
    assert status == 200
