"""A dispute from beginning to end on the embedded chain: an honest provider is paid, a cheating one is caught
and slashed, each move with its gas."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ree.errors import ChainError
from ree.kernels import opdef
from ree.kernels.opdef import Array
from ree.program import Names, Program
from ree.settlement.bonds import Prices, least_bonds
from ree.settlement.client import FINAL, Agreed, Court, agree
from ree.settlement.compile import compile_ahead
from ree.settlement.deploy import deploy_court, deploy_referee, deploy_token
from ree.settlement.embedded import Embedded
from ree.settlement.player import VerdePlayer
from ree.settlement.terms import DEADLINES, Facts, Terms, facts_digest
from ree.settlement.watcher import ClaimPlayer, Standing, Watcher
from ree.settlement.work import call_facts, independent, memory_run
from ree.verde.fault import Fault, FaultyParty, MaskedFault
from ree.verde.party import Party, Run
from ree.verde.scope import VALUES

ROLES = ("poster", "honest", "cheat", "challenger")
MONEY = 1_000_000
REWARD = 10_000
BONDS = least_bonds(REWARD, Prices(million_gas=1000, execution=500))
PROVIDER_BOND, CHALLENGER_BOND = BONDS.provider, BONDS.challenger
WINDOW, CLOCK, GRACE = 3600, 86_400, 1800  # seconds
MOVES = ("respond", "descend")


@dataclass
class TimelineEntry:
    """An entry of the timeline: seconds of chain time since the job was posted."""

    at: int
    who: str
    what: str
    gas: int


@dataclass
class Story:
    """What happened; `paid` is what each account has gained, in units of the token."""

    lines: list[TimelineEntry] = field(default_factory=list)
    paid: dict[str, int] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)


@dataclass
class RoleSide:
    """A role's root, and the player that can answer for it."""

    agreed: Agreed
    player: ClaimPlayer


class Told:
    """A player that says in words what it is asked for."""

    def __init__(self, player: VerdePlayer, stage: Stage) -> None:
        self.player, self.stage = player, stage

    def move(self, standing: Standing) -> bytes:
        s = self.player.state(standing)
        self.stage.phase = s.phase.what
        return self.player.move(standing)


class Stage:
    """A chain with contracts, accounts and a job."""

    def __init__(self, say: Callable[[str], None], chain: Any = None) -> None:
        """chain: an embedded one if it is not given."""
        self.chain, self.say, self.story, self.phase = chain or Embedded(), say, Story(), ""
        self.nodes = {r: self.chain.account(r) for r in ("deployer", *ROLES)}
        deployer = self.nodes["deployer"]
        since = deployer.newest
        say("deploy the referee and the Court")
        compile_ahead()
        self.address = deploy_court(deployer, deploy_referee(deployer), deployer.account)
        self.token = deploy_token(deployer)
        self.deployed = sum(r.gas for r in deployer.receipts)
        mint = deployer.contract("token", self.token).functions.mint
        for node in self.nodes.values():
            deployer.send("mint", mint(node.account, MONEY))
        self.courts = {r: Court(self.nodes[r], self.address, since) for r in ROLES}
        self.began = self.chain.now

    def act(self, role: str, call: Callable[[], object]) -> None:
        """Do something and write down the transactions it took."""
        receipts = self.nodes[role].receipts
        before, self.phase = len(receipts), ""
        call()
        for r in receipts[before:]:
            what = f"respond: {self.phase}" if r.function in MOVES and self.phase else r.function
            line = TimelineEntry(self.chain.now - self.began, role, what, r.gas)
            self.story.lines.append(line)
            self.say(f"{line.at:>7} s  {role:<11} {r.gas:>9,} gas  {what}")

    def terms(self, facts: Facts) -> Terms:
        """Of a job that begins now."""
        start = self.chain.now
        until = {d: start + WINDOW * (i + 1) for i, d in enumerate(DEADLINES)}
        return Terms(
            poster=self.nodes["poster"].account, token=self.token, reward=REWARD, payees=1, slots=2,
            provider_bond=PROVIDER_BOND, challenger_bond=CHALLENGER_BOND, clock=CLOCK, grace=GRACE,
            facts=facts_digest(facts), nonce=1, **until,
        )  # fmt: skip

    def play(self, facts: Facts, sides: Mapping[str, RoleSide]) -> Story:
        """A job: `honest` and `cheat` provide, `challenger` watches; the story of it."""
        poster, terms = self.courts["poster"], self.terms(facts)
        self.act("poster", lambda: poster.post(terms, facts, "this process"))
        job = terms.id(self.nodes["poster"].chain_id, self.address)
        for role in ("honest", "cheat"):
            court, side = self.courts[role], sides[role]
            self.act(role, partial(court.accept, job, side.agreed))
            self.act(role, partial(court.commit, job, side.agreed))
        watchers = {r: Watcher(self.courts[r], job, s.agreed, s.player, challenge=r == "challenger")
                    for r, s in sides.items()}  # fmt: skip
        for role in watchers:  # the challenger refutes the lie; nobody need meet it again
            watchers[role].confronts = "challenger" not in sides
        for deadline in DEADLINES[1:]:
            self.chain.wait_until(getattr(terms, deadline) + 1)
            while self._round(watchers):
                pass
        while left := [d for d in poster.disputes(job) if not d.decided]:  # someone is silent
            self.chain.wait_until(min(d.clocks.deadline() for d in left) + 1)
            while self._round(watchers):
                pass
        self._end(job, poster)
        return self.story

    def _round(self, watchers: Mapping[str, Watcher]) -> int:
        count = 0
        for role, w in watchers.items():
            before = len(self.nodes[role].receipts)
            try:
                self.act(role, w.tick)
            except ChainError as e:  # a move that proves nothing
                if role != "cheat":
                    raise
                self.say(f"the cheat: {e.message}")
            count += len(self.nodes[role].receipts) - before
        return count

    def _end(self, job: bytes, poster: Court) -> None:
        root, standing, stood = poster.call("outcome", job)
        disputes = poster.disputes(job)
        moves = [n.gas for n in self.story.lines if n.what.startswith("respond")]
        self.story.paid = {r: self.courts[r].credit(self.token) - self._deposited(r) for r in ROLES}
        self.story.result = {
            "final": poster.status(job) == FINAL, "root": bytes(root).hex(), "standing": standing,
            "stood": stood, "disputes": len(disputes), "moves": len(moves), "gas_of_moves": sum(moves),
            "worst_move": max(moves, default=0), "gas_of_deployment": self.deployed,
            "burnt": poster.call("burnt", self.token), "held": poster.call("held", self.token),
        }  # fmt: skip

    def _deposited(self, role: str) -> int:
        found = self.courts[role].events("Deposited", account=self.nodes[role].account)
        return int(sum(e["amount"] for e in found))


def small_program() -> tuple[Program, dict[str, Array]]:
    """Two layers on random data: what `ree demo dispute` disputes without an artifact."""
    from ree.compiler.ir import Builder
    from ree.kernels.types import DType, TensorType

    rng = np.random.default_rng(7)
    b = Builder()
    x = b.input(TensorType(DType.F32, (4, 96)))
    w = [b.weight(TensorType(DType.F32, shape)) for shape in ((64, 96), (10, 64))]
    y = b.add("relu", b.add("linear", x, w[0]))
    out = b.add("softmax", b.add("linear", y, w[1]), dim=1)
    weights = [rng.standard_normal(s).astype(np.float32) for s in ((64, 96), (10, 64))]
    program = Program(b.finish((out,)), Names(("x",), ("y",), ("w0", "w1")), weights)
    return program, {"x": rng.standard_normal((4, 96)).astype(np.float32)}


def lie(run: Run, instance: bytes, seed: int = 0) -> FaultyParty:
    """A cheat: one bit of the last place of one operation in a contraction flipped, all that follows from it
    recomputed. ValueError if no contraction's lie reaches an output."""
    rng = np.random.default_rng(seed)
    honest = Party(run, instance).statement.outputs
    found = [v for v, n in enumerate(run.scope.producers)
             if opdef.get(n.op).form is opdef.Form.CONTRACTION]  # fmt: skip
    for value in found[len(found) // 2 :] + found[: len(found) // 2]:
        numel = run.scope.type(VALUES, value).numel
        for _ in range(3):
            element = int(rng.integers(numel))
            d = run.scope.derivation(VALUES, value, element)
            fault = Fault(value, element, int(rng.integers(d.count)))
            try:
                liar = FaultyParty(run, fault, instance)
            except MaskedFault:
                continue
            if liar.statement.outputs != honest:
                return liar
    raise ValueError("no lie reaches an output")


def call_dispute(
    program: Program | None = None,
    inputs: Mapping[str, Array] | None = None,
    say: Callable[[str], None] = print,
    chain: Any = None,
    fault: Fault | None = None,
) -> dict[str, Any]:
    """Dispute over a call of a program (default: a small one), told by `say`; what came of it.
    fault: the lie, by default in a contraction."""
    begin = time.perf_counter()
    if program is None:
        program, inputs = small_program()
    given = dict(program.examples if inputs is None else inputs)
    facts = call_facts(program, given)
    say("compute the root twice, independently")
    agreed = agree(*independent(program, given))
    run, instance = memory_run(program, given)
    honest = Party(run, instance.digest)
    liar = FaultyParty(run, fault, instance.digest) if fault else lie(run, instance.digest)
    node = run.scope.producers[liar.fault.value]
    say(f"the cheat flips a bit of operation {liar.fault.operation} of element {liar.fault.element} of "
        f"%{liar.fault.value} ({node.op}) and recomputes all that follows")  # fmt: skip
    stage = Stage(say, chain)
    true = Told(VerdePlayer(honest, instance), stage)
    false = Told(VerdePlayer(liar, instance), stage)
    story = stage.play(facts, {
        "honest": RoleSide(agreed, true),
        "cheat": RoleSide(Agreed(liar.statement.outputs), false),
        "challenger": RoleSide(agreed, true),
    })  # fmt: skip
    return finish(story, say, begin, program=program.program_hash.hex(), fault=asdict(liar.fault),
                  operator=node.op, true_root=agreed.root.hex(),
                  false_root=liar.statement.outputs.hex())  # fmt: skip


def finish(story: Story, say: Callable[[str], None], begin: float, **facts: Any) -> dict[str, Any]:
    """Tell the end; everything as one object."""
    result = story.result
    say(f"final: {result['standing']} claim stands; paid {story.paid}, burnt {result['burnt']}")
    if not result["stood"]:
        say("the root that stands was not challenged itself: unverified")
    timeline = [asdict(line) for line in story.lines]
    seconds = round(time.perf_counter() - begin, 1)
    return {**facts, **result, "paid": story.paid, "timeline": timeline, "seconds": seconds}
