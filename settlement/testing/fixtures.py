"""Small programs for disputes in the Court: the truth about each, and lies."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ree.compiler.ir import Builder
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.settlement.client import Agreed, agree
from ree.settlement.demo import lie, small_program
from ree.settlement.player import VerdePlayer
from ree.settlement.terms import Facts
from ree.settlement.work import call_facts, independent, memory_run
from ree.verde.fault import Fault, Liar, Vanished
from ree.verde.moves import Phase, Point
from ree.verde.party import Party
from ree.verde.scope import VALUES, computed


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


PROGRAMS = {"small": _small, "sorted": _sorted, "layers": small_program}


@lru_cache(maxsize=8)
def fixture(kind: str) -> Fixture:
    """One of PROGRAMS, computed once a process."""
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
        with suppress(Vanished):
            liar = Liar(run, Fault(v, element, last, 1 << 20), instance.digest)
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
