"""A Court in memory or on a node, with a mock referee, a token and everyone's money: for tests."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from ree.settlement.bonds import CROWD
from ree.settlement.client import (  # noqa: F401  (for the tests of the Court)
    ACCEPTED,
    CHALLENGER_WON,
    COMMITTED,
    DECIDED,
    DEFENDER_WON,
    FINAL,
    REFUTED,
    REVEALED,
    VOID,
)
from ree.settlement.clocks import CHALLENGER, DEFENDER, Clocks
from ree.settlement.compile import compile_contract
from ree.settlement.keys import role_key
from ree.settlement.terms import (
    UNREAD,
    OneRun,
    Terms,
    challenge_commitment,
    claim_commitment,
    decode_facts,
    descent,
    dispute_id,
    facts_digest,
    state_name,
)
from ree.settlement.testing.evm import Chain, Reverted
from ree.settlement.testing.mock_game import MockRun, facts
from ree.settlement.testing.nodes import NodeChain

SEED = bytes(range(32))
RICH = 10**9
SALT = b"salt of 16 bytes"
NOT_NOW = "court: not your turn, or not the state"
NAMES = ("poster", "alice", "bob", "carol", "dave", "anyone")  # roles that have money
LIE, OTHER_LIE = MockRun(SEED, wrong=77), MockRun(SEED, wrong=16)


def account(name: str) -> str:
    """The address of a role."""
    return role_key(name).address


TREASURY = account("treasury")


class World:
    """A Court, its token, and one job at a time."""

    def __init__(
        self,
        token: str = "testing/token.vy",
        venom: bool = False,
        chain: Chain | NodeChain | None = None,
    ) -> None:
        """chain: one in memory if it is not given."""
        self.chain = chain or Chain()
        self.referee = self.chain.deploy(compile_contract("testing/mock_referee.vy"))
        self.court = self.chain.deploy(
            compile_contract("court.vy", venom=venom), self.referee.address, TREASURY
        )
        self.token = self.chain.deploy(compile_contract(token))
        self.honest = MockRun(SEED)
        self.facts = facts(SEED)
        self.shown: dict[bytes, bytes] = {}  # the last move of a dispute
        self.states: dict[bytes, bytes] = {}
        self.clocks: dict[bytes, Clocks] = {}  # as they must be; the Court holds a hash of them
        self.games = 0

    def fund(self, *names: str, amount: int = RICH) -> None:
        """Mint, approve and deposit."""
        self.chain.know(*names)
        for name in names:
            self.token.call("mint", account(name), amount)
            self.token.call("approve", self.court.address, amount, by=account(name))
            self.send(name, "deposit", self.token.address, amount)

    def send(self, name: str, function: str, *args: Any) -> Any:
        self.chain.know(name)
        return self.court.call(function, *args, by=account(name))

    def respond(self, name: str, dispute: bytes, state: bytes, move: bytes) -> bytes:
        """Play a move by `respond`; the state after it."""
        now, clocks = self.chain.now, self.clocks[dispute]
        self.send(name, "respond", dispute, *self.who(dispute), state, move)
        after = bytes(self.referee.call("respond", *UNREAD, state, move))
        self.clocks[dispute] = moved(clocks, after[11], now)
        return after

    def who(self, dispute: bytes) -> tuple[int, str]:
        """Clocks and the player who waits."""
        players = self.view("dispute_of", dispute)[2:4]
        clocks = self.clocks[dispute]
        return clocks.word, players[clocks.turn == DEFENDER]

    def timeout(self, name: str, dispute: bytes) -> None:
        state = descent(self.states[dispute])
        self.send(name, "timeout", dispute, self.clocks[dispute].word, *state)

    def view(self, function: str, *args: Any) -> Any:
        return self.court.call(function, *args)

    def credit(self, name: str) -> int:
        return int(self.view("credits", self.token.address, account(name)))

    def terms(self, **changes: Any) -> Terms:
        """A job of the poster that begins now."""
        now, self.games = self.chain.now, self.games + 1
        values: dict[str, Any] = {
            "poster": account("poster"), "token": self.token.address, "reward": 10_001, "payees": 2,
            "slots": 4, "provider_bond": 4_003, "challenger_bond": 1_001, "accept_until": now + 100,
            "commit_until": now + 200, "reveal_until": now + 300, "challenge_until": now + 400,
            "open_until": now + 500, "clock": 600, "grace": 60, "facts": facts_digest(self.facts),
            "nonce": self.games,
        }  # fmt: skip
        return Terms(**{**values, **changes})

    def post(self, **changes: Any) -> Job:
        terms = self.terms(**changes)
        self.send("poster", "post", terms.values(), self.facts.encode(), "here")
        return self.job(terms)

    def job(self, terms: Terms) -> Job:
        """The job with these terms."""
        return Job(self, terms)


def moved(clocks: Clocks, turn: int, now: int) -> Clocks:
    """The clocks after a move at this time, of which it is somebody's turn, or nobody's (0)."""
    used = now - clocks.since
    defender, challenger = (max(left - used, clocks.grace) for left in clocks.left)
    if clocks.turn == DEFENDER:
        challenger = clocks.challenger
    else:
        defender = clocks.defender
    return Clocks(turn, clocks.round + 1, now, defender, challenger, clocks.grace)


def balances(w: World) -> dict[str, int]:
    """What each of NAMES has gained; checks that nothing was made or lost."""
    gained = {n: w.credit(n) - RICH for n in NAMES}
    token = w.token.address
    total = sum(w.credit(n) for n in (*NAMES, "treasury"))
    total += w.view("held", token) + w.view("burnt", token)
    assert total == w.token.call("balanceOf", w.court.address)
    return {n: g for n, g in gained.items() if g}


def refused(reason: str) -> AbstractContextManager[Any]:
    """Expects that what is done inside reverts for a reason."""
    import pytest

    return pytest.raises(Reverted, match=f"^{reason}$")


class Job:
    """A posted job and the calls about it."""

    def __init__(self, world: World, terms: Terms) -> None:
        self.world, self.terms = world, terms
        self.facts = world.facts.encode()
        self.id = terms.id(world.chain.chain_id, world.court.address)

    def send(self, name: str, function: str, *args: Any) -> Any:
        return self.world.send(name, function, self.terms.values(), *args)

    def at(self, deadline: str, seconds: int = 0) -> None:
        """Set the time to a deadline of the job, or after it; never back."""
        chain = self.world.chain
        chain.now = max(chain.now, getattr(self.terms, deadline) + seconds)

    def provide(self, runs: dict[str, MockRun]) -> None:
        """Accept, commit and reveal for each provider."""
        for name in runs:
            self.send(name, "accept")
        for name, run in runs.items():
            self.send(name, "commit", self.commitment(name, run.root))
        self.at("commit_until", 1)
        for name, run in runs.items():
            self.send(name, "reveal", run.root, SALT)

    def commitment(self, name: str, root: bytes, salt: bytes = SALT) -> bytes:
        court = self.world.court.address
        return claim_commitment(
            self.world.chain.chain_id, court, self.id, account(name), root, salt
        )

    def challenge_commitment(self, name: str, provider: str, salt: bytes = SALT) -> bytes:
        court = self.world.court.address
        return challenge_commitment(
            self.world.chain.chain_id, court, self.id, account(name), account(provider), salt
        )

    def challenge(self, name: str, provider: str, salt: bytes = SALT) -> bytes:
        """Commit to a challenge; the name of its dispute."""
        self.at("reveal_until", 1)
        commitment = self.challenge_commitment(name, provider, salt)
        self.send(name, "challenge", commitment)
        return dispute_id(self.id, account(name), commitment)

    def open(self, name: str, provider: str, salt: bytes = SALT) -> bytes:
        """Show a challenge; the name of its dispute."""
        self.at("challenge_until", 1)
        now = self.world.chain.now
        dispute = self.send(name, "open_challenge", self.facts, account(provider), salt)
        return self.opened(bytes(dispute), provider, now, self.claim(name)["load"])

    def confront(self, defender: str, challenger: str) -> bytes:
        self.at("reveal_until", 1)
        now = self.world.chain.now
        dispute = self.send(
            "anyone", "confront", self.facts, account(defender), account(challenger)
        )
        load = self.claim(challenger)["load"]
        return self.opened(bytes(dispute), defender, now, load)

    def opened(self, dispute: bytes, provider: str, now: int, load: int = 1) -> bytes:
        claim, t = self.claim(provider), self.terms
        root = claim["digest"]
        defender, challenger = (
            t.clock * min(n, CROWD) + t.grace * max(n - CROWD, 0) for n in (claim["load"], load)
        )
        self.world.clocks[dispute] = Clocks(DEFENDER, 0, now, defender, challenger, t.grace)
        referee, what = self.world.referee, decode_facts(self.facts)
        if isinstance(what, OneRun):
            first = referee.call("begin", self.facts + root + bytes(32))
        else:
            first = referee.call("begin_run", bytes(284), self.facts[156:] + root)
        self.world.states[dispute] = bytes(first)
        self.world.shown[dispute] = b""
        return dispute

    def claim(self, name: str) -> dict[str, Any]:
        values = self.world.view("claim_of", self.id, account(name))
        names = ("status", "digest", "load", "stood", "lost", "weight")
        return dict(zip(names, values, strict=True))

    def dispute(self, dispute: bytes) -> dict[str, Any]:
        names = ("state", "job", "defender", "challenger", "confrontation", "paid", "more")
        out = dict(zip(names, self.world.view("dispute_of", dispute), strict=True))
        clocks, kept = self.world.clocks[dispute], int.from_bytes(out["state"], "big")
        decided = kept < DECIDED
        out["turn"] = kept & 255 if decided else clocks.turn
        out["since"], out["left"] = clocks.since, list(clocks.left)
        if not decided:
            mover, other = out["defender"], out["challenger"]
            if clocks.turn == CHALLENGER:
                mover, other = other, mover
            name = state_name(dispute, clocks.word, mover, other, self.world.states[dispute])
            assert out["state"] == name, "the Court holds another state, or other clocks"
        return out

    def step(self, dispute: bytes, name: str, run: MockRun) -> int:
        """Play one move of a run; whose turn is next, or who has won."""
        world = self.world
        move = run.move(world.states[dispute], world.shown[dispute])
        after = world.respond(name, dispute, world.states[dispute], move)
        world.states[dispute], world.shown[dispute] = after, move
        return int(after[2] + 2 if after[2] else after[11])

    def play(
        self, dispute: bytes, defender: tuple[str, MockRun], challenger: tuple[str, MockRun]
    ) -> int:
        """Play a dispute to its end; who has won."""
        turn = DEFENDER
        while turn < DEFENDER_WON:
            turn = self.step(dispute, *(defender if turn == DEFENDER else challenger))
        return turn

    def finalise(self) -> tuple[bytes, int, int]:
        """End the job; its root, how many claims stand, and how many disputes they won."""
        self.at("open_until", 1)
        self.send("anyone", "finalise")
        root, standing, stood = self.world.view("outcome", self.id)
        return bytes(root), int(standing), int(stood)
