"""A job of a crowd: who stands for what in it, and how liars play."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from ree.settlement.policy import DEVELOPMENT, Policy
from ree.settlement.terms import Terms
from ree.settlement.testing.evm import Chain, Contract
from ree.settlement.testing.fixtures import Habit, Pointer, fixture
from ree.settlement.watcher import Watcher

HONEST, LIARS, FALSE, SYBILS = ("alice", "carol", "dan"), ("bob", "eve"), ("mia", "max"), 3


@dataclass
class Watched:
    """An honest account of a job: its watcher while it is up."""

    name: str
    watcher: Watcher | None = None
    down: int = 0  # rounds until it is started again
    notes: list[str] = field(default_factory=list)


class Job:
    """A job, with the run that each account has."""

    def __init__(self, court: str, number: int, kind: str, token: Contract, hasty: bool, rng: random.Random,
                 terms: Terms, providers: list[str]) -> None:  # fmt: skip
        self.number, self.what, self.token = number, fixture(kind), token
        self.hasty, self.rng, self.terms, self.providers = hasty, rng, terms, providers
        self.policy = DEVELOPMENT if hasty else Policy()
        self.id = terms.id(Chain.chain_id, court)
        lies = list(self.what.lies)
        rng.shuffle(lies)
        self.roots = {self.name("alice"): self.what.agreed.root}
        self.players: dict[str, Any] = {}
        for role, (root, player) in zip(LIARS, lies, strict=False):
            made_up = rng.random() < 0.2  # a root that nobody can open
            self.roots[self.name(role)] = rng.randbytes(32) if made_up else root
            self.players[self.name(role)] = player
        for role in self.others():
            pointer = Pointer(self.what.honest, rng)
            self.players[self.name(role)] = lies[0][1] if rng.random() < 0.5 else pointer
        self.honest = {self.name(r): Watched(self.name(r)) for r in HONEST
                       if r != "alice" or self.name(r) in providers}  # fmt: skip
        self.habits: dict[bytes, Habit] = {}
        self.pending: set[tuple[str, str]] = set()  # challenges that are to be shown
        self.mute = rng.random() < 0.1  # its liars do not reveal

    def name(self, role: str) -> str:
        return f"{role} {self.number}"

    def others(self) -> list[str]:
        """Accounts that challenge what is true, or their friends."""
        return [*FALSE, *(f"false {i}" for i in range(4)), *(f"sybil {i}" for i in range(SYBILS))]

    @property
    def names(self) -> list[str]:
        return [self.name(r) for r in (*HONEST, *LIARS, *self.others())]
