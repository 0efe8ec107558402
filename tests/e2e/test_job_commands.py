"""`ree job` as a user calls it, against a chain: a whole job with a liar, and every way to call it wrongly."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ree.artifact import save
from ree.cli import main

WINDOW = 1000  # seconds, of each phase
MONEY = 10**6
TERMS = {
    "data": "here", "reward": 1000, "payees": 1, "slots": 2, "provider_bond": 4000, "challenger_bond": 800,
    "clock": 600, "grace": 60, **dict.fromkeys(("accept", "commit", "reveal", "challenge", "open"), WINDOW),
}  # fmt: skip


class Desk:
    """A Court with the real referee on a chain, an artifact on disk, and everyone's key files."""

    def __init__(self, chain: Any, folder: Path) -> None:
        from ree.settlement.demo import small_program
        from ree.settlement.deploy import deploy_court, deploy_referee, deploy_token

        self.chain, self.folder = chain, folder
        self.program, self.inputs = small_program()
        save(self.program, folder / "small.ree")
        save_file(self.inputs, folder / "in.safetensors")
        deployer = chain.account("deployer")
        self.since = deployer.newest
        self.address = deploy_court(deployer, deploy_referee(deployer), deployer.account)
        self.token = deploy_token(deployer)
        self.nodes = {r: chain.account(r) for r in ("poster", "alice", "bob", "carol")}
        mint = deployer.contract("token", self.token).functions.mint
        for node in self.nodes.values():
            deployer.send("mint", mint(node.account, MONEY))
        self.what = (
            "--artifact", str(folder / "small.ree"), "--inputs", str(folder / "in.safetensors")
        )  # fmt: skip
        self.court = ("--court", self.address, "--since", str(self.since))
        self.terms = folder / "terms.json"
        self.terms.write_text(json.dumps({**TERMS, "token": self.token}))
        self.url = getattr(chain, "url", "http://embedded")

    def key(self, role: str) -> Path:
        """The key file of a role."""
        from ree.settlement.keys import role_key

        file = self.folder / f"{role}.key"
        file.touch(0o600)
        file.write_text(role_key(role)._secret.hex())
        return file

    def money(self) -> list[int]:
        """Everyone's tokens and credits, and what the Court holds."""
        from ree.settlement.client import Court

        court = Court(self.nodes["poster"], self.address, self.since)
        coin = self.nodes["poster"].contract("token", self.token).functions
        accounts = [n.account for n in self.nodes.values()]
        return [*(coin.balanceOf(a).call() for a in (*accounts, self.address)),
                *(court.credit(self.token, a) for a in accounts), court.call("held", self.token)]  # fmt: skip


@pytest.fixture(scope="module")
def built(chain: Any, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(chain, tmp_path_factory.mktemp("desk"))


@pytest.fixture
def desk(built: Desk) -> Iterator[Desk]:
    mark = built.chain.snapshot()
    yield built
    built.chain.revert(mark)


Run = Callable[..., dict[str, Any]]
Wrong = Callable[..., None]


@pytest.fixture
def run(desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run an action of a role; its JSON, or its error."""
    from ree.settlement.node import Node

    if desk.chain.name == "embedded":
        monkeypatch.setattr(Node, "connect", lambda url, key=None: desk.chain.connect(key))

    def act(
        role: str, action: str, *args: str, code: int = 0, short: bool = True, **other: str
    ) -> dict[str, Any]:
        key = desk.key(role)
        options = {"rpc": desk.url, "key": str(key), "court": desk.address, **other}
        flags = [x for k, v in options.items() for x in (f"--{k}", v)]
        if short and action in ("post", "accept", "challenge", "respond"):
            flags.append("--allow-short-windows")
        got = main(["job", action, *args, *flags, "--since", str(desk.since), "--json"])
        streams = capsys.readouterr()
        assert got == code, streams.err
        assert key.read_text() not in streams.out + streams.err
        return dict(json.loads(streams.out)) if not code else {"error": streams.err}

    return act


def test_a_job_from_the_command_line(desk: Desk, run: Run) -> None:
    from ree.settlement.client import Agreed, Court
    from ree.settlement.demo import lie
    from ree.settlement.player import VerdePlayer
    from ree.settlement.watcher import Watcher
    from ree.settlement.work import memory_run

    chain, what = desk.chain, desk.what
    job = run("poster", "post", *what, "--terms", str(desk.terms))["job"]
    start = chain.now
    before = desk.money()
    dry = run("alice", "accept", job, *what, "--dry-run")
    assert dry["transactions"] == []
    assert desk.money() == before
    assert dry["tokens"].startswith("needs 4,000 of token")
    assert {"memory", "time of a move", "root"} < set(dry)
    assert any(k.startswith("answers") for k in dry)
    assert run("alice", "accept", job, *what)["transactions"]
    assert run("alice", "accept", job, *what)["transactions"] == []
    root = run("alice", "commit", job, *what)["root"]
    # bob lies, in this process
    memory, instance = memory_run(desk.program, desk.inputs)
    liar = lie(memory, instance.digest)
    bob = Court(desk.nodes["bob"], desk.address, desk.since)
    false = Agreed(liar.statement.outputs)
    bob.accept(bytes.fromhex(job), false)
    bob.commit(bytes.fromhex(job), false)
    watcher = Watcher(bob, bytes.fromhex(job), false, VerdePlayer(liar, instance))
    watcher.confronts = False
    assert "court: early" in run("alice", "reveal", job, *what, code=2)["error"]
    chain.wait_until(start + 2 * WINDOW + 10)
    run("alice", "reveal", job, *what)
    watcher.tick()
    chain.wait_until(start + 3 * WINDOW + 10)
    against = ("--provider", desk.nodes["bob"].account)
    dispute = run("carol", "challenge", job, *what, *against)["dispute"]
    chain.wait_until(start + 4 * WINDOW + 10)
    assert run("carol", "challenge", job, *what, *against)["dispute"] == dispute
    for _ in range(20):
        while watcher.tick():
            pass
        if not run("carol", "respond", job, *what)["transactions"]:
            break
    assert run("carol", "status", job)[dispute] == "decided"
    (verdict,) = bob.events("Decided", dispute=bytes.fromhex(dispute))
    assert verdict["winner"] == 2  # executed, not timed out
    chain.wait_until(start + 5 * WINDOW + 50)
    assert run("alice", "claim", job)["withdrawn"] == 4000 + 995
    assert run("carol", "claim", job)["withdrawn"] == 800 + 2000
    assert run("carol", "claim", job)["withdrawn"] == 0
    status = run("poster", "status", job)
    assert status["state"] == "final"
    assert status["outcome"] == f"{root}, unverified: nobody challenged it"
    if chain.name == "anvil":  # the program itself, as installed
        call = [sys.executable, "-P", "-m", "ree.cli", "job", "status", job, "--rpc", desk.url]
        done = subprocess.run([*call, *desk.court], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"outcome     {root}, unverified" in done.stdout


@pytest.mark.parametrize("chain", ["anvil"], indirect=True)
def test_a_job_about_a_training_run(desk: Desk, run: Run, tmp_path: Path) -> None:
    """The root of its history is agreed on by a replay, committed to and paid for."""
    pytest.importorskip("torch")
    from ree.training.directory import RunReader
    from ree.verde.testing import TRAIN

    (tmp_path / "t.py").write_text(TRAIN)
    made = ["train", str(tmp_path / "t.py"), "-o", str(tmp_path / "run"), "--steps", "5"]
    with redirect_stdout(StringIO()):
        assert main([*made, "--json"]) == 0
    what = ("--artifact", str(tmp_path / "run"))
    job = run("poster", "post", *what, "--terms", str(desk.terms))["job"]
    start = desk.chain.now
    run("alice", "accept", job, *what)
    assert "the job is about another" in run("bob", "accept", job, *desk.what, code=2)["error"]
    root = run("alice", "commit", job, *what)["root"]
    assert root == RunReader(tmp_path / "run").history.history_root.hex()
    desk.chain.wait_until(start + 2 * WINDOW + 10)
    run("alice", "reveal", job, *what)
    desk.chain.wait_until(start + 5 * WINDOW + 10)
    assert run("alice", "claim", job)["withdrawn"] == 4000 + 995


# wrong calls: one line, exit 2, and nobody's money or files have moved


@pytest.fixture
def job(desk: Desk, run: Run) -> str:
    """A posted job."""
    return str(run("poster", "post", *desk.what, "--terms", str(desk.terms))["job"])


@pytest.fixture
def wrong(desk: Desk, run: Run, job: str) -> Iterator[Callable[..., None]]:
    """Expects that an action of a role fails in one line with a text."""

    def act(text: str, role: str, action: str, *args: str, **options: str) -> None:
        error = run(role, action, *args, code=2, **options)["error"]
        first, *rest = (x for x in error.splitlines() if not x.endswith("…"))  # but for progress
        assert text in first, error
        assert all(x.startswith("hint: ") for x in rest), error
        assert len(rest) <= 1

    def files() -> dict[Path, bytes]:
        found = (f for f in desk.folder.rglob("*") if f.is_file() and f.suffix != ".key")
        return {f: f.read_bytes() for f in found}

    money, before = desk.money(), files()
    yield act
    assert desk.money() == money
    assert files() == before


def test_a_node_that_cannot_be_reached(
    desk: Desk, job: str, wrong: Wrong, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # of the embedded chain
    for action, *more in (("status",), ("accept", *desk.what), ("claim",)):
        wrong("the node does not answer", "alice", action, job, *more, rpc="http://127.0.0.1:9")
    wrong("expected an http or https URL", "alice", "status", job, rpc="ws://127.0.0.1:9")


def test_a_node_of_another_chain(
    desk: Desk, job: str, wrong: Wrong, embedded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ree.settlement.embedded import Embedded
    from ree.settlement.node import Node

    other = Embedded()
    monkeypatch.setattr(Node, "connect", lambda url, key=None: other.connect(key))
    wrong(f"no contract at {desk.address} on chain", "alice", "accept", job, *desk.what)


def test_a_contract_that_is_no_court(desk: Desk, job: str, wrong: Wrong) -> None:
    wrong(f"no Court at {desk.token}", "alice", "status", job, court=desk.token)
    wrong("no contract at", "alice", "status", job, court="0x" + "12" * 20)
    wrong("expected an address", "alice", "status", job, court="0x12")


def test_keys_that_are_none_or_anothers(desk: Desk, job: str, wrong: Wrong, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.touch(0o600)
    bad.write_text("12" * 31)
    wrong("is no key: expected 32 bytes as hex", "alice", "accept", job, *desk.what, key=str(bad))
    wrong("No such file", "alice", "accept", job, *desk.what, key=str(tmp_path / "none"))
    bad.chmod(0o644)
    wrong("can be read by others", "alice", "accept", job, *desk.what, key=str(bad))
    # a stranger's key: nothing of the job is its own
    wrong("the chain refuses: court: not a provider", "carol", "commit", job, *desk.what)


def test_an_account_without_money(desk: Desk, job: str, wrong: Wrong, tmp_path: Path) -> None:
    from ree.settlement.keys import Key

    desk.chain.account("dave")  # has ether, but no tokens
    for need, action, *args in (
        ("4,000", "accept", job),
        ("1,000", "post", "--terms", str(desk.terms)),
    ):
        wrong(
            f"nothing was bonded: tokens needs {need} of token {desk.token}, has 0",
            "dave",
            action,
            *args,
            *desk.what,
        )
    poor, deployer = tmp_path / "poor", desk.chain.account("deployer")  # has tokens, but no ether
    poor.touch(0o600)
    poor.write_text("07" * 32)
    coin = deployer.contract("token", desk.token).functions
    deployer.send("mint", coin.mint(Key(b"\7" * 32).address, 4000))
    wrong("too little ether for gas", "alice", "accept", job, *desk.what, key=str(poor))
    assert coin.balanceOf(Key(b"\7" * 32).address).call() == 4000


@pytest.mark.parametrize("chain", ["embedded"], indirect=True)
def test_a_challenger_who_could_not_pay_a_crowd(desk: Desk, run: Run, tmp_path: Path) -> None:
    """It is refused before its bond, and before a rehearsal, with what a crowd may cost."""
    from ree.settlement.client import Agreed, Court

    windows = dict.fromkeys(("accept", "commit", "reveal", "challenge", "open"), 4000)
    terms = {**TERMS, **windows, "token": desk.token, "clock": 9000, "grace": 600}
    (tmp_path / "terms.json").write_text(json.dumps(terms))
    chain, what = desk.chain, desk.what
    job = run("poster", "post", *what, "--terms", str(tmp_path / "terms.json"), short=False)["job"]
    start, bob = chain.now, Court(desk.nodes["bob"], desk.address, desk.since)
    false = Agreed(bytes(32))
    bob.accept(bytes.fromhex(job), false)
    bob.commit(bytes.fromhex(job), false)
    chain.wait_until(start + 2 * 4000 + 10)
    bob.reveal(bytes.fromhex(job), false.root)
    chain.wait_until(start + 3 * 4000 + 10)
    dave, deployer = chain.account("dave"), chain.account("deployer")
    mint = deployer.contract("token", desk.token).functions.mint
    deployer.send("mint", mint(dave.account, 8 * 800 - 1))
    against = ("--provider", bob.node.account)
    for action in ("challenge", "respond"):
        wanted = ("--prices", "1:1")
        error = run("dave", action, job, *what, *against, *wanted, code=2, short=False)["error"]
        assert (
            "whom the provider's bond pays at these prices: 134, more would share the same" in error
        )
        assert (
            "nothing was bonded: tokens (up to 8 bonds in a crowd) needs 6,400 of token "
            f"{desk.token}, has 6,399: not enough" in error
        )
        assert "rehearse" not in error
    deployer.send("mint", mint(dave.account, 1))
    run("dave", "challenge", job, *what, *against, short=False)
    assert run("dave", "challenge", job, *what, *against, short=False)["transactions"] == []


def test_a_job_that_is_not_there(desk: Desk, wrong: Wrong) -> None:
    for action in ("status", "accept", "commit", "reveal", "respond", "claim"):
        what = desk.what if action not in ("status", "claim") else ()
        wrong("no job 0000000000000000…", "alice", action, "00" * 32, *what)
    wrong("expected a job's name: 32 bytes as hex", "alice", "status", "12")


def test_deadlines_that_have_passed(desk: Desk, job: str, wrong: Wrong) -> None:
    desk.chain.wait_until(desk.chain.now + WINDOW + 10)
    wrong("the chain refuses: court: late", "alice", "accept", job, *desk.what)
    wrong("has not revealed a root", "carol", "challenge", job, *desk.what, "--provider",
          desk.nodes["alice"].account)  # fmt: skip


def test_an_artifact_that_is_not_the_jobs(
    desk: Desk, job: str, wrong: Wrong, tmp_path: Path
) -> None:
    save_file({"x": np.zeros_like(desk.inputs["x"])}, tmp_path / "other.safetensors")
    inputs = ("--inputs", str(tmp_path / "other.safetensors"))
    shutil.copytree(desk.folder / "small.ree", tmp_path / "broken.ree")
    largest = max((tmp_path / "broken.ree").iterdir(), key=lambda f: f.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-100])
    broken = ("--artifact", str(tmp_path / "broken.ree"))
    for action in ("accept", "commit", "reveal", "respond"):
        wrong("the job is about another", "alice", action, job, *desk.what[:2], *inputs)
        wrong("broken.ree", "alice", action, job, *broken)
        wrong("needs --artifact", "alice", action, job)


def test_terms_that_are_none(desk: Desk, job: str, wrong: Wrong, tmp_path: Path) -> None:
    terms = tmp_path / "terms.json"
    good = {**TERMS, "token": desk.token}
    for bad in ("{}", "[" * 10**5, json.dumps({**good, "reward": -1}), json.dumps({**good, "token": "x"}),
                json.dumps({**good, "reward": 2**300}), json.dumps({**good, "grace": 0})):  # fmt: skip
        terms.write_text(bad)
        wrong("", "poster", "post", *desk.what, "--terms", str(terms))


def test_a_node_that_sends_nonsense(
    job: str, wrong: Wrong, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that are no JSON, JSON that is no answer, and an answer without an end."""
    monkeypatch.undo()
    forever = [b"x" * (1 << 20)] * 1024
    for body in (
        b"",
        b"{}",
        b"[]",
        b'{"jsonrpc":"2.0","id":0,"result":{}}',
        b"<html>",
        b"\xff" * 9,
        forever,
    ):
        with answering(body) as url:
            start = time.monotonic()
            wrong("", "alice", "status", job, rpc=url)
            assert time.monotonic() - start < 20


@contextmanager
def answering(body: bytes | list[bytes]) -> Iterator[str]:
    """URL of a server that answers everything with the same bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            pieces = [body] if isinstance(body, bytes) else body
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(sum(map(len, pieces))))
            self.end_headers()
            with suppress(OSError):
                for piece in pieces:
                    self.wfile.write(piece)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
