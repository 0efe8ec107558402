"""/v1/embeddings: the vectors of the library, to the bit, in OpenAI's form."""

import base64
import json
import random
import threading

import numpy as np
import openai
import pytest

from ree.embedding.model import EmbeddingModel
from ree.embedding.source import compile_encoder
from ree.errors import ArtifactError
from ree.serving.embeddings import MAX_INPUTS, EncoderService

from ..embedding.tiny import WORDS, directory  # noqa: TID252
from .conftest import HI, serving, start, wait_until_ready

TEXTS = ["the cat sat", "a dog.", "", "cats , dogs"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    directory(path / "m")
    compile_encoder(path / "m").save(path / "words.ree")
    return str(path / "words.ree")


@pytest.fixture(scope="module")
def model(artifact):
    return EmbeddingModel.load(artifact)


@pytest.fixture(scope="module")
def client(artifact):
    encoder = EncoderService("words", lambda: EmbeddingModel.load(artifact, 1))
    with serving(encoders={"words": encoder}) as client:
        yield client


def ask(client, **fields):
    return client.ask("/v1/embeddings", {"model": "words"} | fields)


def floats(value):
    return np.array([d["embedding"] for d in value["data"]], np.float32)


def test_numbers_and_base64_are_the_librarys_vectors(client, model):
    want = model.embed(TEXTS)
    status, value, _ = ask(client, input=TEXTS)
    assert (status, value["object"], value["model"]) == (200, "list", "words")
    assert floats(value).tobytes() == want.tobytes()
    assert [d["index"] for d in value["data"]] == [0, 1, 2, 3]
    count = sum(len(model.tokens(t)) for t in TEXTS)
    assert value["usage"] == {"prompt_tokens": count, "total_tokens": count}
    raw = [base64.b64decode(d["embedding"])
           for d in ask(client, input=TEXTS, encoding_format="base64")[1]["data"]]  # fmt: skip
    assert b"".join(raw) == want.tobytes()
    tokens = [model.tokens(t) for t in TEXTS]
    for given in (tokens, *([t] for t in tokens)):
        got = floats(ask(client, input=given, dimensions=16)[1])
        assert got.tobytes() in (want.tobytes(), *(v.tobytes() for v in want))
    assert floats(ask(client, input=TEXTS[0])[1]).tobytes() == want[0].tobytes()
    assert floats(ask(client, input=tokens[1])[1]).tobytes() == want[1].tobytes()


WRONG = [
    (
        {"input": "a " * 39},
        "input",
        "context_length_exceeded",
        "41 tokens, the model takes 1 to 40",
    ),
    ({"input": ["a", "a " * 39]}, "input", "context_length_exceeded", "input 1: the text has 41"),
    ({"input": []}, "input", None, "expected a text"),
    ({"input": [[]]}, "input", "context_length_exceeded", "0 tokens"),
    ({"input": ["a", [1]]}, "input", None, "expected a text"),
    ({"input": [len(WORDS)]}, "input", None, f"no token {len(WORDS)}"),
    ({"input": ["a"] * (MAX_INPUTS + 1)}, "input", None, f"at most {MAX_INPUTS}"),
    ({"input": "\ud800"}, "input", None, "expected a text"),
    ({"input": 3}, "input", None, "expected a text"),
    ({}, "input", None, "expected a text"),
    ({"input": "a", "dimensions": 8}, "dimensions", "unsupported_value", "vectors have 16"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format", None, "float or base64"),
    (
        {"input": "a", "truncate_prompt_tokens": 4},
        "truncate_prompt_tokens",
        "unsupported_value",
        "not supp",
    ),
    ({"input": "a", "model": "tiny"}, "model", None, "gives text and no vectors"),
    ({"input": "a", "model": None}, "model", "missing_required_parameter", "model is missing"),
]


@pytest.mark.parametrize(("fields", "param", "code", "message"), WRONG)
def test_what_is_wrong_is_told(client, fields, param, code, message):
    status, value, _ = ask(client, **fields)
    error = value["error"]
    assert (status, error["param"], error["code"]) == (400, param, code)
    assert message in error["message"]


def test_models_of_both_kinds(client):
    kinds = {m["id"]: m["kind"] for m in client.ask("/v1/models")[1]["data"]}
    assert kinds == {"tiny": "language", "words": "embedding"}
    card = client.ask("/v1/models/words")[1]
    assert (card["dimensions"], card["max_model_len"]) == (16, 40)
    status, value, _ = client.ask("/v1/chat/completions", {"model": "words", "messages": HI})
    assert status == 400
    assert "no text" in value["error"]["message"]
    assert ask(client, model="x", input="a")[0] == 404
    _, _, headers = ask(client, input="a", more=1)
    assert headers["warning"] == '299 ree "ignored: more"'
    assert client.ask("/health")[1]["models"]["words"] == "ready"


def test_many_clients_get_what_one_would(client, model):
    rng = random.Random(3)
    texts = [
        " ".join(rng.choices(["the", "cat", "dogs", "sat"], k=rng.randint(1, 30)))
        for _ in range(60)
    ]
    want = {t: model.embed([t]).tobytes() for t in texts}
    wrong = []

    def one(part):
        got = floats(ask(client, input=part)[1])
        wrong.extend(t for t, v in zip(part, got, strict=True) if v.tobytes() != want[t])

    threads = [threading.Thread(target=one, args=(texts[i : i + 20],)) for i in range(0, 41, 4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_openais_own_client(client, model):
    with openai.OpenAI(base_url=f"{client.url}/v1", api_key="none", max_retries=0) as ai:
        got = ai.embeddings.create(model="words", input=TEXTS)  # which asks for base64
        assert (
            np.array([d.embedding for d in got.data], np.float32).tobytes()
            == model.embed(TEXTS).tobytes()
        )
        with pytest.raises(openai.BadRequestError, match="41 tokens"):
            ai.embeddings.create(model="words", input="a " * 39)


def test_more_than_the_queue_takes_is_429(artifact, monkeypatch):
    go_on = threading.Event()
    call = EmbeddingModel.call
    encoder = EncoderService("words", lambda: EmbeddingModel.load(artifact, 1), queue=0)
    with serving(encoders={"words": encoder}) as client:

        def slow(self, rows):
            go_on.wait(30)
            return call(self, rows)

        monkeypatch.setattr(EmbeddingModel, "call", slow)
        first = threading.Thread(target=ask, args=(client,), kwargs={"input": "a"})
        first.start()
        while not encoder._under_way:
            pass
        status, value, headers = ask(client, input="a")
        assert (status, value["error"]["type"], headers["retry-after"]) == (
            429,
            "rate_limit_error",
            "1",
        )
        go_on.set()
        first.join()
        assert ask(client, input="a")[0] == 200


def test_an_encoder_that_does_not_load():
    def fail():
        raise ArtifactError("no such thing")

    with serving(encoders={"words": EncoderService("words", fail)}, ready=False) as client:
        while client.ask("/health")[1]["models"] != {"tiny": "ready", "words": "failed"}:
            pass
        assert client.ask("/health")[0] == 503
        status, value, _ = ask(client, input="a")
        assert status == 503
        assert "no such thing" in value["error"]["message"]


def test_ree_serve_takes_an_encoder(artifact):
    process, said = start(f"e={artifact}")
    try:
        assert said["models"] == ["e"]
        host = said["url"].removeprefix("http://")
        wait_until_ready(host)
        with openai.OpenAI(base_url=f"http://{host}/v1", api_key="none") as ai:
            assert (
                len(json.loads(ai.embeddings.create(model="e", input="a").to_json())["data"]) == 1
            )
    finally:
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
