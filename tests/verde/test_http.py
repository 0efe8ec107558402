"""Parties and referee as processes over HTTP, and servers that are no party."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from ree.cli import main
from ree.errors import DisputeError
from ree.verde import moves as m
from ree.verde.http_client import HttpTransport
from ree.verde.messages import (
    MAX_ANSWER,
    MAX_REQUEST,
    Parties,
    Signed,
    decode_signed,
    encode_request,
)
from ree.verde.referee import InvalidResponse, NoResponse

ENV = {**os.environ, "REE_NUM_THREADS": "1"}  # of processes
FAULT = "0,11,130,0x100000"  # in the linear layer


@pytest.fixture(scope="module")
def artifact(program, tmp_path_factory):
    path = tmp_path_factory.mktemp("http") / "m.ree"
    program.save(path)
    return path


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def served(Served, artifact):
    """An honest party and a liar."""
    parties = [Served(artifact), Served(artifact, "--fault", FAULT)]
    yield parties
    for p in parties:
        p.stop()


@pytest.fixture
def answers():
    """Servers that answer with given bytes, whatever they are asked."""
    servers, stop = [], threading.Event()

    def serve(*pieces, every=0.0):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def one(peer):
            try:
                peer.recv(1 << 16)
                for piece in pieces:
                    if stop.is_set():
                        break
                    peer.sendall(piece)
                    time.sleep(every)
            except OSError:
                pass
            finally:
                peer.close()

        def run():
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(peer,), daemon=True).start()

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    yield serve
    stop.set()
    for s in servers:
        s.close()


def dispute(capsys, artifact, defender, challenger, out, *more):
    capsys.readouterr()
    code = main(["dispute", "--defender", defender, "--challenger", challenger, "--artifact", str(artifact),
                 "-o", str(out), "--json", *more])  # fmt: skip
    text, err = capsys.readouterr()
    return code, json.loads(text) if text else None, err


def test_end_to_end(capsys, artifact, served, tmp_path):
    honest, liar = (p.url for p in served)
    code, data, _ = dispute(capsys, artifact, liar, honest, tmp_path / "v")
    assert (code, data["winner"], data["reason"][:8]) == (1, "challenger", "executed")
    code, again, err = dispute(capsys, artifact, liar, honest, tmp_path / "v")  # decided already
    assert (code, again["reason"]) == (1, data["reason"])
    assert "resuming after" in err
    code, data, _ = dispute(capsys, artifact, honest, liar, tmp_path / "w")
    assert (code, data["winner"]) == (0, "defender")
    for line in data["timeline"]:
        assert line["bytes"] <= 64 << 10
        assert line["seconds"] <= 1
    for name in ("v", "w"):
        assert main(["verdict", str(tmp_path / name), "--artifact", str(artifact)]) == 0
        assert "follows: the" in capsys.readouterr().out
    assert main(["verdict", str(tmp_path / "v"), "--artifact", str(artifact), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["follows"] is True
    raw = (tmp_path / "v").read_bytes()
    (tmp_path / "v").write_bytes(raw.replace(b'"winner":"challenger"', b'"winner":"defender"'))
    assert main(["verdict", str(tmp_path / "v"), "--artifact", str(artifact)]) == 1
    assert "altered" in capsys.readouterr().out


def test_the_lines_of_a_dispute(capsys, artifact, served, tmp_path):
    honest, liar = (p.url for p in served)
    assert main(["dispute", "--defender", liar, "--challenger", honest, "--artifact", str(artifact),
                 "-o", str(tmp_path / "v")]) == 1  # fmt: skip
    out, _ = capsys.readouterr()
    assert "points at the values" in out
    assert "the challenger wins after" in out.splitlines()[-2]


def test_both_parties_and_the_referee_restart(Served, capsys, artifact, tmp_path):
    """Everything is killed again and again; the dispute ends as if nothing had happened."""
    ports = [free_port(), free_port()]
    options = [(), ("--fault", FAULT)]
    parties = [Served(artifact, *o, port=p) for o, p in zip(options, ports, strict=True)]
    honest, liar = (p.url for p in parties)
    out = tmp_path / "v"
    command = [sys.executable, "-P", "-m", "ree.cli", "dispute", "--defender", liar, "--challenger", honest,
               "--artifact", str(artifact), "-o", str(out)]  # fmt: skip
    transcript = tmp_path / "v.transcript"
    try:
        seen = 0
        for i in range(2):
            p = subprocess.Popen(
                command, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            deadline = time.monotonic() + 30
            while p.poll() is None and time.monotonic() < deadline:
                if transcript.exists() and transcript.read_bytes().count(b"\n") > seen + 3:
                    break
                time.sleep(0.002)
            p.kill()
            p.wait()
            seen = transcript.read_bytes().count(b"\n")
            parties[i % 2].stop()
            parties[i % 2] = Served(artifact, *options[i % 2], port=ports[i % 2])
        assert subprocess.run(command, env=ENV, capture_output=True, check=False).returncode == 1
        code, data, _ = dispute(capsys, artifact, liar, honest, out)
        assert (code, data["reason"][:8]) == (1, "executed")
        assert main(["verdict", str(out), "--artifact", str(artifact)]) == 0
    finally:
        for p in parties:
            if p.process.poll() is None:
                p.stop()


def test_a_party_that_disappears_loses_by_its_clock(Served, capsys, artifact, served, tmp_path):
    honest = served[0].url
    liar = Served(artifact, "--fault", FAULT)
    code, _, _ = dispute(capsys, artifact, liar.url, honest, tmp_path / "v", "--time-limit", "2")
    assert code == 1
    liar.stop()
    transcript = tmp_path / "v.transcript"
    lines = transcript.read_bytes().splitlines(keepends=True)
    transcript.write_bytes(b"".join(lines[:5]))
    code, data, err = dispute(capsys, artifact, liar.url, honest, tmp_path / "v")
    assert (code, data["winner"], data["reason"]) == (1, "challenger", "timeout")
    assert "its clock runs" in err
    assert main(["verdict", str(tmp_path / "v"), "--artifact", str(artifact)]) == 1
    assert "referee's word" in capsys.readouterr().out


def test_a_party_that_becomes_another_loses_by_its_clock(capsys, artifact, served, tmp_path):
    honest, liar = (p.url for p in served)
    assert dispute(capsys, artifact, liar, honest, tmp_path / "v")[0] == 1
    transcript = tmp_path / "v.transcript"
    lines = transcript.read_bytes().splitlines(keepends=True)
    transcript.write_bytes(b"".join(lines[:5]))
    nobody = f"http://127.0.0.1:{free_port()}"
    for a, b in ((honest, liar), (nobody, nobody)):  # neither is who it was
        code, _, err = dispute(capsys, artifact, a, b, tmp_path / "v")
        assert (code, err.count("its clock runs")) == (2, 2)
        assert transcript.read_bytes() == b"".join(lines[:5])
    code, data, err = dispute(capsys, artifact, honest, honest, tmp_path / "v")
    assert (code, data["winner"], data["reason"]) == (1, "challenger", "timeout")
    assert "defender: it stands for something else now; its clock runs" in err
    assert [x["what"][:7] for x in data["timeline"][-3:]] == ["no move", "no move", "loses i"]


def test_a_server_answers_what_it_should(served, honest):
    url = served[0].url
    way = HttpTransport(url)
    assert way.terms(5) == honest.terms
    statement = honest.terms.statement
    dispute = Parties(
        honest.terms, honest.signer.terms(replace(honest.terms, commitment=bytes(32)))
    )
    assert isinstance(decode_signed(way.ask(dispute, [], 5)).move, m.Open)

    def post(data, headers=None):
        import http.client

        c = http.client.HTTPConnection("127.0.0.1", way.port, timeout=10)
        try:
            c.request("POST", "/move", data, headers or {})
            r = c.getresponse()
            return r.status, r.read()
        finally:
            c.close()

    assert post(b"")[0] == 400
    assert post(b"[" * 100_000)[0] == 400
    assert post(b"\x00" * 1000)[0] == 400
    other = replace(honest.terms, statement=m.Statement(*[bytes(32)] * 5))
    for stranger in (other, replace(other, statement=statement, signature=bytes(64))):
        assert post(encode_request(Parties(stranger, stranger), []))[0] == 409
    assert post(encode_request(dispute, [Signed(m.Point(0))]))[0] == 409  # no dispute of this kind
    first = decode_signed(way.ask(dispute, [], 5))
    assert post(encode_request(dispute, [first, Signed(m.Point(7))]))[0] == 409
    try:
        status, _ = post(b" " * (MAX_REQUEST + 1))
        assert status == 413
    except OSError:  # it hung up in the middle
        pass
    assert way.terms(5) == honest.terms  # and it is still there


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def test_a_gigabyte_is_not_read(capsys, artifact, served, answers, tmp_path):
    forever = [b"x" * (1 << 20)] * 1024
    for head in (b"Content-Length: 1073741824\r\n\r\n", b"\r\n"):
        url = answers(HEAD + head, *forever)
        start = time.monotonic()
        with pytest.raises(InvalidResponse, match=f"more than {MAX_ANSWER} bytes"):
            HttpTransport(url).terms(20)
        assert time.monotonic() - start < 5
        code, data, err = dispute(capsys, artifact, url, served[0].url, tmp_path / "v")
        assert (code, data) == (2, None)
        assert "defender: not a party" in err
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01" + bytes(40),
        HEAD + b"Content-Length: 2\r\n\r\n{}",
        HEAD + b"Content-Length: 100\r\n\r\n{}",
        HEAD + b"Content-Length: -1\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n{}",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nhelp",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_is_no_party(capsys, artifact, served, answers, tmp_path, reply):
    url = answers(reply)
    with pytest.raises((InvalidResponse, NoResponse)):
        HttpTransport(url).terms(5)
    code, data, err = dispute(capsys, artifact, served[0].url, url, tmp_path / "v")
    assert (code, data, err.count("\n")) == (2, None, 1), err
    assert err.startswith("error: challenger:")


def test_an_answer_in_drops_is_late(answers):
    url = answers(HEAD + b"Content-Length: 1000\r\n\r\n", *[b"x"] * 1000, every=0.05)
    start = time.monotonic()
    with pytest.raises(NoResponse, match="timed out"):
        HttpTransport(url).terms(0.5)
    assert time.monotonic() - start < 3
    slow_head = answers(*[b"H"] * 1000, every=0.05)
    start = time.monotonic()
    with pytest.raises((NoResponse, InvalidResponse)):
        HttpTransport(slow_head).terms(0.5)
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    "url", ["", "ftp://x", "http://", "127.0.0.1:1", "http://h:99999", "http://h/?a=b"]
)
def test_what_is_no_url(capsys, artifact, tmp_path, url):
    with pytest.raises(DisputeError):
        HttpTransport(url)
    code, _, err = dispute(capsys, artifact, url, "http://127.0.0.1:1", tmp_path / "v")
    assert (code, err.count("\n")) == (2, 1)


def test_bad_input(Served, capsys, artifact, served, tmp_path):
    honest, liar = (p.url for p in served)
    nobody = f"http://127.0.0.1:{free_port()}"
    v = tmp_path / "v"

    def fails(want, *args):
        capsys.readouterr()
        assert main([str(a) for a in args]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert want in err
        assert len([x for x in err.splitlines() if not x.startswith("hint: ")]) == 1, err

    def refuses(want, a, b, *more, art=artifact):
        fails(
            want, "dispute", "--defender", a, "--challenger", b, "--artifact", art, "-o", v, *more
        )
        assert not v.exists()

    refuses("challenger: no answer from", honest, nobody)
    refuses("nothing to dispute", honest, honest)
    refuses("no artifact", honest, liar, art=tmp_path / "none.ree")
    refuses("--time-limit", honest, liar, "--time-limit", "0")
    refuses("--time-limit", honest, liar, "--time-limit", "nan")
    refuses("--move-limit", honest, liar, "--move-limit", "-1")
    refuses("No such file or directory", honest, liar, "-o", tmp_path / "no" / "v")
    refuses("Is a directory", honest, liar, "-o", tmp_path)
    save_file({"x": np.zeros((40, 200), np.float32)}, tmp_path / "x.safetensors")
    other = Served(artifact, "--inputs", str(tmp_path / "x.safetensors"))
    refuses("the parties' inputs differ", honest, other.url)
    other.stop()

    serve = ("party", "serve", artifact, "--port", "0")
    fails("--fault-row goes with --fault", *serve, "--fault-row", "0,0")
    for fault in ("x", "0", "0,0", "0,0,0,0", "0,0,0,1,1", "-1,0,0", "6,0,0", "2,0,0", "0,360,0", "0,0,999999",
                  "3,0,0"):  # fmt: skip
        fails("fault", *serve, f"--fault={fault}")
    for row in ("0", "99,0", "0,9999"):
        fails("fault", *serve, "--fault", "3,0,0", "--fault-row", row)
    fails("--port", "party", "serve", artifact, "--port", "70000")
    fails("cannot listen", "party", "serve", artifact, "--port", served[0].url.rsplit(":")[-1])
    fails("cannot listen", *serve, "--host", "no.such.host.invalid")
    fails("missing input 'x'", *serve, "--inputs", _empty(tmp_path))
    fails("no verdict at", "verdict", v, "--artifact", artifact)
    v.write_bytes(b"{}\n")
    fails("malformed", "verdict", v, "--artifact", artifact)


def _empty(folder):
    save_file({"_": np.zeros(0, np.float32)}, folder / "empty.safetensors")
    return folder / "empty.safetensors"


def test_a_server_stops_when_told(Served, artifact):
    party = Served(artifact)
    assert party.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
