"""The files of the chat page, and verification of receipts by the server that wrote them."""

import http.client
import json
import threading
import time

import pytest

from ree.cli.serve import is_loopback
from ree.generation.receipt import Receipt
from ree.generation.verification import check_receipt
from ree.serving import verifying
from ree.serving.page import FILES, FOLDER

from .conftest import HI, model_of, serving

LEVELS = ["signature", "text", "tokens"]


def planted(client, digest, change):
    """Another receipt in the place of one that the server keeps; its digest."""
    m = json.loads(client.server.receipts.find(digest))
    change(m)
    client.server.receipts._kept[digest] = json.dumps(m).encode()
    return digest


def receipt_of(client, **fields):
    return client.chat(seed=2, max_tokens=6, **fields)["ree"]["receipts"][0]


def test_the_page_is_served_under_a_policy_that_lets_nothing_else_run():
    with serving(keys=["0123456789abcdef"], ready=False) as client:
        for path, (name, kind) in FILES.items():
            status, text, headers = client.ask(path)
            assert (status, text) == (200, (FOLDER / name).read_text())
            assert headers["content-type"].split(";")[0] == kind
            policy = dict(
                p.strip().split(" ", 1) for p in headers["content-security-policy"].split(";")
            )
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == "'self'"
            assert policy["require-trusted-types-for"] == "'script'"
            assert headers["x-content-type-options"] == "nosniff"
        assert client.ask("/static/../app.py")[0] in (401, 404)
        assert client.ask("/v1/models")[0] == 401


def test_the_page_needs_nothing_from_elsewhere():
    for path in FOLDER.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", "")
        assert "innerHTML" not in text


def test_the_server_verifies_its_receipts_level_by_level(client):
    digest = receipt_of(client)
    status, report, _ = client.ask(f"/v1/receipts/{digest}/verify", method="POST")
    assert status == 200
    assert [(x["level"], x["same"], x["finding"]) for x in report["levels"]] == [
        (name, True, None) for name in LEVELS
    ]
    assert (report["digest"], report["model"], report["same"]) == (digest, "tiny", True)
    assert report["signed_by"] == []
    assert report["tokens"] > 6
    assert client.ask(f"/v1/receipts/{'0' * 64}/verify", method="POST")[0] == 404
    assert client.ask(f"/v1/receipts/{digest}/verify")[0] == 405


def other_text(m):
    m["text"] += "!"


def other_text_and_digest(m):
    other_text(m)
    m["digest"] = Receipt.of(json.dumps(m).encode()).digest.hex()


@pytest.mark.parametrize(
    ("change", "passed"), [(other_text, []), (other_text_and_digest, ["signature"])]
)
def test_a_receipt_that_is_wrong_fails_as_it_does_by_ree_verify(client, change, passed):
    digest = planted(client, receipt_of(client), change)
    _, report, _ = client.ask(f"/v1/receipts/{digest}/verify", method="POST")
    assert not report["same"]
    *before, last = report["levels"]
    assert [x["level"] for x in before if x["same"]] == passed
    receipt = Receipt.of(client.server.receipts.find(digest))
    assert last["finding"]["what"] == check_receipt(receipt, model_of(), threads=1).what


def test_a_receipt_of_a_model_that_is_not_served(client):
    def other(m):
        m["weights_root"] = "0" * 64

    digest = planted(client, receipt_of(client), other)
    status, value, _ = client.ask(f"/v1/receipts/{digest}/verify", method="POST")
    assert (status, value["error"]["code"]) == (404, "not_found")


def test_one_verification_at_a_time_and_none_for_who_has_gone(client, monkeypatch):
    digest = receipt_of(client)
    begun, go_on, ended = threading.Event(), threading.Event(), []

    def slow(receipt, model, level, *, threads, progress):
        begun.set()
        try:
            while not go_on.is_set():
                time.sleep(0.01)
                progress(1)
        except Exception as e:
            ended.append(e.status)
            raise

    monkeypatch.setattr(verifying, "check_receipt", slow)
    path = f"/v1/receipts/{digest}/verify"
    first = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    first.request("POST", path)
    assert begun.wait(30)
    status, value, headers = client.ask(path, method="POST")
    assert (status, value["error"]["type"]) == (429, "rate_limit_error")
    assert headers["retry-after"] == "1"
    first.close()
    deadline = time.monotonic() + 30
    while not ended:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert ended == [499]
    go_on.set()
    status = 429
    while status == 429:  # until the first one's thread is at its end
        status, report, _ = client.ask(path, method="POST")
    assert (status, report["same"]) == (200, True)


def test_a_name_of_another_site_that_leads_here_is_not_served():
    with serving(local=True) as local, serving() as other:
        for host, status in (
            ("localhost:8700", 200), ("127.0.0.1", 200), ("[::1]:9", 200), ("[::1]", 200), ("a.localhost", 200),
            ("", 200), ("evil.example:8700", 403), ("localhost.evil.example", 403),
            ("127.0.0.1.evil.example", 403), ("evil.example", 403),
            ("127.0.0.1@evil.example:80", 403), ("a:b:80", 403),
        ):  # fmt: skip
            for path in ("/", "/v1/models"):
                got, value, _ = local.ask(path, headers={"Host": host})
                assert got == status, host
                assert status == 200 or "--api-key" in value["error"]["message"]
            assert other.ask("/v1/models", headers={"Host": host})[0] == 200
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_pages_of_other_sites_are_not_served(client):
    body = {"model": "tiny", "messages": HI, "max_tokens": 1}
    for site, status in (
        ("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)
    ):  # fmt: skip
        got, value, _ = client.ask("/v1/chat/completions", body, {"Sec-Fetch-Site": site})
        assert got == status
        assert status == 200 or value["error"]["code"] == "other_site"
    assert client.ask("/", headers={"Sec-Fetch-Site": "cross-site"})[0] == 200  # a link to the page
