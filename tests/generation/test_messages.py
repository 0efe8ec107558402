"""Conversations: one form for templates, everything else one line with its place."""

import json

import pytest

from ree.errors import ReeError
from ree.generation.messages import MAX_DEPTH, MAX_OBJECTS, check_messages, check_tools

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": [1, 2]}'}}


def test_the_form_that_templates_see():
    messages = [
        {"role": "developer", "content": "be brief"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "name": None,
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "3", "tool_call_id": "c1"},
    ]
    assert check_messages(messages) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a\nb"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [CALL | {"function": {"name": "f", "arguments": {"x": [1, 2]}}}],
        },
        {"role": "tool", "content": "3", "tool_call_id": "c1"},
    ]


WRONG = {
    "messages": [[], {}, "hi", None, 3],
    r"messages\[0\]": [["hi"], [None], [[]]],
    r"messages\[0\].role": [
        [{"content": "x"}],
        [{"role": "bot", "content": "x"}],
        [{"role": ["user"], "content": ""}],
    ],
    r"messages\[0\].content": [
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": 3}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": ["x"]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
        [{"role": "user", "content": [{"type": "text", "text": 3}]}],
        [{"role": "user", "content": "\ud800"}],
        [{"role": "assistant", "content": None}],
    ],
    r"messages\[1\].tool_calls": [
        [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": "", "tool_calls": calls},
        ]
        for calls in (
            "f",
            ["f"],
            [{}],
            [{"function": {"name": 3}}],
            [CALL | {"function": {"name": "f", "arguments": "{"}}],
            [CALL | {"function": {"name": "f", "arguments": "[1]"}}],
        )
    ],
    r"messages\[0\].audio": [[{"role": "user", "content": "x", "audio": {}}]],
    r"messages\[0\].name": [[{"role": "user", "content": "x", "name": 3}]],
}


@pytest.mark.parametrize(("where", "messages"), [(w, m) for w, ms in WRONG.items() for m in ms])
def test_anything_else_is_one_line_with_its_place(where, messages):
    with pytest.raises(ReeError, match=where) as e:
        check_messages(messages)
    assert "\n" not in e.value.message


def test_too_many_are_refused():
    with pytest.raises(ReeError, match="5000 messages"):
        check_messages([{"role": "user", "content": "x"}] * 5000)
    with pytest.raises(ReeError, match="characters"):
        check_messages([{"role": "user", "content": "x" * (1 << 20)}] * 5)


def test_tools():
    tool = {
        "function": {"parameters": {"required": ["b"], "type": "object"}, "name": "f"},
        "type": "function",
    }
    (have,) = check_tools([tool])
    assert have == tool
    assert list(have) == ["type", "function"]
    assert list(have["function"]) == ["name", "parameters"]
    assert check_tools(None) is check_tools([]) is None


WRONG_TOOLS = [
    "f", {"type": "function"}, ["f"], [{}], [{"type": "web_search"}], [{"type": "function", "function": {}}],
    [{"type": "function", "function": {"name": "two words"}}],
    [{"type": "function", "function": {"name": "x" * 65}}],
    [{"type": "function", "function": {"name": "f", "parameters": "{}"}}],
    [{"type": "function", "function": {"name": "f", "more": 1}}],
    [{"type": "function", "function": {"name": "f"}, "more": 1}],
    [{"type": "function", "function": {"name": "f"}}] * 200,
]  # fmt: skip


@pytest.mark.parametrize("tools", WRONG_TOOLS)
def test_other_tools_are_one_line_with_their_place(tools):
    with pytest.raises(ReeError, match="tools") as e:
        check_tools(tools)
    assert "\n" not in e.value.message


def test_calls_and_messages_have_their_keys_in_one_order():
    """A receipt sorts keys: a template that prints a call has to see the same text before and after."""
    call = {"function": {"arguments": {"b": 1, "a": {"z": 2, "y": 3}}, "name": "f"}, "more": {"d": 1, "c": 2},
            "id": "c1"}  # fmt: skip
    message = {"tool_calls": [call], "name": "x", "content": "", "role": "assistant"}
    want = json.dumps(check_messages([message]))
    assert want.index('"name": "f"') < want.index('"arguments"')
    assert json.dumps(check_messages(json.loads(json.dumps([message], sort_keys=True)))) == want
    assert json.dumps(check_messages(json.loads(want))) == want


def deep(n):
    return json.loads('{"a":' * n + "1" + "}" * n)


NO_RECEIPT = {"half a pair": "\ud800", "a key": {"\ud800": 1}, "infinite": float("inf"),
              "no number": float("nan"), "deep": deep(MAX_DEPTH), "no JSON": {1}, "another key": {1: 2},
              "large": "x" * MAX_OBJECTS}  # fmt: skip


@pytest.mark.parametrize("what", NO_RECEIPT)
def test_what_no_receipt_can_hold_is_refused_wherever_it_stands(what):
    value = NO_RECEIPT[what]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"x": value}}}
    with pytest.raises(ReeError, match="tools"):
        check_tools([tool])
    for call in ({"more": value}, {"function": {"name": "f", "arguments": {"x": value}}}):
        with pytest.raises(ReeError, match="calls"):
            check_messages([{"role": "assistant", "content": "", "tool_calls": [CALL | call]}])


@pytest.mark.parametrize(
    "text", ['{"a":NaN}', '{"a":1e999}', '{"a":1,"a":2}', '{"a":' * 900 + "1" + "}" * 900]
)
def test_arguments_in_a_text_are_strict_json(text):
    call = CALL | {"function": {"name": "f", "arguments": text}}
    with pytest.raises(ReeError, match=r"messages\[0\].tool_calls\[0\]"):
        check_messages([{"role": "assistant", "content": "", "tool_calls": [call]}])
