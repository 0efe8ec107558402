"""The Court through an Ethereum node. Needs the extra `settlement`.

Every action looks first whether it is done already, and again when the chain refuses it: repeating one is
success. Salts come from the key and the job, so that nothing has to be remembered between two commands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ree.errors import ChainError
from ree.settlement.bonds import CROWD, bonds_of
from ree.settlement.clocks import CHALLENGER, DEFENDER, Clocks
from ree.settlement.events import Events
from ree.settlement.layout import STATE, ChallengeStatus, ClaimStatus, CourtVerdict
from ree.settlement.node import Node, TransactionReceipt, checksum
from ree.settlement.policy import Policy
from ree.settlement.terms import (
    Facts,
    Terms,
    challenge_commitment,
    claim_commitment,
    descent,
    dispute_id,
    facts_digest,
)
from ree.settlement.transactions import Pending
from ree.verde.protocol import Phase

ACCEPTED, COMMITTED, REVEALED, REFUTED = ClaimStatus
PENDING, OPENED, CLOSED = ChallengeStatus
DECIDED = 1 << 136  # less than this is no hash
DEFENDER_WON, CHALLENGER_WON = CourtVerdict
FINAL, VOID = 2**256 - 1, 2**256 - 2
DESCENTS = (Phase.REVEAL.number, Phase.PICK.number)


@dataclass(frozen=True)
class Claim:
    """What a provider stands for: the root once its status is REVEALED or REFUTED."""

    provider: str
    status: int
    digest: bytes
    load: int  # open disputes of the account, a provider or not
    stood: int
    lost: int
    weight: int  # of the disputes lost, by which their winners share its bond


@dataclass(frozen=True)
class Dispute:
    """A dispute as the Court holds it, with the clocks of its last event. state: a hash, `terms.state_name`;
    once it is decided DEFENDER_WON or CHALLENGER_WON, and above that weights."""

    id: bytes
    state: bytes
    clocks: Clocks
    defender: str
    challenger: str
    confrontation: bool
    paid: bool
    more: int = 0  # bonds of the challenger besides the first

    @property
    def turn(self) -> int:
        """Whose move it is, or who has won."""
        kept = int.from_bytes(self.state, "big")  # a hash, or a verdict with weights above it
        return kept & 255 if kept < DECIDED else self.clocks.turn

    @property
    def decided(self) -> bool:
        return self.turn >= DEFENDER_WON

    @property
    def winner(self) -> str:
        """Who has won it; empty while it is played."""
        won: dict[int, str] = {DEFENDER_WON: self.defender, CHALLENGER_WON: self.challenger}
        return won.get(self.turn, "")

    @property
    def player(self) -> str:
        """Whose move it is; empty when it is decided."""
        return {DEFENDER: self.defender, CHALLENGER: self.challenger}.get(self.turn, "")

    @property
    def other(self) -> str:
        """Who waits; empty when it is decided."""
        return {CHALLENGER: self.defender, DEFENDER: self.challenger}.get(self.turn, "")


@dataclass(frozen=True)
class Agreed:
    """A root that two independent computations agree on: what may be bonded. `agree` makes it."""

    root: bytes


def agree(*computations: Callable[[], bytes]) -> Agreed:
    """Run independent computations of a root; ChainError unless there are two and all agree."""
    if len(computations) < 2:
        raise ChainError("a root is bonded after two independent computations, got one")
    roots = [c() for c in computations]
    if len(set(roots)) > 1:
        text = ", ".join(r.hex()[:16] for r in roots)
        raise ChainError(f"independent computations of the root differ ({text}); nothing was sent")
    return Agreed(roots[0])


class Court:
    """The Court at an address, on a node. `since`: the block to look for events from. `policy`: on which terms
    money is put; without one on all, by a caller who knows them."""

    def __init__(
        self, node: Node, address: str, since: int = 0, policy: Policy | None = None
    ) -> None:
        self.policy = policy
        self.node, self.address = node, checksum(address)
        self._court = node.contract("court", address)
        try:
            self.referee = str(self.call("referee"))
        except ChainError as e:
            raise ChainError(f"no Court at {self.address}: {e.message}") from e
        self._referee = node.contract("referee", self.referee)
        self._events = Events(node, self._court, self.address, since)

    # what the chain says

    def call(self, function: str, *args: Any) -> Any:
        """Result of a view."""
        return self.node.view(lambda: getattr(self._court.functions, function)(*args))

    def rules(self, function: str, *args: Any) -> Any:
        """Result of a function of the referee."""
        return self.node.view(lambda: getattr(self._referee.functions, function)(*args))

    def events(self, name: str, **arguments: Any) -> list[Mapping[str, Any]]:
        """Arguments of events by name and value, oldest first."""
        return self._events.of(name, **arguments)

    def posting(self, job: bytes) -> tuple[Terms, bytes, str]:
        """Terms, facts and data of a posted job."""
        found = self.events("Posted", job=job)
        if not found:
            raise ChainError(f"no job {job.hex()[:16]}… in the Court at {self.address}")
        args = found[0]
        return Terms.of(args["terms"]), bytes(args["facts"]), str(args["data"])

    def status(self, job: bytes) -> int:
        """0 unknown, FINAL, VOID, or 1 and the number of open disputes."""
        return int(self.call("job_status", job))

    def claim(self, job: bytes, provider: str) -> Claim:
        return Claim(checksum(provider), *self.call("claim_of", job, checksum(provider)))

    def claims(self, job: bytes) -> list[Claim]:
        """Claims in the order of acceptance."""
        return [self.claim(job, p) for p in self.call("providers", job)]

    def disputes(self, job: bytes) -> list[Dispute]:
        """Disputes of a job, oldest first."""
        return [self.dispute(bytes(e["dispute"])) for e in self.events("Opened", job=job)]

    def dispute(self, dispute: bytes) -> Dispute:
        state, _, *kept = self.call("dispute_of", dispute)
        told = self.events("Moved", dispute=dispute) or self.events("Opened", dispute=dispute)
        if not told:
            raise ChainError(f"no dispute {dispute.hex()[:16]}… in the Court at {self.address}")
        clocks = Clocks.of(told[-1]["clocks"])
        return Dispute(dispute, bytes(state), clocks, *kept)

    def credit(self, token: str, account: str | None = None) -> int:
        return int(self.call("credits", checksum(token), checksum(account or self.node.account)))

    def _accepts(self, terms: Terms) -> None:
        """ChainError if the policy refuses terms: before every bond."""
        if self.policy is not None:
            self.policy.check(terms, self.node.now)

    def funds(self, token: str) -> int:
        """One's credit and the tokens that could be deposited."""
        account, coin = self.node.account, self.node.contract("token", checksum(token))
        has = int(self.node.view(lambda: coin.functions.balanceOf(account)))
        return has + self.credit(token)

    # what one does; None: it was done before

    def _do(self, done: Callable[[], bool], function: str, *args: Any) -> TransactionReceipt | None:
        if done():
            return None
        call = getattr(self._court.functions, function)
        try:
            return self.node.send(function, self.node.ask(lambda: call(*args)))
        except Pending:
            raise  # whoever has let it fly waits for it
        except ChainError:
            if done():
                return None
            raise

    def _bond(
        self, done: Callable[[], bool], token: str, amount: int, function: str, *args: Any
    ) -> TransactionReceipt | None:
        """As `_do`, with a credit that it takes. Nothing is deposited for what the chain would refuse."""
        if done():
            return None
        call = getattr(self._court.functions, function)
        try:
            self.node.view(lambda: call(*args))
        except ChainError as e:
            if "bank: credit" not in str(e):
                raise
        self.deposit(token, amount)
        return self._do(done, function, *args)

    def deposit(self, token: str, credit: int) -> TransactionReceipt | None:
        """Bring one's credit up to `credit`; ChainError if the account does not have the tokens."""
        missing = credit - self.credit(token)
        if missing <= 0:
            return None
        account, coin = self.node.account, self.node.contract("token", token)
        has = int(self.node.view(lambda: coin.functions.balanceOf(account)))
        if has < missing:
            raise ChainError(f"needs {missing} more of token {checksum(token)}, has {has}")
        left = int(self.node.view(lambda: coin.functions.allowance(account, self.address)))
        # left by a process that died here: some tokens refuse to change it but to 0
        if 0 < left < missing:
            self.node.send("approve", coin.functions.approve(self.address, 0))
        if left < missing:
            self.node.send("approve", coin.functions.approve(self.address, missing))
        return self._do(lambda: self.credit(token) >= credit, "deposit", checksum(token), missing)

    def withdraw(self, token: str) -> TransactionReceipt | None:
        """Take out all of one's credit."""
        amount = self.credit(token)
        return self._do(lambda: self.credit(token) == 0, "withdraw", checksum(token), amount)

    def post(self, terms: Terms, facts: Facts, data: str = "") -> bytes:
        """Offer a job; its name."""
        if terms.facts != facts_digest(facts):
            raise ChainError("the terms are not about these facts")
        self._accepts(terms)
        job = terms.id(self.node.chain_id, self.address)
        self._bond(lambda: self.status(job) != 0, terms.token, terms.reward * terms.payees,
                   "post", _terms(terms), facts.encode(), data)  # fmt: skip
        return job

    def accept(self, job: bytes, agreed: Agreed) -> TransactionReceipt | None:
        """Become a provider of a job whose root is known to this party."""
        assert isinstance(agreed, Agreed)  # the bond is at stake from here on
        terms, me = self.posting(job)[0], self.node.account
        if self.claim(job, me).status < ACCEPTED:
            self._accepts(terms)
        return self._bond(lambda: self.claim(job, me).status >= ACCEPTED, terms.token,
                          terms.provider_bond, "accept", _terms(terms))  # fmt: skip

    def commit(self, job: bytes, agreed: Agreed) -> TransactionReceipt | None:
        terms, me = self.posting(job)[0], self.node.account
        commitment = claim_commitment(
            self.node.chain_id, self.address, job, me, agreed.root, self._salt("claim", job)
        )
        return self._do(
            lambda: self.claim(job, me).status >= COMMITTED, "commit", _terms(terms), commitment
        )

    def reveal(self, job: bytes, root: bytes) -> TransactionReceipt | None:
        terms, me = self.posting(job)[0], self.node.account
        return self._do(lambda: self.claim(job, me).status >= REVEALED, "reveal", _terms(terms), root,
                        self._salt("claim", job))  # fmt: skip

    def challenge(self, job: bytes, provider: str, agreed: Agreed) -> TransactionReceipt | None:
        """Commit to challenging a claim whose root is not this party's."""
        terms, claim = self.posting(job)[0], self.claim(job, provider)
        if claim.status not in (REVEALED, REFUTED):
            raise ChainError(f"{claim.provider} has not revealed a root")
        if claim.digest == agreed.root:
            raise ChainError(f"nothing to dispute: {claim.provider} claims the same root")
        if not self.challenge_status(job, provider):
            self._accepts(terms)
            self._ready(job, provider, agreed)
        return self._bond(lambda: self.challenge_status(job, provider) != 0, terms.token,
                          terms.challenger_bond, "challenge", _terms(terms),
                          self._challenge(job, provider))  # fmt: skip

    def open_challenge(self, job: bytes, provider: str) -> TransactionReceipt | None:
        terms, facts, _ = self.posting(job)
        salt, load = self._salt("challenge", job, provider), self.claim(job, provider).load
        bond, funds = terms.challenger_bond, self.funds(terms.token)
        # others may come before it in the block: credit for a bond more, where there is one
        needed, wanted = ((bonds_of(n) - 1) * bond for n in (load, load + CROWD // 2))
        if funds < needed and self.challenge_status(job, provider) == PENDING:
            raise ChainError(
                f"with {load} disputes of this provider open a challenge takes {bonds_of(load)} bonds: "
                f"expected {needed} more of token {checksum(terms.token)}, has {funds}",
                f"there is time until {terms.open_until}; then the {bond} bonded are forfeited",
            )
        return self._bond(lambda: self.challenge_status(job, provider) >= OPENED, terms.token,
                          max(needed, min(wanted, funds)), "open_challenge", _terms(terms), facts,
                          checksum(provider), salt)  # fmt: skip

    def to_challenge(self, job: bytes, provider: str, agreed: Agreed) -> tuple[int, int]:
        """Bonds that a challenge of a claim may take until it is opened, and tokens that there must be for it
        and for what others of this account that wait may take, of all jobs in this token; (0, 0) where there
        is nothing to challenge."""
        terms, claim = self.posting(job)[0], self.claim(job, provider)
        if (
            claim.status not in (REVEALED, REFUTED)
            or claim.digest == agreed.root
            or self.node.now > terms.challenge_until
            or self.challenge_status(job, provider)
        ):
            return 0, 0
        ready = 1 if self.policy is None else self.policy.ready
        bonds = max(ready, bonds_of(claim.load))
        return bonds, bonds * terms.challenger_bond + (ready - 1) * self._waiting(terms.token)

    def _waiting(self, token: str) -> int:
        """One bond of each challenge of this account in jobs of a token that can still be opened."""
        me, total = self.node.account, 0
        for e in self.events("Challenged", challenger=me):
            terms = self.posting(bytes(e["job"]))[0]
            if checksum(terms.token) == checksum(token) and self.node.now <= terms.open_until:
                status = self.call("challenge_status", e["job"], me, e["commitment"])
                total += terms.challenger_bond if status == PENDING else 0
        return total

    def _ready(self, job: bytes, provider: str, agreed: Agreed) -> None:
        """ChainError if a crowd could keep this party from opening a challenge that it commits to."""
        if self.policy is None:
            return
        token = self.posting(job)[0].token
        bonds, needed = self.to_challenge(job, provider, agreed)
        if (has := self.funds(token)) < needed:
            raise ChainError(
                f"a challenge may need {bonds} bonds when it is opened in a crowd, or its bond is forfeited: "
                f"expected {needed} of token {checksum(token)}, has {has}"
            )

    def challenge_status(self, job: bytes, provider: str) -> int:
        """Of this party's challenge of a claim: 0 none, PENDING, OPENED, CLOSED."""
        account = self.node.account
        return int(self.call("challenge_status", job, account, self._challenge(job, provider)))

    def challenge_dispute(self, job: bytes, provider: str) -> bytes:
        """The name of the dispute that this party's challenge of a claim opens."""
        return dispute_id(job, self.node.account, self._challenge(job, provider))

    def confront(self, job: bytes, defender: str, challenger: str) -> TransactionReceipt | None:
        """Open the dispute of two providers whose roots differ."""
        terms, facts, _ = self.posting(job)
        pair = {checksum(defender), checksum(challenger)}

        def met() -> bool:
            return any(
                e["confrontation"] and {e["defender"], e["challenger"]} == pair
                for e in self.events("Opened", job=job)
            )

        return self._do(
            met, "confront", _terms(terms), facts, *map(checksum, (defender, challenger))
        )

    def respond(self, dispute: Dispute, state: bytes, move: bytes) -> TransactionReceipt | None:
        """Play a move; where it descends in a tree, by the function that costs less."""
        round_ = dispute.clocks.round

        def done() -> bool:
            now = self.dispute(dispute.id)
            return now.clocks.round > round_ or now.decided

        who = (dispute.id, dispute.clocks.word, checksum(dispute.other))
        if STATE.unpack(state)["phase"] in DESCENTS:
            return self._do(done, "descend", *who, *descent(state), move)
        return self._do(done, "respond", *who, state, move)

    def timeout(self, dispute: Dispute, state: bytes) -> TransactionReceipt | None:
        """End a dispute whose player has let its time run out."""
        return self._do(lambda: self.dispute(dispute.id).decided, "timeout", dispute.id,
                        dispute.clocks.word, *descent(state))  # fmt: skip

    def finalise(self, job: bytes) -> TransactionReceipt | None:
        terms = self.posting(job)[0]
        return self._do(lambda: self.status(job) >= VOID, "finalise", _terms(terms))

    def collect(self, job: bytes, dispute: bytes) -> TransactionReceipt | None:
        terms = self.posting(job)[0]
        return self._do(lambda: self.dispute(dispute).paid, "collect", _terms(terms), dispute)

    # helpers

    def _salt(self, kind: str, job: bytes, provider: str = "") -> bytes:
        key = self.node.key
        assert key is not None  # whoever has an account has a key
        return key.salt(kind.encode(), job, checksum(provider).encode() if provider else b"")

    def _challenge(self, job: bytes, provider: str) -> bytes:
        me, salt = self.node.account, self._salt("challenge", job, provider)
        return challenge_commitment(self.node.chain_id, self.address, job, me, provider, salt)


def _terms(terms: Terms) -> Sequence[Any]:
    values = list(terms.values())
    values[:2] = [checksum(terms.poster), checksum(terms.token)]
    return tuple(values)
