"""ree serve, as a person types it."""

import http.client
import json
import signal

import pytest

from ree.cli import main

from .conftest import start, wait_until_ready

KEY = "0123456789abcdef"


def test_serve_answer_and_stop(artifact, tmp_path):
    (tmp_path / "key").write_text(KEY)
    process, said = start(f"small={artifact}", artifact, "--api-key", f"@{tmp_path / 'key'}", "--receipts",
                          str(tmp_path / "receipts"), "--slots", "2", "--context", "64")  # fmt: skip
    try:
        assert said["models"] == ["small", "tiny"]
        host = said["url"].removeprefix("http://")
        wait_until_ready(host)
        connection = http.client.HTTPConnection(host, timeout=60)
        for model in said["models"]:
            body = {"model": model, "prompt": "a", "max_tokens": 2, "seed": 1}
            connection.request(
                "POST", "/v1/completions", json.dumps(body), {"Authorization": f"Bearer {KEY}"}
            )
            answer = json.loads(connection.getresponse().read())
            assert answer["usage"]["completion_tokens"] >= 1
        (digest,) = answer["ree"]["receipts"]
        assert [p.name for p in (tmp_path / "receipts").iterdir()] == [
            f"{digest}.json"
        ]  # of both: the same bits
        connection.close()
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert "Traceback" not in err


def test_told_to_stop_it_lets_answers_under_way_end_of_every_model(artifact):
    process, said = start(f"one={artifact}", f"two={artifact}")
    host = said["url"].removeprefix("http://")
    try:
        wait_until_ready(host)
        under_way = []
        for model in ("one", "two", "one"):
            body = {
                "model": model,
                "prompt": "a",
                "max_tokens": 400,
                "ignore_eos": True,
                "stream": True,
            }
            connection = http.client.HTTPConnection(host, timeout=60)
            connection.request("POST", "/v1/completions", json.dumps(body))
            response = connection.getresponse()
            under_way.append((connection, response, response.read1(200)))
        process.send_signal(signal.SIGTERM)
        for connection, response, first in under_way:
            rest = response.read()
            assert first.startswith(b"data: ")
            assert rest.endswith(b"data: [DONE]\n\n")
            assert b'"finish_reason":"length"' in rest
            connection.close()
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert err == ""
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(host, timeout=5).request("GET", "/health")


def test_a_model_that_does_not_load_ends_the_server(tmp_path):
    (tmp_path / "bad.ree").mkdir()
    process, said = start(str(tmp_path / "bad.ree"))
    assert said["models"] == ["bad"]
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in err
    assert err.startswith("error: ")


WRONG = [
    ["/nowhere.ree"], ["x=/nowhere"], ["{a}", "{a}"], ["{a}", "--port", "70000"], ["{a}", "--slots", "0"],
    ["{a}", "--queue", "-1"], ["{a}", "--context", "1"], ["{a}", "--api-key", "short"],
    ["{a}", "--key", "/nowhere"], ["{a}", "--receipts", "/nowhere/else"], ["{a}", "--host", "300.1.1.1"],
]  # fmt: skip


@pytest.mark.parametrize("args", WRONG)
def test_what_is_wrong_is_one_line(args, artifact, capsys):
    assert main(["serve", *(x.format(a=artifact) for x in args)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
