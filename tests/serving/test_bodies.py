"""Large bodies: refused by how much is in them, and read where they hold up nobody's answer."""

import json
import threading
import time

import pytest

from ree.serving import schema
from ree.serving.bodies import MAX_BODY, SMALL
from ree.serving.errors import ApiError
from ree.serving.fields import MAX_PARTS, MAX_VALUES, read_object
from ree.serving.schema import ChatRequest, CompletionRequest

from .conftest import HI, serving

FULL = MAX_BODY - 200


def filled(unit, before=b'{"model": "m", "prompt": [', after=b"]}"):
    """A body as large as any that is many times the same."""
    return before + b",".join([unit] * (FULL // (len(unit) + 1))) + after


MANY = {
    "numbers": (filled(b"1"), "values"),
    "texts": (filled(b'""'), "texts"),
    "texts that end like a sign": (filled(b'"\\\\"'), "texts"),
    "lists": (filled(b"[]"), "values"),
    "lists in lists": (filled(b"[" * 60 + b"]" * 60), "lists and objects"),
    "objects in objects": (filled(b'{"":' * 60 + b"1" + b"}" * 60), "texts"),
    "messages": (filled(json.dumps(HI[0]).encode(), b'{"model": "m", "messages": ['), "texts"),
}


@pytest.mark.parametrize("what", MANY)
def test_too_many_values_are_refused_soon(what):
    raw, of = MANY[what]
    start = time.process_time()
    with pytest.raises(ApiError, match=f"the body has over .* {of}") as e:
        read_object(raw)
    assert time.process_time() - start < 0.5
    assert e.value.status == 413


def test_as_many_as_are_allowed_are_read():
    texts = b"[" + b",".join([b'""'] * (MAX_VALUES // 2 - 1)) + b"]"
    lists = b"[" + b",".join([b"[]"] * (MAX_PARTS - 4)) + b"]"
    numbers = b"[" + b",".join([b"1"] * (MAX_VALUES // 4)) + b"]"
    start = time.process_time()
    value = read_object(b'{"":' + lists + b',"n":' + numbers + b"}")
    assert len(value[""]) == MAX_PARTS - 4
    assert len(read_object(b'{"":' + texts + b"}")[""]) == MAX_VALUES // 2 - 1
    assert time.process_time() - start < 5


def test_one_long_text_and_the_tokens_of_the_longest_prompts_are_read():
    assert read_object(b'{"a": "' + b'\\"' * (FULL // 2) + b'"}') == {"a": '"' * (FULL // 2)}
    raw = filled(b"1234567")
    assert len(CompletionRequest.of(raw).prompts[0]) == FULL // 8


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"prompt": [[[1] * 50] * 50] * 20}, "prompt[0] is [[1, 1, 1"),
        ({"prompt": [{"a" * 10: i} for i in range(50_000)]}, "list of 1 to 64"),
    ],
)
def test_messages_show_little_of_it_soon(body, expected):
    with pytest.raises(ApiError) as e:
        CompletionRequest.of(json.dumps({"model": "m"} | body).encode())
    assert expected in e.value.message
    assert len(e.value.message) < 200


def test_arguments_of_calls_are_bounded_before_they_are_read():
    call = {"type": "function", "function": {"name": "f", "arguments": "[" * (2 << 20)}}
    said = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    with pytest.raises(ApiError, match="arguments have 2097152 characters"):
        ChatRequest.of(json.dumps({"model": "m", "messages": said}).encode())


def test_tokens_of_others_come_while_a_large_body_is_read(slow, monkeypatch):
    """The body is not done before the other client has had more of its answer."""
    begun, more = threading.Event(), threading.Event()
    at_once, most = [], []
    plain = schema.read_object

    def waits(raw):
        if len(raw) > SMALL:
            at_once.append(None)
            most.append(len(at_once))
            begun.set()
            assert more.wait(30)
            at_once.pop()
        return plain(raw)

    monkeypatch.setattr(schema, "read_object", waits)
    with serving() as client:
        body = {
            "model": "tiny",
            "messages": HI,
            "stream": True,
            "ignore_eos": True,
            "max_tokens": 60,
        }
        connection, response = client.open("POST", "/v1/chat/completions", body)
        for _ in range(4):
            response.readline()
        large = json.dumps(
            {"model": "tiny", "messages": HI, "max_tokens": 1, "user": "x" * SMALL}
        ).encode()
        answers = []
        others = [
            threading.Thread(
                target=lambda: answers.append(client.ask("/v1/chat/completions", large))
            )
            for _ in range(3)
        ]
        for t in others:
            t.start()
        assert begun.wait(30)
        events = 0
        while events < 3:
            line = response.readline()
            assert line
            events += line.startswith(b"data: {")
        more.set()
        for t in others:
            t.join()
        assert [a[0] for a in answers] == [200] * 3
        assert max(most) == 1  # of large ones, one at a time
        connection.close()
