"""Endpoints: OpenAI's form, the same tokens as the library's, whoever else is served."""

import json
import threading

import openai
import pytest

from ree.generation.generator import Completion, Generator, Request
from ree.generation.receipt import Receipt
from ree.generation.request import Sampling
from ree.generation.verification import check_receipt
from ree.serving.bodies import MAX_BODY
from ree.serving.receipts import Receipts
from ree.signing import SigningKey

from .conftest import CONTEXT, HI, STOP, model_of, serving

PROMPT = "the thin thing"
KEY = "0123456789abcdef"


def alone(request):
    """What the library answers: text, tokens, why it ended."""
    receipt, _ = Generator(model_of(), threads=1).generate(request)
    return receipt.text, list(receipt.completion_tokens), receipt.finish


def text_of(chunks, index=0):
    choices = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
    return "".join(c["delta"].get("content", "") if "delta" in c else c["text"] for c in choices)


def test_models_health_version(client):
    status, health, _ = client.ask("/health")
    assert (status, health) == (200, {"status": "ok", "models": {"tiny": "ready"}})
    (card,) = client.ask("/v1/models")[1]["data"]
    assert (card["id"], card["object"], card["max_model_len"]) == ("tiny", "model", CONTEXT)
    assert card["weights_root"] == model_of().program.weights_root.hex()
    assert client.ask("/v1/models/tiny")[1] == card
    assert client.ask("/v1/models/other")[0] == 404
    assert client.ask("/version")[1].keys() == {"version"}


FILTERS = {
    "temperature": 1.5,
    "top_p": 0.8,
    "top_k": 40,
    "min_p": 0.01,
    "logit_bias": {"65": 4},
    "min_tokens": 3,
}


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"seed": 7}, {"seed": 7, **FILTERS}])
def test_the_same_tokens_as_the_librarys_streamed_or_not(client, sampling):
    given = {k: v for k, v in sampling.items() if k != "logit_bias"} | {
        "seed": sampling.get("seed", 1)
    }
    bias = {int(k): v for k, v in sampling.get("logit_bias", {}).items()}
    want = alone(Request(messages=HI, sampling=Sampling(**given, bias=bias), max_tokens=40))
    whole = client.chat(max_tokens=40, return_token_ids=True, **sampling)
    (choice,) = whole["choices"]
    finish = "length" if want[2] == "length" else "stop"
    assert (choice["message"]["content"], choice["token_ids"], choice["finish_reason"]) == (
        *want[:2],
        finish,
    )
    chunks = client.stream(max_tokens=40, return_token_ids=True, **sampling)
    assert text_of(chunks) == want[0]
    assert [t for c in chunks for t in c["choices"][0].get("token_ids", [])] == want[1]
    assert chunks[-1]["choices"][0]["finish_reason"] == finish
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {c["id"] for c in chunks} == {chunks[0]["id"]}


def test_completions_of_texts_and_tokens(client):
    tokens = model_of().tokenizer.encode(PROMPT)
    want = [
        alone(Request(prompt=PROMPT, sampling=Sampling(seed=3, choice=i), max_tokens=16))[0]
        for i in range(2)
    ]
    got = client.complete(prompt=[PROMPT, tokens], seed=3, n=2)
    assert [c["text"] for c in got["choices"]] == want * 2
    assert [c["index"] for c in got["choices"]] == [0, 1, 2, 3]
    two = client.complete(prompt=PROMPT, seed=3, n=2, return_token_ids=True)["choices"]
    drawn = sum(len(c["token_ids"]) for c in two)
    usage = got["usage"]
    assert 0 <= usage.pop("prompt_tokens_details")["cached_tokens"] <= 2 * len(tokens)
    assert usage == {"prompt_tokens": 2 * len(tokens), "completion_tokens": 2 * drawn,
                     "total_tokens": 2 * len(tokens) + 2 * drawn}  # fmt: skip
    echoed = client.complete(prompt=[PROMPT, tokens], seed=3, echo=True)
    assert [c["text"] for c in echoed["choices"]] == [PROMPT + want[0]] * 2
    chunks = client.stream("/v1/completions", prompt=PROMPT, seed=3, echo=True)
    assert text_of(chunks) == PROMPT + want[0]


def test_choices_are_reproducible_one_by_one(client):
    got = client.chat(n=3, seed=5, max_tokens=12)
    want = [
        alone(Request(messages=HI, sampling=Sampling(seed=5, choice=i), max_tokens=12))[0]
        for i in range(3)
    ]
    assert [c["message"]["content"] for c in got["choices"]] == want
    assert len(set(want)) == 3
    chunks = client.stream(n=3, seed=5, max_tokens=12)
    assert [text_of(chunks, i) for i in range(3)] == want


def test_a_seed_that_was_not_given_is_told_and_repeats_the_answer(client):
    first, second = (client.chat(max_tokens=12) for _ in range(2))
    assert first["ree"]["seed"] != second["ree"]["seed"]
    again = client.chat(max_tokens=12, seed=first["ree"]["seed"])
    assert again["choices"] == first["choices"]
    assert again["system_fingerprint"] == first["system_fingerprint"]


def test_usage_at_the_end_of_a_stream(client):
    *chunks, last = client.stream(max_tokens=4, seed=1, stream_options={"include_usage": True})
    assert all(c["usage"] is None for c in chunks)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + 4
    assert all("usage" not in c for c in client.stream(max_tokens=4))


def test_stop_strings_tokens_and_their_reasons(client):
    text, tokens, _ = alone(
        Request(messages=HI, sampling=Sampling(seed=9), max_tokens=40, stop_tokens=())
    )
    stop = text[5:8]
    before = text[: text.index(stop)]
    got = client.chat(seed=9, max_tokens=40, stop=[stop], ignore_eos=True)["choices"][0]
    assert (got["message"]["content"], got["finish_reason"], got["stop_reason"]) == (
        before,
        "stop",
        stop,
    )
    kept = client.chat(
        seed=9, max_tokens=40, stop=stop, ignore_eos=True, include_stop_str_in_output=True
    )
    assert kept["choices"][0]["message"]["content"] == before + stop
    assert text_of(client.stream(seed=9, max_tokens=40, stop=stop, ignore_eos=True)) == before
    at = client.chat(
        seed=9, max_tokens=40, stop_token_ids=[tokens[3]], ignore_eos=True, return_token_ids=True
    )
    (choice,) = at["choices"]
    assert choice["token_ids"] == tokens[: tokens.index(tokens[3]) + 1]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", tokens[3])
    biased = client.chat(max_tokens=40, logit_bias={str(STOP): 100})["choices"][0]
    assert (biased["finish_reason"], biased["stop_reason"]) == ("stop", None)


def test_every_answer_has_a_receipt_that_verifies(client):
    got = client.chat(n=2, max_tokens=6, seed=4)
    _, _, headers = client.ask(
        "/v1/chat/completions", {"model": "tiny", "messages": HI, "seed": 4, "max_tokens": 6}
    )
    assert headers["x-ree-receipt"] == got["ree"]["receipts"][0]
    streamed = [
        c["ree"]["receipts"][0] for c in client.stream(n=2, max_tokens=6, seed=4) if "ree" in c
    ]
    assert sorted(streamed) == sorted(got["ree"]["receipts"])
    for digest, choice in zip(got["ree"]["receipts"], got["choices"], strict=True):
        raw = json.dumps(client.ask(f"/v1/receipts/{digest}")[1]).encode()
        receipt = Receipt.of(raw)
        assert receipt.text == choice["message"]["content"]
        assert check_receipt(receipt, model_of(), threads=1) is None
    assert client.ask("/v1/receipts/" + "0" * 64)[0] == 404


def test_receipts_are_signed_and_written(tmp_path):
    key = SigningKey(bytes(32))
    with serving(receipts=Receipts(tmp_path, key)) as client:
        (digest,) = client.chat(max_tokens=3)["ree"]["receipts"]
    receipt = Receipt.of((tmp_path / f"{digest}.json").read_bytes())
    assert [s.key for s in receipt.signatures] == [key.key.hex()]
    assert check_receipt(receipt, model_of(), threads=1) is None


def test_a_template_sees_the_date_that_is_given(client):
    prompts = [
        client.chat(max_tokens=1, seed=1, date=d, return_token_ids=True)
        for d in ("2020-01-01", None)
    ]
    assert prompts[0]["choices"] == prompts[1]["choices"]  # of this template the date is no part
    (digest,) = prompts[0]["ree"]["receipts"]
    assert client.ask(f"/v1/receipts/{digest}")[1]["request"]["date"] == "2020-01-01T00:00:00"


def test_tokenizing_there_and_back(client):
    model = model_of()
    _, got, _ = client.ask(
        "/tokenize", {"model": "tiny", "prompt": "the é", "return_token_strs": True}
    )
    assert got["tokens"] == model.tokenizer.encode("the é")
    assert got["token_strs"] == [model.tokenizer.piece(t) for t in got["tokens"]]
    assert (got["count"], got["max_model_len"]) == (len(got["tokens"]), CONTEXT)
    assert client.ask("/detokenize", {"tokens": got["tokens"]})[1] == {"prompt": "the é"}
    _, chat, _ = client.ask("/tokenize", {"messages": HI})
    assert (
        chat["tokens"]
        == client.chat(max_tokens=1, return_token_ids=True)["choices"][0]["prompt_token_ids"]
    )
    assert (
        client.ask("/apply-template", {"messages": HI})[1]["prompt"]
        == "<s>user: hi</s><s>assistant: "
    )
    wrong = [
        ("/tokenize", {}), ("/tokenize", {"prompt": "a", "messages": HI}), ("/detokenize", {"tokens": [999]}),
        ("/tokenize", {"prompt": 3}), ("/tokenize", {"prompt": "a", "more": 1}),
        ("/apply-template", {"messages": []}), ("/tokenize", {"messages": HI, "model": "x"}),
    ]  # fmt: skip
    for path, body in wrong:
        status, value, _ = client.ask(path, body)
        assert status in (400, 404)
        assert "\n" not in value["error"]["message"]


TALK = {"model": "tiny", "messages": HI}
WRONG = [
    ("/v1/chat/completions", b"{", 400, None, "invalid_json"),
    ("/v1/chat/completions", TALK | {"model": "x"}, 404, "model", "model_not_found"),
    ("/v1/chat/completions", TALK | {"messages": []}, 400, "messages", None),
    ("/v1/chat/completions", TALK | {"temperature": -1}, 400, "temperature", None),
    ("/v1/chat/completions", TALK | {"logit_bias": {"999": 1}}, 400, "logit_bias", None),
    (
        "/v1/chat/completions",
        TALK | {"length_penalty": 2},
        400,
        "length_penalty",
        "unsupported_value",
    ),
    ("/v1/chat/completions", TALK | {"stop_token_ids": [999]}, 400, None, None),
    ("/v1/completions", {"model": "tiny", "prompt": [999]}, 400, "prompt", None),
    (
        "/v1/completions",
        {"model": "tiny", "prompt": "a" * 600},
        400,
        "prompt",
        "context_length_exceeded",
    ),
    ("/v1/completions", b'{"prompt": "' + b"a" * MAX_BODY + b'"}', 413, None, "request_too_large"),
    ("/v1/other", {}, 404, None, "not_found"),
    ("/v1/models", {}, 405, None, "method_not_allowed"),
]


@pytest.mark.parametrize(("path", "body", "status", "param", "code"), WRONG)
def test_what_is_wrong_is_refused_in_openais_form(client, path, body, status, param, code):
    got, value, _ = client.ask(path, body)
    error = value["error"]
    assert (got, error["code"]) == (status, code)
    assert param is None or error["param"] == param
    assert "\n" not in error["message"]
    assert "Traceback" not in json.dumps(value)
    assert client.ask("/health")[0] == 200


def test_a_prompt_that_is_too_long_is_told_with_both_numbers(client):
    _, value, _ = client.ask("/v1/completions", {"model": "tiny", "prompt": "a" * 600})
    assert "600 tokens" in value["error"]["message"]
    assert str(CONTEXT) in value["error"]["message"]


def test_an_answer_ends_where_the_context_does(client):
    got = client.complete(prompt="a" * (CONTEXT - 5), max_tokens=50, ignore_eos=True)
    assert got["usage"]["completion_tokens"] == 5
    assert got["choices"][0]["finish_reason"] == "length"
    with serving(positions=20) as small:
        (choice,) = small.complete(prompt="a" * 12, max_tokens=50, ignore_eos=True)["choices"]
        assert choice["finish_reason"] == "length"
        (digest,) = small.complete(prompt="a" * 12, max_tokens=50, ignore_eos=True)["ree"][
            "receipts"
        ]
        receipt = Receipt.of(json.dumps(small.ask(f"/v1/receipts/{digest}")[1]).encode())
        assert len(receipt.completion_tokens) == 8
        assert check_receipt(receipt, model_of(), threads=1) is None
        assert small.ask("/v1/completions", {"model": "tiny", "prompt": "a" * 20})[0] == 400


def test_fields_that_are_not_known(client):
    body = {"model": "tiny", "messages": HI, "max_tokens": 1, "tempratur": 0, 'a"\r\n\\é': 1}
    status, _, headers = client.ask("/v1/chat/completions", body)
    assert status == 200
    assert headers["warning"] == '299 ree "ignored: a?????, tempratur"'
    with serving(strict=True) as strict:
        status, value, _ = strict.ask("/v1/chat/completions", body)
        assert status == 400
        assert value["error"]["code"] == "unknown_parameter"


def test_only_who_has_a_key_is_answered():
    with serving(keys=[KEY, KEY[::-1]]) as client:
        for headers in (
            {},
            {"Authorization": "Bearer x"},
            {"Authorization": KEY},
            {"Authorization": f"Basic {KEY}"},
        ):
            for path, body in (
                ("/v1/models", None),
                ("/metrics", None),
                ("/v1/completions", {"model": "tiny"}),
            ):
                status, value, had = client.ask(path, body, headers)
                assert (status, value["error"]["code"]) == (401, "invalid_api_key")
                assert had["www-authenticate"] == "Bearer"
        for key in (KEY, KEY[::-1]):
            assert client.ask("/v1/models", None, {"Authorization": f"Bearer {key}"})[0] == 200
        assert client.ask("/health")[0] == 200


def test_metrics_count(client):
    client.chat(max_tokens=5)
    _, text, _ = client.ask("/metrics")
    before = {
        line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line[0] != "#"
    }
    client.chat(max_tokens=5)
    client.ask("/v1/chat/completions", b"{")
    _, text, _ = client.ask("/metrics")
    after = {
        line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line[0] != "#"
    }
    grown = {k: after[k] - before.get(k, 0) for k in after if after[k] != before.get(k, 0)}
    assert grown["ree_generated_tokens_total"] == 5
    assert grown['ree_requests_total{endpoint="/v1/chat/completions",status="200"}'] == 1
    assert grown['ree_requests_total{endpoint="/v1/chat/completions",status="400"}'] == 1
    assert after['ree_slots{model="tiny"}'] == 4


def test_openais_own_client(client):
    with openai.OpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0) as ai:
        assert [m.id for m in ai.models.list()] == ["tiny"]
        whole = ai.chat.completions.create(model="tiny", messages=HI, seed=2, max_tokens=9)
        assert whole.choices[0].finish_reason in ("stop", "length")
        stream = ai.chat.completions.create(model="tiny", messages=HI, seed=2, max_tokens=9, stream=True,
                                            stream_options={"include_usage": True})  # fmt: skip
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == whole.choices[0].message.content
        used = [
            u.model_dump(exclude={"prompt_tokens_details"}) for u in (chunks[-1].usage, whole.usage)
        ]
        assert used[0] == used[1]
        # the second time, all but the last token of the prompt is there already
        again = chunks[-1].usage
        assert again.prompt_tokens_details.cached_tokens == again.prompt_tokens - 1
        done = ai.completions.create(model="tiny", prompt=[[1, 2], [3]], seed=2, max_tokens=3)
        assert len(done.choices) == 2
        with pytest.raises(openai.NotFoundError):
            ai.chat.completions.create(model="x", messages=HI)
        with pytest.raises(openai.BadRequestError) as e:
            ai.chat.completions.create(model="tiny", messages=HI, presence_penalty=3)
        assert e.value.param == "presence_penalty"


def test_openais_own_client_knows_a_wrong_key():
    with (
        serving(keys=[KEY]) as closed,
        openai.OpenAI(base_url=f"{closed.url}/v1", api_key="wrong", max_retries=0) as ai,
        pytest.raises(openai.AuthenticationError),
    ):
        ai.models.list()


def test_many_clients_get_what_one_would(client):
    """More requests than slots, of different lengths, streamed and not, all at once."""
    want = {
        s: client.chat(seed=s, max_tokens=3 + s)["choices"][0]["message"]["content"]
        for s in range(12)
    }
    got, failed = {}, []

    def one(s):
        try:
            if s % 2:
                got[s] = text_of(client.stream(seed=s, max_tokens=3 + s))
            else:
                got[s] = client.chat(seed=s, max_tokens=3 + s)["choices"][0]["message"]["content"]
        except Exception as e:
            failed.append(e)

    threads = [threading.Thread(target=one, args=(s,)) for s in want]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed
    assert got == want


def test_calls_of_tools_come_from_the_models_form_alone(monkeypatch):
    """What a model says is planted: a tiny random one calls nothing."""
    said = 'Well. <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    tools = [{"type": "function", "function": {"name": "f"}}]
    with serving() as client:
        monkeypatch.setattr(Completion, "text", property(lambda self: said))
        plain = client.chat(tools=tools, max_tokens=2, seed=1)["choices"][0]
        assert (plain["message"]["content"], "tool_calls" in plain["message"]) == (said, False)
        model = client.server.services["tiny"].model
        monkeypatch.setattr(model, "template", model.template + "{# <tool_call> #}")
        bias = {str(STOP): 100}
        (choice,) = client.chat(tools=tools, logit_bias=bias, seed=1)["choices"]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "Well. ")
        (call,) = choice["message"]["tool_calls"]
        assert call["function"] == {"name": "f", "arguments": '{"a": 1}'}
        *_, told, last = client.stream(tools=tools, logit_bias=bias, seed=1)
        assert told["choices"][0]["delta"]["tool_calls"] == [{"index": 0, **call}]
        assert last["choices"][0]["finish_reason"] == "tool_calls"
        assert (
            client.chat(tools=tools, tool_choice="none", max_tokens=2)["choices"][0]["message"][
                "content"
            ]
            == said
        )


@pytest.mark.parametrize("path", ["/tokenize", "/v1/chat/completions"])
def test_names_that_are_no_unicode_are_told_as_escapes(path):
    with serving(strict=True) as client:
        raw = json.dumps({"model": "tiny", "messages": HI, "\ud800": 1}).encode()
        status, value, _ = client.ask(path, raw)
        assert (status, value["error"]["param"]) == (400, "\ud800")
