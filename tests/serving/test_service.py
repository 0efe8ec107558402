"""A service under strain: clients that go away, a full queue, a model that does not load, a step that fails."""

import json
import socket
import time
from functools import cache

import pytest

from ree.errors import ArtifactError, ReeError
from ree.generation.forward import compile_forward
from ree.generation.model import LanguageModel
from ree.generation.scheduler import Scheduler
from ree.serving.metrics import ServerMetrics
from ree.serving.receipts import Receipts

from ..generation.tiny import module_of  # noqa: TID252
from .conftest import HI, model_of, serving

LONG = {"model": "tiny", "messages": HI, "max_tokens": 400, "ignore_eos": True}


def wait_for(what):
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot_and_changes_nobody(stream, slow):
    with serving(slots=2) as client:
        want = client.chat(seed=1, max_tokens=12)["choices"]
        raw = json.dumps(LONG | {"stream": stream}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", client.port)) as s:
            s.sendall(head + raw)
            wait_for(lambda: client.running == 1)
            if stream:
                assert s.recv(100).startswith(b"HTTP/1.1 200")
            beside = client.chat(seed=1, max_tokens=12)["choices"]
        start = client.server.metrics.generated
        wait_for(lambda: not client.running)
        assert client.server.metrics.generated - start < 10  # of 400
        assert beside == want
        assert client.chat(seed=1, max_tokens=12)["choices"] == want


def test_a_full_queue_is_429(slow):
    with serving(slots=1, queue=1) as client:
        opened = []
        for n in (1, 2):
            opened.append(client.open("POST", "/v1/chat/completions", LONG | {"stream": True}))
            wait_for(lambda n=n: sum(client.server.services["tiny"].load_now) == n)
        assert client.server.services["tiny"].load_now == (1, 1)
        for stream in (False, True):
            status, value, headers = client.ask("/v1/chat/completions", LONG | {"stream": stream})
            assert (status, value["error"]["type"]) == (429, "rate_limit_error")
            assert headers["retry-after"] == "1"
        _, text, _ = client.ask("/metrics")
        assert 'ree_answers_waiting{model="tiny"} 1' in text
        for connection, _ in opened:
            connection.close()
        client.quiet()
        client.chat(max_tokens=1)
        many = client.chat(max_tokens=1, n=8)  # more than queue and slots, but nobody else is there
        assert len(many["choices"]) == 8


def test_a_server_that_loads_says_so():
    from threading import Event

    go = Event()

    def load():
        go.wait(30)
        return model_of()

    with serving(load, ready=False) as client:
        status, value, _ = client.ask("/health")
        assert (status, value["models"]) == (503, {"tiny": "loading"})
        status, value, headers = client.ask("/v1/chat/completions", LONG)
        assert (status, value["error"]["message"]) == (503, "model 'tiny' is loading")
        assert headers["retry-after"]
        assert client.ask("/v1/models")[1]["data"][0]["state"] == "loading"
        go.set()
        wait_for(lambda: client.ask("/health")[0] == 200)


@pytest.mark.parametrize("error", [ArtifactError("cut short"), ZeroDivisionError("x")])
def test_a_model_that_does_not_load_is_told(error):
    def load():
        raise error

    with serving(load, ready=False) as client:
        service = client.server.services["tiny"]
        wait_for(lambda: service.state == "failed")
        status, value, _ = client.ask("/v1/chat/completions", LONG)
        assert status == 503
        assert "failed" in value["error"]["message"]
        assert str(error) in value["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_step_that_fails_is_told_to_who_waits_and_the_next_is_served(monkeypatch, stream):
    step, broken = Scheduler.step, [True]

    def failing(self):
        if broken and any(g.drawn > 2 for g in self.live):
            broken.clear()
            raise ZeroDivisionError("planted")
        return step(self)

    with serving() as client:
        want = client.chat(seed=1, max_tokens=9)["choices"]
        monkeypatch.setattr(Scheduler, "step", failing)
        if stream:
            *_, last = client.stream(**LONG)
        else:
            status, last, _ = client.ask("/v1/chat/completions", LONG)
            assert status == 500
        assert last["error"]["type"] == "server_error"
        assert "planted" in last["error"]["message"]
        client.quiet()
        assert client.chat(seed=1, max_tokens=9)["choices"] == want


def test_a_receipt_that_cannot_be_written_fails_its_answer_alone(monkeypatch, slow):
    keep, n = Receipts.keep, []

    def failing(self, receipt):
        n.append(1)
        if len(n) == 1:
            raise ReeError("the disk is full")
        return keep(self, receipt)

    monkeypatch.setattr(Receipts, "keep", failing)
    with serving() as client:
        connection, response = client.open(
            "POST", "/v1/chat/completions", LONG | {"max_tokens": 20, "stream": True}
        )
        status, value, _ = client.ask("/v1/chat/completions", LONG | {"max_tokens": 2})
        assert (status, value["error"]["message"]) == (500, "the disk is full")
        assert b"[DONE]" in response.read()
        connection.close()


def test_a_stream_says_that_it_lives(monkeypatch, slow):
    from ree.serving import app

    monkeypatch.setattr(app, "PATIENCE", 0.01)
    with serving() as client:
        connection, response = client.open(
            "POST", "/v1/chat/completions", LONG | {"max_tokens": 3, "stream": True}
        )
        raw = response.read()
        connection.close()
    assert b": wait\n\n" in raw
    assert raw.count(b"data: ") >= 4


def test_closing_aborts_what_is_under_way(slow):
    with serving() as client:
        connection, _ = client.open("POST", "/v1/chat/completions", LONG | {"stream": True})
        wait_for(lambda: client.running == 1)
        service = client.server.services["tiny"]
        start = time.monotonic()
        service.close()
        assert time.monotonic() - start < 5
        assert not client.running
        assert client.ask("/v1/chat/completions", LONG)[0] == 503
        connection.close()


def test_the_last_receipts_are_kept(monkeypatch):
    from ree.serving import receipts as module

    class Made:
        def __init__(self, n):
            self.digest, self.raw = bytes([n] * 32), b"x" * n

        def to_json(self):
            return self.raw

    monkeypatch.setattr(module, "KEPT", 3)
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    kept = Receipts()
    for n in (1, 2, 3, 4, 4):
        kept.keep(Made(n))
    assert [n for n in range(9) if kept.find(bytes([n] * 32).hex())] == [2, 3, 4]
    kept.keep(Made(8))
    assert [n for n in range(9) if kept.find(bytes([n] * 32).hex())] == [8]


def test_names_are_escaped_in_metrics():
    text = ServerMetrics().text({"slots": ("Slots.", [('a"\n\\', 1)])})
    assert 'ree_slots{model="a\\"\\n\\\\"} 1' in text.splitlines()


@cache
def wider():
    """A model with more tokens than its tokenizer, as many have."""
    program = compile_forward(module_of("llama", vocab_size=270), 512, model_of().program.files)
    return LanguageModel(program)


def test_a_token_without_text_fails_its_answer_alone(slow):
    with serving(wider, slots=2) as client:
        want = client.chat(seed=1, max_tokens=12)["choices"]
        connection, _ = client.open("POST", "/v1/chat/completions", LONG | {"stream": True})
        ask = {"model": "tiny", "messages": HI, "logit_bias": {"265": 100}}
        status, value, _ = client.ask("/v1/chat/completions", ask)
        assert (status, value["error"]["message"]) == (400, "there is no token 265")
        assert client.running == 1
        connection.close()
        assert client.chat(seed=1, max_tokens=12)["choices"] == want
        # named beside others it has no text
        told = client.chat(seed=1, max_tokens=2, logprobs=True, top_logprobs=20)["choices"][0][
            "logprobs"
        ]
        assert all(len(t["top_logprobs"]) == 20 for t in told["content"])


def test_a_receipt_that_cannot_be_made_fails_its_answer_alone(monkeypatch, slow):
    keep = Receipts.keep

    def failing(self, receipt):
        if receipt.request["max_tokens"] == 3:
            raise ValueError("a defect")
        return keep(self, receipt)

    monkeypatch.setattr(Receipts, "keep", failing)
    with serving(slots=2) as client:
        connection, _ = client.open("POST", "/v1/chat/completions", LONG | {"stream": True})
        status, value, _ = client.ask(
            "/v1/chat/completions",
            {"model": "tiny", "messages": HI, "max_tokens": 3, "ignore_eos": True},
        )
        assert status == 500
        assert "a defect" in value["error"]["message"]
        assert client.running == 1
        connection.close()
