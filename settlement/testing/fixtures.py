"""Small programs for disputes in the Court: the truth about each, and lies."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from ree.compiler.ir import Builder
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.settlement.client import Agreed, agree
from ree.settlement.demo import lie, small_program
from ree.settlement.demo_run import small_step
from ree.settlement.player import VerdePlayer
from ree.settlement.terms import Facts
from ree.settlement.work import call_facts, independent, memory_run, run_facts
from ree.verde.fault import Fault, FaultyParty, MaskedFault
from ree.verde.moves import Phase, Point
from ree.verde.party import Party
from ree.verde.run_party import RunParty, step_run
from ree.verde.scope import VALUES, computed
from ree.verde.testing import last_fault
from ree.verde.trained import Trained


@dataclass(frozen=True)
class Fixture:
    """A program with the truth about it and lies. Roots are what providers claim."""

    facts: Facts
    agreed: Agreed
    honest: VerdePlayer
    lies: tuple[tuple[bytes, VerdePlayer], ...]


def _small() -> tuple[Program, dict[str, Any]]:
    """Two values, no tree: the shortest disputes."""
    b = Builder()
    x = b.input(TensorType(DType.F32, (4, 3)))
    program = Program(
        b.finish((b.add("neg", b.add("add", x, b.add("neg", x))),)), Names(("x",), ("y",), ()), ()
    )
    return program, {"x": np.random.default_rng(3).standard_normal((4, 3)).astype(np.float32)}


def _sorted() -> tuple[Program, dict[str, Any]]:
    """A sort along a border: what leaves its defender a choice."""
    b = Builder()
    x = b.input(TensorType(DType.F32, (63,)))
    made = b.add_node("sort", (b.add("neg", x),), {"dim": 0, "descending": False})
    program = Program(b.finish((b.add("neg", made.value),)), Names(("x",), ("y",), ()), ())
    return program, {"x": np.random.default_rng(4).standard_normal(63).astype(np.float32)}


STEPS, EVERY = 13, 4  # of a training run, and between its checkpoints
LIES_AT = (1, 7, 12)  # the first step, and some that follow others after a checkpoint


def _run() -> Fixture:
    """A training run whose honest party makes a step again from the last checkpoint; needs PyTorch."""
    step, batch = small_step()
    true = Trained(step, batch, STEPS, threads=1)
    other = Trained(step, batch, STEPS, isa="portable", threads=1, fuse=False)

    @cache  # disputes of several steps take turns
    def again(s: int) -> Party:
        runner, first = step.runner(isa="portable", threads=1), (s - 1) // EVERY * EVERY
        runner.load(true.states[first])
        for before in range(first + 1, s):
            runner.run(batch(before))
        state = [np.array(x) for x in runner.state]
        return Party(step_run(step, state, step.batch(batch(s))), step.instance.digest)

    party = RunParty(step, step.state_root(true.initial), true.records, again)
    scope, rng = true.party_to(1).run.scope, np.random.default_rng(0)
    lies: dict[bytes, VerdePlayer] = {}
    for at in LIES_AT:
        history = party.statement.history
        while history in (party.statement.history, *lies):
            value = int(rng.choice(computed(scope, VALUES)))
            element = int(rng.integers(scope.type(VALUES, value).numel))
            with suppress(MaskedFault):
                fault = last_fault(scope, value, element)
                false = Trained(step, batch, STEPS, (at, fault), true)
                replay = cache(false.party_to)
                liar = RunParty(step, party.statement.initial, false.records, replay)
                history = liar.statement.history
        lies[history] = VerdePlayer(liar, step.instance)
    agreed = agree(lambda: party.statement.history, lambda: other.party().statement.history)
    return Fixture(run_facts(step.instance, party.statement), agreed, VerdePlayer(party, step.instance),
                   tuple(lies.items()))  # fmt: skip


PROGRAMS = {"small": _small, "sorted": _sorted, "layers": small_program}
KINDS = (*PROGRAMS, "run")


@lru_cache(maxsize=8)
def fixture(kind: str) -> Fixture:
    """One of KINDS, computed once a process."""
    if kind == "run":
        return _run()
    program, given = PROGRAMS[kind]()
    run, instance = memory_run(program, given)
    honest = Party(run, instance.digest)
    liars = [lie(run, instance.digest)] if kind == "layers" else []
    rng = np.random.default_rng(0)
    for v in computed(run.scope, VALUES):
        if len(liars) > 2 or run.scope.row_program(VALUES, v) is not None:
            continue
        element = int(rng.integers(run.scope.type(VALUES, v).numel))
        last = run.scope.derivation(VALUES, v, element).count - 1
        with suppress(MaskedFault):
            liar = FaultyParty(run, Fault(v, element, last, 1 << 20), instance.digest)
            if liar.statement.outputs != honest.statement.outputs:
                liars.append(liar)
    lies = {x.statement.outputs: VerdePlayer(x, instance) for x in liars}
    assert len(lies) > 1  # liars that differ from one another too
    return Fixture(call_facts(program, given), agree(*independent(program, given)),
                   VerdePlayer(honest, instance), tuple(lies.items()))  # fmt: skip


class Pointer:
    """A challenger that has computed nothing and points somewhere."""

    def __init__(self, player: VerdePlayer, rng: random.Random) -> None:
        self.player, self.rng = player, rng

    def move(self, standing: Any) -> bytes:
        s = self.player.state(standing)
        most = {Phase.CHOOSE: 2, Phase.PICK: 4, Phase.ELEMENT: 12, Phase.ENTRY: 4}[s.phase]
        return self.player.evidence.move(s, Point(self.rng.randrange(most)))


@dataclass
class Habit:
    """How a liar plays one dispute. quits: the round from which on it does not; slow: only when its time is
    nearly up; noise: with a move before each that the Court refuses; tip: in wei for each gas."""

    quits: int
    slow: bool
    noise: bool
    tip: int

    @classmethod
    def of(cls, rng: random.Random) -> Habit:
        quits = rng.choice([0, 1, 2, 5, 100, 100, 100])
        return cls(quits, rng.random() < 0.2, rng.random() < 0.3, rng.choice([1, 5]) * 10**9)
