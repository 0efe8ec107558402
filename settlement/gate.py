"""The gate before every bond: what a dispute would need of this party, and what it has.

`admit` looks at the program alone; `rehearsed` makes the party that would answer and lets it play.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from ree.compiler import legal
from ree.compiler.instance import Instance
from ree.errors import ChainError, InputError, PlatformError
from ree.settlement.evidence import Evidence
from ree.settlement.proof_size import refusals
from ree.settlement.terms import Terms
from ree.verde.game import Game
from ree.verde.moves import Move, State
from ree.verde.party import Party
from ree.verde.rehearsal import descents, rehearse, sampled
from ree.verde.run_party import RunParty
from ree.verde.scope import ROW, VALUES, ProgramScope, RowScope, computed

BLOCK_GAS = 30_000_000  # of a block, where the chain is not asked
COURT_GAS = 60_000  # of a move in the Court, beyond what the referee takes
SAMPLED = 1.0  # seconds of operations in exact arithmetic
LEAST_SAMPLED = 1
MARGIN = 4  # an answer in rehearsal may take this part of the time that the job gives for one
# of a value or a derivation: its array and the tree over its bytes, an eighth
KEPT = 9 / 8


@dataclass(frozen=True)
class Need:
    """One line of the table: what is needed and what is given; `unit` of both."""

    what: str
    needed: float
    given: float
    unit: str

    @property
    def met(self) -> bool:
        return self.needed <= self.given

    @property
    def line(self) -> str:
        verdict = "" if self.met else ": not enough"
        return f"needs {self.needed:,} {self.unit}, has {self.given:,}{verdict}"


def admit(instance: Instance) -> Instance:
    """The instance; InputError if its graph is not legal (one made in memory has passed no loader), if the
    contracts could not decide every dispute about it, or if this machine could not hold its values.
    `call_facts`, `memory_run` and runs pass here: nothing is bonded without."""
    try:
        legal.check(instance.graph)
    except legal.IllegalGraph as e:
        raise InputError(f"no contract can decide this program: {e}") from e
    found = refusals(Evidence(Game(ProgramScope(instance.graph)), instance))
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise InputError(f"no contract can decide this program: {found[0]}{more}")
    need = memory(instance)
    if not need.met:
        raise InputError(
            f"a dispute about this program cannot be answered: {need.what} {need.line}"
        )
    return instance


def memory(instance: Instance) -> Need:
    """Bytes that the party of a call keeps, every value of it at once, against what there is."""
    g, scope = instance.graph, ProgramScope(instance.graph)
    types = g.value_types()
    values = sum(t.nbytes for v, t in enumerate(types) if not scope.is_move(VALUES, v))
    given = sum(t.nbytes for t in (*g.inputs, *g.weights, *g.states))
    largest = max((t.nbytes for t in (*types, *g.inputs, *g.weights, *g.states)), default=0)
    kept = values + given + longest(scope)
    return Need("memory", int(KEPT * kept) + largest, available(), "bytes")


def longest(scope: ProgramScope) -> int:
    """Bytes of the longest derivation of a value, of which a party holds one at a time."""
    most = 0
    for v in computed(scope, VALUES):
        program = scope.row_program(VALUES, v)
        if program is None:
            made = [
                scope.derivation(VALUES, v, scope.type(VALUES, v).numel - 1)
            ]  # no element has a longer one
        else:
            inner = RowScope(scope, (VALUES, v, 0), program)
            made = [
                inner.derivation(ROW, i, inner.type(ROW, i).numel - 1) for i in computed(inner, ROW)
            ]
        most = max([most, *(d.count * d.width for d in made)])
    return most


def available() -> int:
    """Bytes of memory that this process may still take."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) << 10
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):  # another system
        used = 0
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return free if limit == resource.RLIM_INFINITY else max(min(free, limit - used), 0)


def rehearsed(
    party: Party | RunParty, instance: Instance, terms: Terms, block: int = BLOCK_GAS
) -> list[Need]:
    """The party plays against pointers from the claim down, and at first, last and border entries of every kind
    of value of a call or of the first step, by the rules and by the local contracts; and what compiled code
    has made is compared with operations at random in exact arithmetic. ChainError if it loses or cannot answer,
    PlatformError without contracts. The time of its slowest answer, and of all of a dispute, gas of the
    dearest move."""
    one = party if isinstance(party, Party) else party.party(1)
    slowest, count, of_one, most = 0.0, 0, 0.0, 0.0

    def ask(who: Party | RunParty, s: State) -> Move:
        nonlocal slowest, count, of_one
        begin = time.monotonic()
        move = who.move(s)
        took = time.monotonic() - begin
        slowest, count, of_one = max(slowest, took), count + 1, of_one + took
        return move

    local = LocalReferee(one, instance)
    ends = chain(
        rehearse(one, local.step, partial(ask, one)),
        descents(party.game, party.game.begin(party.statement), local.step, partial(ask, party)),
    )
    try:
        for what, end in ends:
            most, of_one = max(most, of_one), 0.0
            if end.winner != "defender":
                raise ChainError(f"in rehearsal a pointer at {what} wins: {end.reason}")
            if isinstance(party, RunParty) and end.run:
                again = party.party(end.step).statement
                if again != end.statement:
                    raise ChainError(f"in rehearsal step {end.step}, run again, is another one")
        operations = sampled(one, np.random.default_rng(), SAMPLED)
    except ChainError:
        raise
    except Exception as e:  # of the party, the rules or the contracts: all of them lose a bond
        raise ChainError(
            f"in rehearsal there is no answer: {type(e).__name__}: {str(e)[:200]}"
        ) from e
    return [
        Need(f"answers ({count})", round(slowest, 3), terms.grace / MARGIN, "s each"),
        Need(
            "answers of a dispute", round(most, 3), terms.grace / 2, "s"
        ),  # one of a crowd has a grace
        Need("dearest move", local.gas + COURT_GAS, block, "gas"),
        Need("operations in exact arithmetic", LEAST_SAMPLED, operations, "at random"),
    ]


class LocalReferee:
    """Moves by the rules and by the contracts on a chain in memory, which must agree. `gas` is that of the
    dearest so far."""

    def __init__(self, party: Party, instance: Instance) -> None:
        """PlatformError without the extra `settlement`."""
        try:
            import pyrevm  # noqa: F401
            import vyper  # noqa: F401
        except ImportError as e:
            raise PlatformError(
                f"a rehearsal needs '{e.name}'", "pip install 'ree-ml[settlement]'"
            ) from e
        self.gas, self._evidence = 0, Evidence(party.game, instance)

    def step(self, s: State, move: Move) -> State:
        from ree.settlement.local_referee import referee, step

        after = step(self._evidence, s, move)
        self.gas = max(self.gas, referee().gas)
        return after


def table(
    instance: Instance,
    terms: Terms,
    party: Party | RunParty,
    tokens: Need,
    move: int,
    block: int = BLOCK_GAS,
) -> list[Need]:
    """All that is needed and given; it is rehearsed only if the rest suffices. move: seconds that every move
    must have. block: gas of a block."""
    rows = [memory(admit(instance)), tokens, Need("time of a move", move, terms.grace, "s")]
    return rows if any(not r.met for r in rows) else rows + rehearsed(party, instance, terms, block)


def require(rows: Sequence[Need]) -> None:
    """ChainError, with the numbers, for the first line that is not met."""
    for r in rows:
        if not r.met:
            raise ChainError(f"nothing was bonded: {r.what} {r.line}")
