"""Requests: what is asked is honoured or refused by name, and nothing is ignored in silence."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ree.errors import InputError
from ree.serving import schema
from ree.serving.errors import ApiError
from ree.serving.schema import ChatRequest, CompletionRequest

TALK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TEXT = {"model": "m", "prompt": "hi"}
TOOL = {"type": "function", "function": {"name": "f"}}


def chat(**fields):
    return ChatRequest.of(json.dumps(TALK | fields).encode())


def complete(**fields):
    return CompletionRequest.of(json.dumps(TEXT | fields).encode())


def test_what_is_left_out_is_openais_default():
    r = chat()
    assert (r.temperature, r.top_p, r.top_k, r.min_p, r.seed, r.choices) == (
        1.0,
        1.0,
        0,
        0.0,
        None,
        1,
    )
    assert (r.max_tokens, complete().max_tokens) == (None, 16)
    assert (r.stop, r.stop_tokens, r.stream, r.unknown) == ((), (), False, ())
    assert chat(**dict.fromkeys(schema.NEUTRAL | schema.NEUTRAL_IN_CHAT)) == r


def test_every_field_that_is_honoured():
    r = chat(
        max_completion_tokens=5, temperature=0, top_p=0.5, top_k=-1, min_p=0.1, seed=-3, n=2, stop="x",
        logit_bias={"7": -100, "0": 1.5}, min_tokens=2, stop_token_ids=[3], ignore_eos=True, stream=True,
        stream_options={"include_usage": True}, return_token_ids=True, include_stop_str_in_output=True,
        tools=[TOOL], tool_choice="auto",
    )  # fmt: skip
    assert (r.max_tokens, r.temperature, r.top_p, r.top_k, r.min_p, r.seed, r.choices) == (
        5,
        0.0,
        0.5,
        0,
        0.1,
        -3,
        2,
    )
    assert (r.stop, r.bias, r.min_tokens, r.stop_tokens) == (("x",), {7: -100.0, 0: 1.5}, 2, (3,))
    assert r.ignore_eos
    assert r.stream
    assert r.include_usage
    assert r.return_tokens
    assert r.include_stop
    assert r.tools == [TOOL]
    assert chat(tools=[TOOL], tool_choice="none").tools is None
    assert (
        chat(max_tokens=5).max_tokens == chat(max_tokens=5, max_completion_tokens=5).max_tokens == 5
    )


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        (["a", [1]], ("a", (1,))),
    ],
)
def test_prompts_of_every_form(prompt, read):
    assert complete(prompt=prompt).prompts == read


@pytest.mark.parametrize("name", schema.INFORMATION)
def test_information_has_no_effect(name):
    assert chat(**{name: {"any": [1]}}) == chat()


@pytest.mark.parametrize("endpoint", [chat, complete])
def test_what_is_not_known_is_listed_or_refused(endpoint):
    assert endpoint(tempratur=1, a=2).unknown == ("a", "tempratur")
    body, kind = (TALK, ChatRequest) if endpoint is chat else (TEXT, CompletionRequest)
    with pytest.raises(ApiError, match="there is no field 'tempratur'") as e:
        kind.of(json.dumps(body | {"tempratur": 1}).encode(), strict=True)
    assert e.value.param == "tempratur"


CASES = [
    *((chat, n, v) for n, v in (schema.NEUTRAL | schema.NEUTRAL_IN_CHAT).items()),
    *((complete, n, v) for n, v in (schema.NEUTRAL | schema.NEUTRAL_IN_COMPLETIONS).items()),
]


@pytest.mark.parametrize(("endpoint", "name", "neutral"), CASES)
def test_what_cannot_be_honoured_is_refused_by_name(endpoint, name, neutral):
    for value in neutral:
        endpoint(**{name: value})
    for value in (0, 1, 0.5, True, False, "x", "none", ["x"], {"x": 1}):
        if not any(value == x and isinstance(value, bool) == isinstance(x, bool) for x in neutral):
            with pytest.raises(ApiError, match=name) as e:
                endpoint(**{name: value})
            assert (e.value.status, e.value.param) == (400, name)


WRONG = {
    "temperature": [-0.1, 1e7, "1", True, [], 10**400],
    "top_p": [-1, 1.1, "x"],
    "min_p": [-1, 2],
    "top_k": [-2, 1 << 31, 0.5, "1", True],
    "seed": [0.5, 1 << 63, "1", True],
    "n": [0, 17, 1.0],
    "min_tokens": [-1, 0.5],
    "max_tokens": [0, -1, 1.5, "5", 1 << 40],
    "stop": ["", [""], ["a"] * 5, [1], {"a": 1}, "a" * 2000, 3, "\ud800"],
    "stop_token_ids": [[-1], [0.5], 3, ["a"], [1 << 30], [0] * 65],
    "logit_bias": [
        [],
        3,
        {"x": 1},
        {"-1": 1},
        {"1.0": 1},
        {"01": 1},
        {"1": "2"},
        {"1": 101},
        {"9999999": 1},
        {"٣": 1},
    ],
    "stream": ["true", 1],
    "ignore_eos": [1],
    "return_token_ids": ["x"],
    "model": [3, "\ud800"],
    "stream_options": [{"include_usage": True}, 3],
}


@pytest.mark.parametrize("endpoint", [chat, complete])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_one_line_that_names_its_field(endpoint, name):
    for value in WRONG[name]:
        with pytest.raises(ApiError) as e:
            endpoint(**{name: value})
        assert (e.value.status, e.value.param) == (400, name)
        assert name in e.value.message
        assert "\n" not in e.value.message
        assert len(e.value.message) < 400


ONE_ENDPOINT = [
    (chat, "messages", [None, [], "hi", [{"role": "bot", "content": ""}], 3]),
    (chat, "tools", ["f", [{}], {"a": 1}]),
    (chat, "tool_choice", ["required", "auto", {"type": "function", "function": {"name": "f"}}, 3]),
    (
        complete,
        "prompt",
        [
            None,
            "",
            [],
            [""],
            [[]],
            3,
            [1, "a"],
            [-1],
            [[1, -1]],
            ["a"] * 65,
            {"a": 1},
            [True],
            "\ud800",
        ],
    ),
]


@pytest.mark.parametrize(("endpoint", "name", "values"), ONE_ENDPOINT)
def test_a_wrong_value_of_one_endpoint(endpoint, name, values):
    for value in values:
        with pytest.raises(ApiError, match=name) as e:
            endpoint(**{name: value})
        assert (e.value.status, e.value.param) == (400, name)
        assert "\n" not in e.value.message


def test_what_does_not_go_together():
    for wrong in (
        {"max_tokens": 4, "max_completion_tokens": 5},
        {"stream_options": {"include_usage": True}},
    ):
        with pytest.raises(ApiError):
            chat(**wrong)
    with pytest.raises(ApiError, match="over 128 answers"):
        complete(prompt=["a"] * 10, n=16)
    with pytest.raises(ApiError, match=r"stream_options\.more"):
        chat(stream=True, stream_options={"more": 1})
    with pytest.raises(ApiError, match="continuous_usage_stats"):
        chat(stream=True, stream_options={"continuous_usage_stats": True})


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"3", b"null", b"\xff", b'{"model":"a","model":"b"}', b'{"temperature":NaN}',
     b"[" * 10**6,
     b'{"a":' * 1000, b'{"a":' + b"9" * 5000 + b"}"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest])
def test_what_is_not_an_object_is_one_line(kind, raw):
    with pytest.raises(ApiError) as e:
        kind.of(raw)
    assert "\n" not in e.value.message


def test_an_infinity_written_as_a_number_is_refused():
    raw = json.dumps(TALK).replace('"model"', '"temperature": 1e999, "model"').encode()
    with pytest.raises(ApiError, match="temperature"):
        ChatRequest.of(raw)


def test_errors_have_openais_form():
    e = ApiError("wrong", "n", code="c", hint="do")
    assert e.body() == {
        "error": {
            "message": "wrong; do",
            "type": "invalid_request_error",
            "param": "n",
            "code": "c",
        }
    }
    assert ApiError("x", status=429).body()["error"]["type"] == "rate_limit_error"
    assert ApiError("x", status=401).body()["error"]["code"] == "invalid_api_key"
    assert ApiError("x", status=418).body()["error"]["type"] == "invalid_request_error"
    assert ApiError("x", status=507).body()["error"]["type"] == "server_error"
    other = ApiError.of(InputError("bad", "hint"), "seed")
    assert (other.status, other.param, other.hint) == (400, "seed", "hint")
    assert ApiError.of(e) is e


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3),
    max_leaves=6,
)
NAMES = sorted(
    {*schema.NEUTRAL, *schema.NEUTRAL_IN_CHAT, *schema.NEUTRAL_IN_COMPLETIONS, *schema.INFORMATION, *WRONG,
     "messages", "prompt", "tools", "tool_choice", "max_completion_tokens", "echo"}
)  # fmt: skip


@settings(deadline=None, max_examples=500)
@given(fields=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6), chatting=st.booleans())
def test_any_json_is_a_request_or_a_refusal(fields, chatting):
    kind, body = (ChatRequest, TALK) if chatting else (CompletionRequest, TEXT)
    raw = json.dumps(body | fields).encode()
    try:
        kind.of(raw)
    except ApiError as e:
        line = e.body()["error"]["message"]
    else:
        line = ""
    assert "\n" not in line
