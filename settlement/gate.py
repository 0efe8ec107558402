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
from pathlib import Path

from ree.compiler.instance import Instance
from ree.errors import ChainError, InputError
from ree.settlement.bounds import refusals
from ree.settlement.evidence import Evidence
from ree.settlement.terms import Terms
from ree.verde.game import Game
from ree.verde.party import Party
from ree.verde.rehearsal import Step, rehearse
from ree.verde.run_party import RunParty
from ree.verde.scope import ROW, VALUES, ProgramScope, RowScope

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
    """The instance; InputError if the contracts could not decide every dispute about it, or if this machine
    could not hold its values. `call_facts`, `memory_run` and runs pass here: nothing is bonded without."""
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
    for v, t in enumerate(scope.graph.value_types()):
        if scope.is_move(VALUES, v) or t.numel == 0:
            continue
        program = scope.row_program(VALUES, v)
        if program is None:
            made = [scope.derivation(VALUES, v, t.numel - 1)]  # no element has a longer one
        else:
            inner = RowScope(scope, (VALUES, v, 0), program)
            made = [inner.derivation(ROW, i, inner.type(ROW, i).numel - 1) for i in range(inner.count(ROW))
                    if not inner.is_move(ROW, i) and inner.type(ROW, i).numel]  # fmt: skip
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


def rehearsed(party: Party | RunParty, instance: Instance, terms: Terms) -> list[Need]:
    """The party plays against pointers at first, last and border entries of every kind of value, by the
    rules and, where the extra is installed, by the local contracts. ChainError if it loses or cannot
    answer; the time of its slowest answer."""
    one = party if isinstance(party, Party) else party.party(1)
    step = _local(one, instance) if isinstance(party, Party) else one.game.apply
    slowest, count, begin = 0.0, 0, time.monotonic()
    try:
        for what, end in rehearse(one, step):
            now = time.monotonic()
            slowest, count, begin = max(slowest, now - begin), count + 1, now
            if end.winner != "defender":
                raise ChainError(f"in rehearsal a pointer at {what} wins: {end.reason}")
    except ChainError:
        raise
    except Exception as e:  # of the party, the rules or the contracts: all of them lose a bond
        raise ChainError(
            f"in rehearsal there is no answer: {type(e).__name__}: {str(e)[:200]}"
        ) from e
    return [Need(f"answers ({count})", round(slowest, 3), terms.grace / MARGIN, "s each")]


def _local(party: Party, instance: Instance) -> Step:
    """A move by the rules and by the contracts on a chain in memory, which must agree."""
    try:
        import pyrevm  # noqa: F401
        import vyper  # noqa: F401
    except ImportError:
        return party.game.apply
    from ree.settlement.testing.referee import step

    return partial(step, Evidence(party.game, instance))


def table(
    instance: Instance, terms: Terms, party: Party | RunParty, tokens: Need, move: int
) -> list[Need]:
    """All that is needed and given; it is rehearsed only if the rest suffices. move: seconds that
    every move must have."""
    rows = [memory(admit(instance)), tokens, Need("time of a move", move, terms.grace, "s")]
    return rows if any(not r.met for r in rows) else rows + rehearsed(party, instance, terms)


def require(rows: Sequence[Need]) -> None:
    """ChainError, with the numbers, for the first line that is not met."""
    for r in rows:
        if not r.met:
            raise ChainError(f"nothing was bonded: {r.what} {r.line}")
