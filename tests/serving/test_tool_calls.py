"""Calls of tools: found where all is well formed, text otherwise, the same whether streamed or not."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ree.generation.generator import TextPiece
from ree.serving.answers import Reply, TextSoFar
from ree.serving.schema import ChatRequest
from ree.serving.tool_calls import MAX_CALLS, ToolCall, find_calls

ONE = '<tool_call>\n{"name": "f", "arguments": {"x": [1, "é"]}}\n</tool_call>'
F = ToolCall("f", '{"x": [1, "é"]}')
RECEIPT = "ab" * 32


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ONE, ("", [F])),
        (f"Let me see.\n{ONE}\n{ONE}\n", ("Let me see.\n", [F, F])),
        ("no call", ("no call", [])),
        ("", ("", [])),
    ],
)
def test_calls_are_found(text, found):
    assert find_calls(text, {"f", "g"}) == found


@pytest.mark.parametrize(
    "text",
    [
        ONE[:-1],
        ONE + " and more",
        f"{ONE}<tool_call>",
        ONE.replace('"f"', '"other"'),
        ONE.replace('"f"', "[1]"),
        ONE.replace('"f"', '{"f": 1}'),
        ONE.replace('{"x": [1, "é"]}', "3"),
        ONE.replace("[1,", "[NaN,"),
        ONE.replace("}}", "}"),
        ONE.replace('"arguments"', '"parameters"'),
        "<tool_call>[]</tool_call>",
        "<tool_call></tool_call>",
        "<tool_call>" + "[" * 10000 + "</tool_call>",
        ONE * (MAX_CALLS + 1),
        "<tool_call>" * 20000,
    ],
)
def test_what_is_no_call_stays_text(text):
    assert find_calls(text, {"f"}) == (text, [])


def reply_of(text, finish="stop"):
    """A reply to a request with a tool, of one answer that says `text`."""
    tool = {"type": "function", "function": {"name": "f"}}
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [tool]}
    answer = SimpleNamespace(
        text=text,
        finish=finish,
        completion=(),
        matched=None,
        generation=SimpleNamespace(prompt=(1,), reused=0),
    )
    reply = Reply(
        ChatRequest.of(json.dumps(body).encode()), [answer], "fp", 1, tools=frozenset("f")
    )
    reply.receipts[0] = RECEIPT
    return reply


def streamed(reply, pieces):
    """(content, calls, why it ended) of the chunks of a stream."""
    held, chunks = TextSoFar(calls=True), []
    for p in pieces:
        told = held.take(TextPiece(0, p), every=False)
        if told:
            chunks.append(reply.piece(0, *told))
    chunks += reply.ending(0, held.told)
    deltas = [c["choices"][0]["delta"] for c in chunks]
    calls = [
        {k: v for k, v in c.items() if k != "index"}
        for d in deltas
        for c in d.get("tool_calls", [])
    ]
    return (
        "".join(d.get("content", "") for d in deltas),
        calls,
        chunks[-1]["choices"][0]["finish_reason"],
    )


PARTS = st.sampled_from(
    ["a", "\n", "<", "<tool", "_call>", "<tool_call>", "</tool_call>", ONE, ONE[:30], ONE[30:]]
)


@given(st.lists(PARTS, max_size=8), st.sampled_from(["stop", "length"]))
def test_streamed_or_not_it_is_the_same(pieces, finish):
    reply = reply_of("".join(pieces), finish)
    choice = reply.whole()["choices"][0]
    message = choice["message"]
    got = streamed(reply, pieces)
    assert got == (message["content"] or "", message.get("tool_calls", []), choice["finish_reason"])


def test_the_form_of_an_answer_with_calls():
    reply = reply_of(ONE + ONE)
    (choice,) = reply.whole()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    first, second = choice["message"]["tool_calls"]
    assert first["function"] == {"name": "f", "arguments": '{"x": [1, "é"]}'}
    assert first["id"] != second["id"]
    assert reply.whole()["choices"][0] == choice  # ids follow from the receipt
    assert reply_of(ONE, "length").whole()["choices"][0]["finish_reason"] == "length"
