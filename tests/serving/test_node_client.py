"""OpenAI's client for Node against a server, where there are node, npm and the package."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ree.embedding.model import EmbeddingModel
from ree.serving.embeddings import EncoderService

from .conftest import model_of, serving
from .test_embeddings import artifact  # noqa: F401

PACKAGE = "openai@6.49.0"
SCRIPT = Path(__file__).parent / "node_client.mjs"
KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the package is installed, with the script beside it."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("OpenAI's client for Node was NOT tried: there is no node or no npm")
    path = tmp_path_factory.mktemp("node")
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE]
    try:
        done = subprocess.run(install, cwd=path, capture_output=True, text=True, timeout=120)
        problem = done.stderr[-300:] if done.returncode else ""
    except subprocess.TimeoutExpired:
        problem = "npm took over 120 seconds"
    if problem:
        pytest.skip(f"OpenAI's client for Node was NOT tried: {problem}")
    shutil.copy(SCRIPT, path)
    return path


def test_openais_client_for_node(folder, artifact, monkeypatch, slow):  # noqa: F811
    encoder = EncoderService("words", lambda: EmbeddingModel.load(artifact, 1))
    with serving(encoders={"words": encoder}) as client, serving(keys=[KEY]) as keyed:
        model = client.server.services["tiny"].model
        monkeypatch.setattr(model, "template", f"{model_of().template}{{# <tool_call> #}}")
        done = subprocess.run(
            ["node", SCRIPT.name, client.url, keyed.url, KEY],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        got = json.loads(done.stdout)
        client.quiet()  # what was aborted has left its slot
        assert client.server.metrics.generated < 300
        want = client.chat(seed=2, max_tokens=9)
    assert (got["models"], got["with_key"]) == (["tiny", "words"], ["tiny"])
    assert got["whole"]["choices"] == want["choices"]
    assert got["whole"]["ree"] == want["ree"]
    assert got["streamed"] == want["choices"][0]["message"]["content"]
    assert got["usage"]["total_tokens"] == want["usage"]["total_tokens"]
    for choice in (got["called"], got["runner"]["choices"][0]):
        assert choice["finish_reason"] == "tool_calls"
        (call,) = choice["message"]["tool_calls"]
        assert call["function"]["name"] in ("f", "g")
        assert json.loads(call["function"]["arguments"])["a"] in (True, False)
    assert got["completion"]["usage"]["completion_tokens"] == 4
    vector = EmbeddingModel.load(artifact, 1).embed(["the cat"])[0]
    assert np.array(got["vector"], np.float32).tobytes() == vector.tobytes()
    assert 2 <= got["before_abort"] < 40  # of 400
    kinds = {name: (f["kind"], f["status"], f["code"]) for name, f in got["failures"].items()}
    assert kinds == {
        "wrong_key": ("AuthenticationError", 401, "invalid_api_key"),
        "no_model": ("NotFoundError", 404, "model_not_found"),
        "bad_field": ("BadRequestError", 400, None),
        "too_long": ("BadRequestError", 400, "context_length_exceeded"),
        "nobody": ("APIConnectionError", None, None),
    }
    assert got["failures"]["bad_field"]["param"] == "temperature"
