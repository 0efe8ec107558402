"""Warming up: the first requests prepare nothing, and what was done before changes none of their bits."""

import http.client
import json

import pytest

from ree.generation.engine import Engine
from ree.generation.model import LanguageModel
from ree.generation.programs import Forward
from ree.serving.service import ModelService

from .conftest import CONTEXT, HI, model_of, serving, start, wait_until_ready


@pytest.fixture
def prepared(monkeypatch):
    """Shapes that are prepared, as they are."""
    made = []
    new_frame, claim = Engine._new_frame, Forward._claim
    monkeypatch.setattr(
        Engine, "_new_frame", lambda self, *a: made.append(a) or new_frame(self, *a)
    )
    monkeypatch.setattr(Forward, "_claim", lambda self, *a: made.append(a) or claim(self, *a))
    return made


def fresh():
    """A model that has prepared nothing yet."""
    return LanguageModel(model_of().program)


def requests(client):
    """Answers to prompts of many lengths, alone and four at once."""
    return [client.complete(prompt="a" * n, max_tokens=4, seed=1)["choices"] for n in (1, 7, 60, 140)] + [
        client.chat(n=k, max_tokens=6, seed=2)["choices"] for k in (1, 2, 4)
    ]  # fmt: skip


def test_the_first_requests_prepare_nothing(prepared):
    with serving(fresh, warm=True) as client:
        assert prepared
        prepared.clear()
        warm = requests(client)
        assert prepared == []
        assert client.server.metrics.generated == sum(
            len(client.server.services) * n for n in (4,) * 4 + (6, 12, 24)
        )
    with serving(fresh) as client:
        assert requests(client) == warm
        assert prepared  # what the others did not wait for


@pytest.mark.parametrize(("slots", "positions"), [(1, 2), (3, 20), (1, CONTEXT)])
def test_any_number_of_slots_and_positions(slots, positions, prepared):
    with serving(fresh, warm=True, slots=slots, positions=positions) as client:
        prepared.clear()
        assert (
            client.complete(prompt=[[65]] * 3, max_tokens=1, seed=1)["usage"]["completion_tokens"]
            == 3
        )
        assert prepared == []


def test_two_models_at_once_with_slots_and_a_context(artifact):
    process, said = start(f"one={artifact}", f"two={artifact}", "--slots", "2", "--context", "40")
    try:
        host = said["url"].removeprefix("http://")
        wait_until_ready(host)
        connection = http.client.HTTPConnection(host, timeout=60)
        got, socket_used = [], set()
        for model in ("one", "two", "one"):  # on one connection, which is kept
            body = {"model": model, "messages": HI, "max_tokens": 9, "seed": 5}
            connection.request("POST", "/v1/chat/completions", json.dumps(body))
            got.append(json.loads(connection.getresponse().read())["choices"])
            socket_used.add(connection.sock.getsockname())
        assert got[0] == got[1] == got[2]
        assert len(socket_used) == 1
        connection.request("GET", "/v1/models")
        cards = json.loads(connection.getresponse().read())["data"]
        assert [(c["id"], c["max_model_len"]) for c in cards] == [("one", 40), ("two", 40)]
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        assert 'ree_slots{model="one"} 2' in text
        assert 'ree_slots{model="two"} 2' in text
        connection.close()
    finally:
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert "Traceback" not in err


def test_a_model_that_cannot_be_warmed_up_is_not_ready(monkeypatch):
    def fail(self, *args):
        raise MemoryError("no room")

    monkeypatch.setattr(Engine, "reserve", fail)
    with serving(fresh, ready=False) as client:
        service = client.server.services["tiny"]
        assert isinstance(service, ModelService)
        while client.ask("/health")[1]["models"]["tiny"] == "loading":
            pass
        assert service.failure == "MemoryError: no room"
