"""Log-probabilities, penalties, forms of answers and forced calls, over HTTP."""

import json

import numpy as np
import openai
import pytest

from ree.generation.engine import Engine
from ree.generation.generator import Generator, Request
from ree.generation.request import Sampling
from ree.serving.logprobs_json import token_text

from .conftest import HI, model_of, serving

PROMPT = "the thin thing"
SCHEMA = {
    "type": "object",
    "properties": {"n": {"enum": [1, 2]}, "ok": {"type": "boolean"}},
    "required": ["n", "ok"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}
TOOLS = [{"type": "function", "function": {"name": n, "parameters": SCHEMA}} for n in ("f", "g")]


def tokens_of(prompt=PROMPT):
    return model_of().tokenizer.encode(prompt, add_special=True)


def expected(tokens):
    """f64 [tokens - 1]: log-probability of each token but the first, by another way."""
    logits = Engine(model_of().forward, threads=1).read(0, tokens, 0, first=0).astype(np.float64)
    x = logits - logits.max(1, keepdims=True)
    x -= np.log(np.exp(x).sum(1, keepdims=True))
    return x[np.arange(len(tokens) - 1), tokens[1:]]


def test_log_probabilities_of_a_chat(client):
    whole = client.chat(seed=4, max_tokens=6, logprobs=True, top_logprobs=3, return_token_ids=True)
    (choice,) = whole["choices"]
    content, ids = choice["logprobs"]["content"], choice["token_ids"]
    assert len(content) == len(ids)
    want = expected(choice["prompt_token_ids"] + ids)[-len(ids) :]
    assert np.allclose([c["logprob"] for c in content], want, atol=1e-5)
    for c, t in zip(content, ids, strict=True):
        assert c["token"] == token_text(model_of().tokenizer, t)
        top = [x["logprob"] for x in c["top_logprobs"]]
        assert len(top) == 3
        assert top == sorted(top, reverse=True)
        assert c["logprob"] <= top[0]
        assert float(np.float32(c["logprob"])) != 0
    chunks = client.stream(seed=4, max_tokens=6, logprobs=True, top_logprobs=3)
    streamed = [
        x for c in chunks for x in (c["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert streamed == content
    assert client.chat(seed=4, max_tokens=6)["choices"][0]["logprobs"] is None


def test_numbers_are_the_shortest_that_give_the_same_f32(client):
    (choice,) = client.chat(seed=4, max_tokens=20, logprobs=True)["choices"]
    for c in choice["logprobs"]["content"]:
        x = np.float32(c["logprob"])
        assert str(x) == repr(c["logprob"])


@pytest.mark.parametrize("most", [0, 1, 5])
def test_echo_gives_those_of_the_prompt(client, most):
    """As harnesses that score texts ask for it; none of it from what an earlier request left behind."""
    tokens = tokens_of()
    client.complete(prompt=tokens, max_tokens=1)
    (choice,) = client.complete(prompt=tokens, echo=True, max_tokens=most, logprobs=2, seed=1)[
        "choices"
    ]
    found = choice["logprobs"]
    n = len(tokens)
    assert found["token_logprobs"][0] is None
    assert found["top_logprobs"][0] is None
    assert (
        len(found["tokens"])
        == len(found["token_logprobs"])
        == len(found["text_offset"])
        == n + most
    )
    assert np.allclose(found["token_logprobs"][1:n], expected(tokens), atol=1e-5)
    assert all(2 <= len(t) <= 3 for t in found["top_logprobs"][1:])
    assert "".join(found["tokens"][:n]) == model_of().tokenizer.decode(tokens, skip_special=False)
    assert found["text_offset"] == np.cumsum([0, *map(len, found["tokens"])])[:-1].tolist()
    chunks = client.stream(
        "/v1/completions", prompt=tokens, echo=True, max_tokens=most, logprobs=2, seed=1
    )
    parts = [c["choices"][0]["logprobs"] for c in chunks if c["choices"][0]["logprobs"]]
    for name in ("tokens", "token_logprobs", "top_logprobs"):
        assert [x for p in parts for x in p[name]] == found[name]
    assert most or choice["finish_reason"] == chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_a_prompt_in_several_chunks(client):
    tokens = np.random.default_rng(0).integers(0, 250, 300).tolist()
    (choice,) = client.complete(prompt=tokens, echo=True, max_tokens=1, logprobs=0, seed=1)[
        "choices"
    ]
    got = choice["logprobs"]["token_logprobs"]
    assert np.allclose(got[1:300], expected(tokens), atol=1e-5)
    batch = client.complete(
        prompt=[[5], tokens, [6, 7]], echo=True, max_tokens=1, logprobs=0, seed=1
    )
    assert batch["choices"][1]["logprobs"]["token_logprobs"][:300] == got[:300]


def test_penalties_are_the_librarys(client):
    given = {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": -0.25}
    want, _ = Generator(model_of(), threads=1).generate(
        Request(messages=HI, sampling=Sampling(seed=7, **given), max_tokens=30)
    )
    (choice,) = client.chat(seed=7, max_tokens=30, return_token_ids=True, **given)["choices"]
    assert choice["token_ids"] == list(want.completion_tokens)
    (other,) = client.chat(seed=7, max_tokens=30, return_token_ids=True)["choices"]
    assert other["token_ids"] != choice["token_ids"]


@pytest.mark.parametrize("stream", [False, True])
def test_json_of_a_schema(client, stream):
    if stream:
        chunks = client.stream(seed=3, response_format=FORMAT)
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    else:
        (choice,) = client.chat(seed=3, response_format=FORMAT)["choices"]
        assert choice["finish_reason"] == "stop"
        text = choice["message"]["content"]
    value = json.loads(text)
    assert value["n"] in (1, 2)
    assert value["ok"] in (True, False)


def test_other_forms(client):
    def said(**form):
        (choice,) = client.complete(prompt=PROMPT, seed=3, max_tokens=60, structured_outputs=form)[
            "choices"
        ]
        return choice["text"]

    assert said(choice=["yes", "no"]) in ("yes", "no")
    assert said(regex="a{2}b") == "aab"
    assert said(grammar='start: "x" | "y"') in ("x", "y")
    assert json.loads(said(json=SCHEMA)).keys() == {"n", "ok"}
    (choice,) = client.chat(seed=3, max_tokens=5, response_format={"type": "json_object"})[
        "choices"
    ]
    assert choice["message"]["content"].startswith("{")
    (plain,) = client.chat(seed=3, max_tokens=5, response_format={"type": "text"})["choices"]
    assert plain == plain | {"finish_reason": "length"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"response_format": {"type": "yaml"}}, "response_format"),
     ({"response_format": "json"}, "response_format"),
     ({"response_format": {"type": "json_schema"}}, "response_format"),
     ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "strin"}}}},
      "response_format"),
     ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"const": "x" * 70000}}}},
      "response_format"),
     ({"response_format": FORMAT, "min_tokens": 2}, "response_format"),
     ({"response_format": FORMAT, "structured_outputs": {"regex": "a"}}, "structured_outputs"),
     ({"structured_outputs": {}}, "structured_outputs"),
     ({"structured_outputs": {"regex": "("}}, "structured_outputs"),
     ({"structured_outputs": {"regex": "a"}, "ignore_eos": True}, "structured_outputs"),
     ({"logit_bias": {"99999": 1}}, "logit_bias"),
     ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
     ({"top_logprobs": 3}, "top_logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
     ({"logprobs": 3}, "logprobs"), ({"repetition_penalty": 0}, "repetition_penalty"),
     ({"tools": TOOLS, "response_format": FORMAT}, "response_format"),
     ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice"),  # the model's template has no calls
     ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "h"}}}, "tool_choice"),
     ({"tools": TOOLS, "tool_choice": {"type": "function"}}, "tool_choice"),
     ({"tool_choice": "auto"}, "tool_choice")],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_field(client, fields, param):
    status, value, _ = client.ask(
        "/v1/chat/completions", {"model": "tiny", "messages": HI} | fields
    )
    assert (status, value["error"]["param"]) == (400, param), value
    assert "\n" not in value["error"]["message"]


def test_a_call_that_is_forced(monkeypatch):
    """The template has the form of calls; which of its tools a random model calls does not matter."""
    model = model_of()
    monkeypatch.setattr(model, "template", model.template + "{# <tool_call> #}")
    named = {"type": "function", "function": {"name": "g"}}
    with (
        serving() as client,
        openai.OpenAI(base_url=f"{client.url}/v1", api_key="-", max_retries=0) as ai,
    ):
        for choice, names in (("required", {"f", "g"}), (named, {"g"})):
            for stream in (False, True):
                answer = ai.chat.completions.create(
                    model="tiny",
                    messages=HI,
                    tools=TOOLS,
                    tool_choice=choice,
                    seed=2,
                    stream=stream,
                )
                if stream:
                    calls = [t for c in answer for t in c.choices[0].delta.tool_calls or ()]
                else:
                    assert answer.choices[0].finish_reason == "tool_calls"
                    calls = answer.choices[0].message.tool_calls
                (call,) = calls
                assert call.function.name in names
                assert json.loads(call.function.arguments).keys() == {"n", "ok"}


def test_a_conversation_is_a_chain_of_receipts(client):
    first = client.chat(seed=3, max_tokens=5)
    (digest,) = first["ree"]["receipts"]
    said = {"role": "assistant", "content": first["choices"][0]["message"]["content"]}
    second = client.chat(messages=[*HI, said, *HI], seed=3, max_tokens=5, previous_receipt=digest)
    _, m, _ = client.ask(f"/v1/receipts/{second['ree']['receipts'][0]}")
    assert m["previous"] == digest
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    for wrong in (digest.upper(), digest[1:], 7):
        status, value, _ = client.ask(
            "/v1/chat/completions", {"model": "tiny", "messages": HI, "previous_receipt": wrong}
        )
        assert (status, value["error"]["param"]) == (400, "previous_receipt")


def test_a_receipt_of_a_form_verifies(client):
    from ree.generation.receipt import Receipt
    from ree.generation.verification import check_receipt

    whole = client.chat(seed=3, response_format=FORMAT, frequency_penalty=0.5)
    _, m, _ = client.ask(f"/v1/receipts/{whole['ree']['receipts'][0]}")
    assert check_receipt(Receipt.of(json.dumps(m).encode()), model_of()) is None
