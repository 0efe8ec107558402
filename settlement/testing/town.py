"""Clients and watchers of a Court, mostly with a mock referee, on a chain: for tests."""

from __future__ import annotations

from collections.abc import Callable

from ree.errors import ChainError
from ree.settlement.client import Agreed, Court, agree
from ree.settlement.compile import compile_contract
from ree.settlement.deploy import deploy_referee, deploy_token
from ree.settlement.embedded import Embedded
from ree.settlement.terms import DEADLINES, Terms, facts_digest
from ree.settlement.testing.anvil import Anvil
from ree.settlement.testing.mock_game import MockPlayer, MockRun, facts
from ree.settlement.testing.pool import Pool
from ree.settlement.watcher import Watcher

SEED = bytes(range(32))
FACTS = facts(SEED)
TRUE, LIE = MockRun(SEED), MockRun(SEED, wrong=77)
AGREED = agree(lambda: TRUE.root, lambda: MockRun(SEED).root)
MONEY = 10**6
ROLES = ("poster", "alice", "bob", "carol")


class Town:
    """A Court, a token, and clients of every role, on a chain. real: with the real referee."""

    def __init__(self, chain: Embedded | Anvil | Pool, real: bool = False) -> None:
        self.chain = chain
        self.nodes = {r: self.chain.account(r) for r in ("deployer", *ROLES)}
        deployer = self.nodes["deployer"]
        mock = "testing/mock_referee.vy"
        referee = deploy_referee(deployer) if real else deployer.deploy(compile_contract(mock))
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
        until = {d: now + 1000 * (i + 1) for i, d in enumerate(DEADLINES)}
        return Terms(
            poster=self.nodes["poster"].account, token=self.token, reward=10_001, payees=1, slots=2,
            provider_bond=4_003, challenger_bond=1_001, clock=600, grace=60, facts=facts_digest(FACTS),
            nonce=self.nonce, **until,
        )  # fmt: skip

    def watcher(self, role: str, job: bytes, run: MockRun, challenge: bool = False) -> Watcher:
        """A watcher that knows nothing but the chain."""
        return Watcher(
            self.court(role), job, Agreed(run.root), MockPlayer(run), challenge=challenge
        )


def one_line(call: Callable[[], object], text: str) -> None:
    """Expects a ChainError in one line that has a text."""
    import pytest

    with pytest.raises(ChainError, match=text) as e:
        call()
    assert "\n" not in e.value.message
