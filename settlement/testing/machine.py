"""A stateful machine over the Court with the real referee: liars, weather and crashes in any order."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ree.settlement.testing.crowd import (
    DEAREST,
    LONG,
    SHORT,
    Crowd,
)
from ree.settlement.testing.crowd_job import FALSE, LIARS, SYBILS, Job
from ree.settlement.testing.fixtures import KINDS
from ree.settlement.testing.pool import BLOCK

PROVIDERS = (("alice", "bob"), ("bob",), ("bob", "eve"), ("eve", "alice", "bob"), ("alice",))
STAGES = ("reveal", "challenge", "open")
FLOOD = tuple(f"false {i}" for i in range(4))
CHALLENGERS = (*FALSE, *FLOOD, *(f"sybil {i}" for i in range(SYBILS)))
WRONG = (
    "reveal",
    "challenge",
    "confront",
    "finalise",
    "collect",
    "forfeit",
    "reclaim",
    "accept",
    "void",
)
THIN = 1_500_000  # gas that is left in a block which others fill

_jobs = st.tuples(st.sampled_from(KINDS), st.sampled_from(PROVIDERS), st.integers(0, 2**32 - 1))


class RefereeMachine(RuleBasedStateMachine):
    """One or two jobs in which liars do what they like, and honest watchers have their turn.

    Troubles (outages, thin blocks, jumps of the base fee, reorganisations, crashes) keep the honest from moving
    for less than `grace` each, but for one of LONG seconds; in all that is the hour that terms allow for.
    A hasty job has clocks for one move a block and no troubles but restarts: in it the order of moves counts.
    """

    crowd: ClassVar[Crowd | None] = None
    only: ClassVar[str] = ""  # this weather
    kinds: ClassVar[tuple[str, ...]] = KINDS  # of jobs

    @initialize(
        jobs=st.lists(_jobs, min_size=1, max_size=2),
        weather=st.sampled_from(("calm", "flood", "siege")),
        stage=st.sampled_from((*STAGES, *("open",) * 5)),
        false=st.sets(st.sampled_from(CHALLENGERS), max_size=5),
    )
    def begin(self, jobs: list[Any], weather: str, stage: str, false: set[str]) -> None:
        """Up to a stage; from `challenge` on with false challenges and a cheat's of itself. A flood of these
        meets one honest provider who is hasty; a siege begins when disputes have been opened."""
        cls = type(self)
        self.now = cls.crowd = cls.crowd or Crowd()
        self.now.begin()
        weather = cls.only or weather
        self.hasty, self.spent, self.trouble = weather == "flood", 0, 0
        if self.hasty:
            jobs, false = [("small", ("alice", "bob"), jobs[0][2])], {*false, *FALSE, *FLOOD}
            stage = "open"
        for which, providers, seed in jobs:
            kind = which if which in cls.kinds else cls.kinds[0]
            self.now.post(kind, list(providers), self.hasty, seed)
        self.now.pool.auto = False
        for name in STAGES[: STAGES.index(stage) + 1]:
            self._to(name)
            for job in self.now.jobs:
                for role in sorted({"mia", *false}) if name == "challenge" else ():
                    self._challenge(job, role)
        if weather == "siege" and stage == "open":
            self.now.round()
            self.long_outage()
            self.outage(SHORT, 5)

    def _to(self, stage: str) -> None:
        before = {"reveal": "commit", "challenge": "reveal", "open": "challenge"}[stage]
        self.calm()
        self.now.pool.wait_until(
            max(getattr(job.terms, f"{before}_until") for job in self.now.jobs) + 1
        )

    def _challenge(self, job: Job, role: str) -> None:
        for whom in LIARS if role.startswith("sybil") else ("alice",):
            if job.name(whom) in job.providers:
                self.now.challenge(job, role, whom)
                break

    def calm(self, rounds: int = 30) -> None:
        """Until the honest have nothing on their way."""
        for _ in range(rounds):
            if not self.now.round():
                break
        self.trouble = 0

    def bear(self, seconds: int) -> bool:
        """Whether so many seconds of trouble are within what terms allow for; after a calm, if need be."""
        if self.hasty:
            return False
        if self.trouble + seconds > SHORT:
            self.calm(3)
        self.trouble += seconds
        self.spent += seconds
        return True

    @rule(rounds=st.integers(1, 6))
    def play(self, rounds: int) -> None:
        for _ in range(rounds):
            self.now.round()
        self.trouble = 0 if rounds > 2 else self.trouble

    @rule()
    def wait(self) -> None:
        """To the next time at which something changes."""
        self.calm()
        self.now.jump()

    @rule(seconds=st.sampled_from([60, SHORT]), times=st.integers(1, 6))
    def outage(self, seconds: int, times: int) -> None:
        """Before every move."""
        for _ in range(times if self.bear(seconds) else 0):
            self.now.round(seconds, out=True)
            self.now.round()
        self.trouble = 0

    @precondition(lambda self: not self.hasty and self.spent < 200)
    @rule()
    def long_outage(self) -> None:
        """All that the terms allow for at once."""
        if self.trouble:
            self.calm(3)
        self.spent += LONG
        self.now.round(LONG, out=True)
        self.now.round()

    @rule(blocks=st.integers(1, 5))
    def thin_blocks(self, blocks: int) -> None:
        if self.bear(blocks * BLOCK):
            for _ in range(blocks):
                self.now.round(room=THIN)

    @rule(times=st.sampled_from([2, 20]))
    def base_fee(self, times: int) -> None:
        pool = self.now.pool
        if pool.head.base * times < DEAREST and self.bear(3 * BLOCK):
            pool.dearer(times)
            self.now.round()

    @rule(depth=st.integers(1, 3), lose=st.booleans())
    def reorganise(self, depth: int, lose: bool) -> None:
        if self.bear(4 * BLOCK):
            self.now.pool.drop(depth, lose=lose)
            self.now.round()

    @rule(who=st.integers(0, 5), rounds=st.integers(0, 4))
    def crash(self, who: int, rounds: int) -> None:
        honest = [p for job in self.now.jobs for p in job.honest.values()]
        p = honest[who % len(honest)]
        if self.hasty or self.bear(rounds * (BLOCK + 1)):
            p.watcher, p.down = None, 0 if self.hasty else rounds

    @rule()
    def copy(self) -> None:
        """Somebody sends in its own name what the honest have in the pool."""
        for job in self.now.jobs:
            for p in job.honest.values():
                self.now.turn(job, p)
        self.now.copy()
        self.now.round()

    @rule(role=st.sampled_from(CHALLENGERS), job=st.integers(0, 1))
    def challenge(self, role: str, job: int) -> None:
        self._challenge(self.now.jobs[job % len(self.now.jobs)], role)

    @rule(name=st.sampled_from(WRONG), job=st.integers(0, 1), who=st.integers(0, 20))
    def wrong_call(self, name: str, job: int, who: int) -> None:
        """In some phase, by somebody: what is refused changes nothing, and what is not is allowed to anyone."""
        self.now.wrong(self.now.jobs[job % len(self.now.jobs)], name, who)

    @rule()
    def free_post(self) -> None:
        self.now.free_post()

    def teardown(self) -> None:
        """To the end of all jobs, unless something has been found."""
        if hasattr(self, "now") and self.now.jobs and self.now.sound:
            self.now.finish()
