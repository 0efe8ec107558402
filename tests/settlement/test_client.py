"""The client and the watcher on the embedded chain, keys, and errors in one line."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("vyper", reason="needs the extra settlement")
pytest.importorskip("eth_tester", reason="needs the extra settlement")

from ree.errors import ChainError
from ree.settlement.client import (
    CHALLENGER_WON,
    FINAL,
    REFUTED,
    Agreed,
    Court,
    agree,
)
from ree.settlement.compile import compile_contract
from ree.settlement.deploy import deploy_token
from ree.settlement.embedded import Embedded
from ree.settlement.interfaces import FILE, interfaces
from ree.settlement.keys import Key, load_key
from ree.settlement.node import Node
from ree.settlement.terms import Terms, facts_digest
from ree.settlement.testing.mock_game import MockPlayer, MockRun, facts
from ree.settlement.watcher import Watcher

SEED = bytes(range(32))
FACTS = facts(SEED)
TRUE, LIE = MockRun(SEED), MockRun(SEED, wrong=77)
AGREED = agree(lambda: TRUE.root, lambda: MockRun(SEED).root)
MONEY = 10**6
ROLES = ("poster", "alice", "bob", "carol")


class Town:
    """Contracts and accounts on an embedded chain."""

    def __init__(self) -> None:
        self.chain = Embedded()
        self.nodes = {r: self.chain.account(r) for r in ("deployer", *ROLES)}
        deployer = self.nodes["deployer"]
        referee = deployer.deploy(compile_contract("testing/mock_referee.vy"))
        court = compile_contract("court.vy")
        self.address = deployer.deploy(court, referee, deployer.account)
        self.since = deployer.newest
        self.token = deploy_token(deployer)
        mint = deployer.contract("token", self.token).functions.mint
        for role in ROLES:
            deployer.send("mint", mint(self.nodes[role].account, MONEY))
        self.nonce = 0

    def court(self, role: str) -> Court:
        return Court(self.nodes[role], self.address, self.since)

    def terms(self) -> Terms:
        now, self.nonce = self.chain.now, self.nonce + 1
        until = [now + 1000 * i for i in range(1, 6)]
        return Terms(self.nodes["poster"].account, self.token, 10_001, 1, 2, 4_003, 1_001, *until,
                     600, 60, facts_digest(FACTS), self.nonce)  # fmt: skip

    def watcher(self, role: str, job: bytes, run: MockRun, challenge: bool = False) -> Watcher:
        """A watcher that knows nothing but the chain."""
        return Watcher(
            self.court(role), job, Agreed(run.root), MockPlayer(run), challenge=challenge
        )


@pytest.fixture(scope="module")
def built() -> Town:
    return Town()


@pytest.fixture
def town(built: Town) -> Iterator[Town]:
    mark = built.chain.snapshot()
    yield built
    built.chain.revert(mark)


def test_interfaces_are_those_of_the_contracts() -> None:
    assert json.loads(FILE.read_text()) == json.loads(json.dumps(interfaces()))


def test_a_story_of_watchers_that_crash_at_every_step(town: Town) -> None:
    """Each tick is another process: it knows the chain and its run, and nothing else. Trap 6: what is done
    already is success."""
    poster, terms = town.court("poster"), town.terms()
    job = poster.post(terms, FACTS, "here")
    assert poster.post(terms, FACTS, "here") == job
    for role, run in (("alice", TRUE), ("bob", LIE)):
        court = town.court(role)
        assert court.accept(job, Agreed(run.root)) is not None
        assert court.commit(job, Agreed(run.root)) is not None
        before = len(town.nodes[role].receipts)
        assert court.accept(job, Agreed(run.root)) is None
        assert court.commit(job, Agreed(run.root)) is None
        assert len(town.nodes[role].receipts) == before
    parties = [("alice", TRUE, False), ("bob", LIE, False), ("carol", TRUE, True)]
    for deadline in ("commit_until", "reveal_until", "challenge_until", "open_until"):
        town.chain.wait_until(getattr(terms, deadline) + 1)
        while sum(town.watcher(r, job, run, c).tick() for r, run, c in parties):
            pass
    assert poster.status(job) == FINAL
    root, standing, stood = poster.call("outcome", job)
    assert (bytes(root), standing, stood) == (TRUE.root, 1, 1)
    bob = poster.claim(job, town.nodes["bob"].account)
    assert (bob.status, bob.lost) == (REFUTED, 2)
    assert all(d.decided for d in poster.disputes(job))
    assert {d.turn for d in poster.disputes(job)} == {CHALLENGER_WON}
    # a half of the bond is burnt, the other shared by the two that met the lie
    assert town.court("alice").credit(town.token) == 4_003 + 9_951 + 1_000
    assert town.court("carol").credit(town.token) == 1_001 + 1_000
    assert town.court("alice").withdraw(town.token) is not None
    assert town.court("alice").withdraw(town.token) is None


def test_a_reorganised_chain_is_read_again(town: Town) -> None:
    """Trap 3: events of blocks that are gone are forgotten; what was sent into them is sent again."""
    court, terms = town.court("poster"), town.terms()
    mark = town.chain.snapshot()
    job = court.post(terms, FACTS, "")
    assert court.posting(job)[0] == terms
    town.chain.revert(mark)
    town.chain.wait_until(town.chain.now + 50)
    with pytest.raises(ChainError, match="no job"):
        court.posting(job)
    assert court.post(terms, FACTS, "") == job
    assert court.posting(job)[0] == terms


def test_nothing_is_bonded_before_two_computations_agree(town: Town) -> None:
    """Trap 9: the honest client may be the one that is wrong."""
    with pytest.raises(ChainError, match="independent computations of the root differ"):
        agree(lambda: TRUE.root, lambda: LIE.root)
    with pytest.raises(ChainError, match="after two independent computations"):
        agree(lambda: TRUE.root)
    court = town.court("alice")
    with pytest.raises(AssertionError):
        court.accept(bytes(32), TRUE.root)  # type: ignore[arg-type]


def test_a_claim_that_agrees_is_not_challenged(town: Town) -> None:
    job = town.court("poster").post(terms := town.terms(), FACTS)
    alice = town.court("alice")
    alice.accept(job, AGREED)
    alice.commit(job, AGREED)
    with pytest.raises(ChainError, match="has not revealed a root"):
        town.court("carol").challenge(job, town.nodes["alice"].account, AGREED)
    town.chain.wait_until(terms.commit_until + 1)
    alice.reveal(job, TRUE.root)
    town.chain.wait_until(terms.reveal_until + 1)
    with pytest.raises(ChainError, match="nothing to dispute"):
        town.court("carol").challenge(job, town.nodes["alice"].account, AGREED)
    assert town.court("carol").credit(town.token) == 0


# errors


def one_line(call: object, text: str) -> None:
    with pytest.raises(ChainError, match=text) as e:
        call()  # type: ignore[operator]
    assert "\n" not in str(e.value)


def test_errors_are_one_line(town: Town) -> None:
    alice, job = town.court("alice"), bytes(31) + b"x"
    one_line(lambda: Node.connect("http://127.0.0.1:1"), "the node does not answer")
    one_line(lambda: Node.connect("ftp://x"), "expected an http or https URL")
    one_line(lambda: Court(town.nodes["alice"], "0x" + "12" * 20), "no contract at")
    one_line(lambda: Court(town.nodes["alice"], "x"), "expected an address")
    one_line(lambda: alice.posting(job), "no job 0000")
    one_line(lambda: Node(town.chain.web3).account, "no key")
    posted = town.court("poster").post(town.terms(), FACTS)
    town.chain.wait_until(town.chain.now + 1001)
    one_line(lambda: alice.accept(posted, AGREED), "the chain refuses: court: late")
    poor = Node(town.chain.web3, Key(b"\7" * 32), gas=10**6)
    one_line(
        lambda: Court(poor, town.address).deposit(town.token, 5), "needs 5 more of token .*, has 0"
    )


def test_an_account_without_ether(town: Town) -> None:
    poor = Node(town.chain.web3, Key(b"\7" * 32), gas=10**6)
    coin = poor.contract("token", town.token)
    one_line(
        lambda: poor.send("approve", coin.functions.approve(town.address, 1)), "too little ether"
    )


# keys


def test_keys_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "ab" * 31 + "cd"
    file = tmp_path / "key"
    file.write_text("0x" + secret + "\n")
    one_line(lambda: load_key(str(file)), "can be read by others")
    file.chmod(0o600)
    key = load_key(str(file))
    monkeypatch.setenv("REE_KEY", secret)
    assert load_key(None).address == key.address
    assert secret not in repr(key) + str(key)
    for wrong in (secret[:-2], "zz" + secret[2:], "00" * 32):
        file.write_text(wrong)
        with pytest.raises(ChainError) as e:
            load_key(str(file))
        assert wrong[:8] not in str(e.value)
    monkeypatch.delenv("REE_KEY")
    one_line(lambda: load_key(None), "no key")
    os.chmod(file, 0o600)
    file.write_text("{}")
    one_line(lambda: load_key(str(file)), "is encrypted")
    monkeypatch.setenv("REE_KEY_PASSWORD", "x")
    one_line(lambda: load_key(str(file)), "wrong password, or no keystore")


def test_salts_follow_from_key_and_job() -> None:
    """A restarted party finds its salts again; another's key gives others."""
    a, b = Key(b"\1" * 32), Key(b"\2" * 32)
    assert a.salt(b"x", b"y") == a.salt(b"x", b"y") != b.salt(b"x", b"y")
    assert a.salt(b"x", b"y") != a.salt(b"xy", b"")
    assert len(a.salt(b"x")) == 16
