"""What strangers can do to a party's server: nothing that costs its owner a turn."""

import http.server
import json
import resource
import socket
import threading
import time

import pytest

from ree.cli import main
from ree.verde.http_client import HttpTransport
from ree.verde.messages import Parties, encode_move
from ree.verde.referee import InvalidResponse, NoResponse
from ree.verde.service import Local

FAULT = "0,11,130,0x100000"
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def artifact(program, tmp_path_factory):
    path = tmp_path_factory.mktemp("server") / "m.ree"
    program.save(path)
    return path


@pytest.fixture
def party(Served, artifact):
    p = Served(artifact)
    yield p
    p.stop()


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


HEAD = b"POST /move HTTP/1.1\r\nHost: x\r\n"
BODY_TO_COME = HEAD + b"Content-Length: 9\r\n\r\n{"
KEPT_ALIVE = b"GET /statement HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", HEAD, BODY_TO_COME, KEPT_ALIVE])
def test_many_connections_that_say_little(party, honest, many_files, sent):
    at = party.url.removeprefix("http://").split(":")
    idle = []
    try:
        for _ in range(1500):
            s = socket.create_connection((at[0], int(at[1])), 5)
            s.sendall(sent)
            idle.append(s)
        way, begin = HttpTransport(party.url), time.monotonic()
        assert way.terms(10) == honest.terms
        assert way.ask(Parties(honest.terms, honest.terms), [], 10)
        assert time.monotonic() - begin < 5
    finally:
        for s in idle:
            s.close()


def test_connections_have_a_deadline_unless_their_move_is_computed():
    import asyncio

    from ree.verde.connections import Connections

    class Transport:
        def __init__(self):
            self.gone = False

        def abort(self):
            self.gone = True

    async def go():
        c = Connections(most=3, seconds=0.05)
        a, b, d, e, f = (Transport() for _ in range(5))
        c.made(("liar", 1), a)
        c.made(("liar", 2), b)
        c.made(("referee", 1), d)
        c.busy(("liar", 1))
        c.made(("liar", 3), e)
        assert (a.gone, b.gone, d.gone, e.gone) == (False, True, False, False)  # the liar's oldest
        c.lost(("liar", 2))
        await asyncio.sleep(0.1)
        assert (a.gone, d.gone, e.gone) == (False, True, True)
        c.waits(("liar", 1))
        c.made(("x", 1), f)
        c.lost(("x", 1))
        await asyncio.sleep(0.1)
        assert (a.gone, f.gone) == (True, False)

    asyncio.run(go())


def test_a_token_is_asked_for(Served, capsys, artifact, honest, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    party = Served(artifact, "--token", f"@{tmp_path / 'token'}")
    liar = Served(artifact, "--fault", FAULT)
    try:
        for wrong in (None, TOKEN[::-1]):
            way = HttpTransport(party.url, wrong)
            with pytest.raises(NoResponse, match="answered 401"):
                way.terms(5)
            with pytest.raises(NoResponse, match="answered 401"):
                way.ask(Parties(honest.terms, honest.terms), [], 5)
        assert HttpTransport(party.url, TOKEN).terms(5) == honest.terms
        command = ["dispute", "--defender", liar.url, "--challenger", party.url, "--artifact", str(artifact),
                   "-o", str(tmp_path / "v")]  # fmt: skip
        assert main(command) == 2
        assert "challenger: http" in capsys.readouterr().err
        assert main([*command, "--challenger-token", TOKEN, "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["reason"].startswith("executed")
    finally:
        party.stop()
        liar.stop()
    for bad in ("short", "with a space in it", "x" * 300, f"@{tmp_path / 'none'}"):
        assert main(["party", "serve", str(artifact), "--token", bad]) == 2
        assert capsys.readouterr().err.startswith("error: --token: ")


def test_a_long_move_holds_up_its_own_kind_alone(program, honest):
    """Status at once, a few questions a peer, the rest told to come again."""
    import asyncio

    from starlette.requests import Request

    from ree.verde import server

    go, asked = threading.Event(), []

    class Slow:
        terms = honest.terms

        def answer(self, body):
            asked.append(body)
            go.wait(20)
            return b"{}"

    app = server.application(Slow())

    async def ask(path, host, body=b""):
        sent = []

        async def receive():
            if not body_sent:
                body_sent.append(1)
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        body_sent = []
        scope = {"type": "http", "method": "POST" if body else "GET", "path": path, "headers": [],
                 "query_string": b"", "client": (host, 1), "http_version": "1.1", "scheme": "http",
                 "server": ("x", 1), "root_path": ""}  # fmt: skip
        assert Request(scope).client.host == host
        await app(scope, receive, send)
        return sent[0]["status"]

    async def play():
        strangers = [asyncio.create_task(ask("/move", "stranger", b"a")) for _ in range(50)]
        await asyncio.sleep(0.2)
        done = [t.result() for t in strangers if t.done()]
        assert done == [429] * (50 - server.MOVES_OF_PEER)
        assert await asyncio.wait_for(ask("/statement", "anyone"), 2) == 200
        owner = asyncio.create_task(ask("/move", "referee", b"b"))
        await asyncio.sleep(0.1)
        assert not owner.done()
        go.set()
        assert await asyncio.wait_for(owner, 10) == 200
        assert {await t for t in strangers} == {200, 429}

    asyncio.run(play())
    assert len(asked) == server.MOVES_OF_PEER + 1


class Busy(Local):
    """A party whose server says first that it cannot answer."""

    def __init__(self, service, status):
        super().__init__(service)
        self.refusals, local = [status] * 5, self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = local.refusals.pop() if local.refusals else 200
                data = b"wait" if status != 200 else local.service.answer(body)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.way = HttpTransport(f"http://127.0.0.1:{self.server.server_address[1]}")

    def ask(self, dispute, moves, seconds):
        return self.way.ask(dispute, moves, seconds)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(referee_of, honest, liars, status):
    busy = Busy(honest, status)
    try:
        verdict = referee_of(liars["gelu"], honest, transports={"challenger": busy}).run()
        assert (verdict.winner, busy.refusals) == ("challenger", [])
        busy.refusals = [400]
        with pytest.raises(InvalidResponse, match="answered 400"):
            busy.ask(Parties(honest.terms, honest.terms), [], 5)
        assert encode_move(honest.move(honest.terms.statement, []))
    finally:
        busy.server.shutdown()
        busy.server.server_close()
