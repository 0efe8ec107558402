"""`ree job`, from the command line to the embedded chain."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("eth_tester", reason="needs the extra settlement")

import numpy as np
from safetensors.numpy import save_file

from ree.artifact import save
from ree.cli import main
from ree.settlement.client import Agreed, Court
from ree.settlement.demo import lie, small_program
from ree.settlement.deploy import deploy_court, deploy_referee, deploy_token
from ree.settlement.embedded import Embedded
from ree.settlement.keys import Key
from ree.settlement.node import Node
from ree.settlement.player import VerdePlayer
from ree.settlement.watcher import Watcher
from ree.settlement.work import memory_run

Run = Callable[..., dict[str, Any]]
WINDOW = 1000


@pytest.fixture(scope="module")
def chain() -> Embedded:
    return Embedded()


@pytest.fixture
def run(
    chain: Embedded,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run an action of a role; its JSON."""

    def connect(url: str, key: Key | None = None) -> Node:
        return Node(chain.web3, key, gas=16_000_000)

    monkeypatch.setattr(Node, "connect", connect)

    def act(role: str, action: str, *args: str, code: int = 0) -> dict[str, Any]:
        node = chain.account(role)
        file = tmp_path / role
        file.touch(0o600)
        assert node.key is not None
        file.write_text(node.key._secret.hex())
        got = main(["job", action, *args, "--rpc", "http://embedded", "--key", str(file), "--json"])
        streams = capsys.readouterr()
        assert got == code, streams.err
        assert node.key._secret.hex() not in streams.out + streams.err
        return dict(json.loads(streams.out)) if not code else {"error": streams.err}

    return act


def test_a_job_from_the_command_line(chain: Embedded, run: Run, tmp_path: Path) -> None:
    program, inputs = small_program()
    save(program, tmp_path / "small.ree")
    save_file(inputs, tmp_path / "in.safetensors")
    others = {"x": np.zeros_like(inputs["x"])}
    save_file(others, tmp_path / "other.safetensors")
    what = ("--artifact", str(tmp_path / "small.ree"), "--inputs", str(tmp_path / "in.safetensors"))
    deployer = chain.account("deployer")
    address = deploy_court(deployer, deploy_referee(deployer), deployer.account)
    token = deploy_token(deployer)
    nodes = {r: chain.account(r) for r in ("poster", "alice", "bob", "carol")}
    for node in nodes.values():
        deployer.send("mint", deployer.contract("token", token).functions.mint(node.account, 10**6))
    court = ("--court", address, "--since", str(deployer.newest))
    terms = tmp_path / "terms.json"
    terms.write_text("{}")
    offer = ("poster", "post", *court, *what, "--terms", str(terms))
    assert "expected an object of" in run(*offer, code=2)["error"]
    terms.write_text(json.dumps({
        "token": token, "data": "here", "reward": 1000, "payees": 1, "slots": 2, "provider_bond": 4000,
        "challenger_bond": 800, "clock": 600, "grace": 60, "accept": WINDOW, "commit": WINDOW,
        "reveal": WINDOW, "challenge": WINDOW, "open": WINDOW,
    }))  # fmt: skip
    job = run(*offer)["job"]
    start = chain.now
    # another's inputs are not the job's
    wrong = (what[0], what[1], "--inputs", str(tmp_path / "other.safetensors"))
    assert (
        "the job is about another" in run("alice", "accept", job, *court, *wrong, code=2)["error"]
    )
    assert run("alice", "accept", job, *court, *what)["transactions"]
    assert run("alice", "accept", job, *court, *what)["transactions"] == []
    root = run("alice", "commit", job, *court, *what)["root"]
    # bob lies, in this process
    memory, instance = memory_run(program, inputs)
    liar = lie(memory, instance.digest)
    bob = Court(nodes["bob"], address)
    false = Agreed(liar.statement.outputs)
    bob.accept(bytes.fromhex(job), false)
    bob.commit(bytes.fromhex(job), false)
    watcher = Watcher(bob, bytes.fromhex(job), false, VerdePlayer(liar, instance))
    watcher.confronts = False
    assert "court: early" in run("alice", "reveal", job, *court, *what, code=2)["error"]
    chain.wait_until(start + 2 * WINDOW + 10)
    run("alice", "reveal", job, *court, *what)
    watcher.tick()
    chain.wait_until(start + 3 * WINDOW + 10)
    against = ("--provider", nodes["bob"].account)
    dispute = run("carol", "challenge", job, *court, *what, *against)["dispute"]
    chain.wait_until(start + 4 * WINDOW + 10)
    assert run("carol", "challenge", job, *court, *what, *against)["dispute"] == dispute
    for _ in range(20):
        while watcher.tick():
            pass
        if not run("carol", "respond", job, *court, *what)["transactions"]:
            break
    assert run("carol", "status", job, *court)[dispute] == "decided"
    chain.wait_until(start + 5 * WINDOW + 50)
    assert run("alice", "claim", job, *court)["withdrawn"] == 4000 + 995
    assert run("carol", "claim", job, *court)["withdrawn"] == 800 + 2000
    assert run("carol", "claim", job, *court)["withdrawn"] == 0
    status = run("poster", "status", job, *court)
    assert status["state"] == "final"
    assert status["outcome"] == f"{root}, unverified: nobody challenged it"


def test_bad_arguments_are_one_line(run: Run) -> None:
    court = ("--court", "0x" + "12" * 20)
    assert "no contract at" in run("alice", "status", "00" * 32, *court, code=2)["error"]
    assert run("alice", "status", "--court", "x", code=2)["error"].count("\n") == 1
