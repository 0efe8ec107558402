"""What a party computes in a dispute beyond one re-execution, in CPU seconds of all its threads.

One re-execution is a run that hashes every operator's result and keeps it: without that nobody finds a first
false operation. Of a training run it is the replay from the last checkpoint, the disputed step run in that way.
Beyond it is everything else: committing to the run's tensors, reading every request, playing the other
side's moves, finding one's own, writing the answer. Loading, planning and compiling are in neither.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from ree.errors import DisputeError, InputError
from ree.kernels.types import DType
from ree.program import Program
from ree.training.step import Step
from ree.verde.fault import Fault, MaskedFault
from ree.verde.messages import Parties, Signed, decode_signed, encode_request
from ree.verde.moves import Phase
from ree.verde.party import Party, run_of
from ree.verde.protocol import Reason
from ree.verde.referee import check_terms
from ree.verde.run_party import step_run
from ree.verde.scope import ROW, VALUES, ProgramScope
from ree.verde.service import Service, service_of
from ree.verde.testing import inner_faults
from ree.verde.trained import Batches, Trained
from ree.verde.verdict import Rules

REPEAT = 5


def cpu(f: Any, repeat: int = REPEAT) -> float:
    """The least CPU time of a few calls, after one that warms up."""
    f()
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        f()
        best = min(best, time.process_time() - start)
    return best


def revealed(x: Any) -> int:
    """Bytes of digests and leaves in a move."""
    if isinstance(x, bytes):
        return len(x)
    if isinstance(x, tuple):
        return sum(map(revealed, x))
    return sum(revealed(getattr(x, f.name)) for f in fields(x)) if is_dataclass(x) else 0


def play(program: Program, defender: Service, challenger: Service) -> dict[str, Any]:
    """A dispute through requests and answers as bytes, with each party's CPU seconds."""
    rules = Rules(program, defender.terms)
    s, moves, spent = rules.start(), list[Signed](), {"defender": 0.0, "challenger": 0.0}
    sizes, shown = 0, 0
    while s.phase is not Phase.OVER:
        party = defender if s.player == "defender" else challenger
        request = encode_request(Parties(defender.terms, challenger.terms), moves)
        start = time.process_time()
        answer = party.answer(request)
        spent[s.player] += time.process_time() - start
        moves.append(decode_signed(answer))
        sizes += len(answer)
        shown += revealed(moves[-1].move)
        s = rules.apply(s, moves[-1].move)
    assert s.cause is Reason.EXECUTED, s.reason
    return {
        "winner": s.winner,
        "moves": len(moves),
        "bytes": sizes,
        "revealed": shown,
        "cpu": spent,
    }


def sizes_of(scope: ProgramScope, fault: Fault, steps: int = 1) -> dict[str, int]:
    """What the length of a dispute depends on."""
    if fault.row:
        d = scope.inside((VALUES, fault.value, fault.element)).derivation(ROW, *fault.row)
    else:
        d = scope.derivation(VALUES, fault.value, fault.element)
    return {"steps": steps, "values": scope.count(VALUES),
            "elements": scope.type(VALUES, fault.value).numel, "operations": d.count}  # fmt: skip


def length_of(game: dict[str, Any]) -> dict[str, int]:
    return {k: game[k] for k in ("moves", "bytes", "revealed")}


class Call:
    """Disputes about one call of a program."""

    def __init__(self, program: Program, inputs: Sequence[Any]) -> None:
        self.program, self.inputs = program, list(inputs)
        self.symbols = program.bind_symbols(self.inputs)
        self.seconds = {
            "plain": cpu(lambda: program.run(*self.inputs)),
            "every result hashed": cpu(lambda: program.run(*self.inputs, trace="ops")),
            "hashed and kept": cpu(lambda: run_of(program, self.inputs)),
        }
        self.honest, self.instance = run_of(program, self.inputs)

    def lie(self, value: int) -> tuple[Fault, Service] | None:
        """A lie in a value that reaches the outputs, with who tells it."""
        true = self.service()[0].terms
        for fault in inner_faults(self.honest.scope, value, np.random.default_rng(value)):
            if fault.flip < 1 << 20 and self.honest.scope.type(VALUES, value).dtype is DType.F32:
                continue  # rarely seen so far away
            try:
                liar = service_of(self.program, self.honest, self.instance, self.symbols, fault)
                check_terms(liar.terms, true)
            except (InputError, DisputeError):
                continue
            return fault, liar
        return None

    def service(self) -> tuple[Service, float]:
        """An honest party to a run that has been made, and the CPU seconds until it stands."""
        run, instance = run_of(self.program, self.inputs)
        start = time.process_time()
        service = service_of(self.program, run, instance, self.symbols)
        return service, time.process_time() - start

    def dispute(self, value: int) -> dict[str, Any] | None:
        """A dispute about a value both ways: its length, and the honest party's work in each role."""
        found = self.lie(value)
        if found is None:
            return None
        fault, liar = found
        seconds = {}
        for role in ("challenger", "defender"):
            honest, start = self.service()
            sides = (liar, honest) if role == "challenger" else (honest, liar)
            game = play(self.program, *sides)
            assert game["winner"] == role
            seconds[role] = start + game["cpu"][role]
        out = {f"{role} seconds": round(x, 4) for role, x in seconds.items()}
        return sizes_of(self.honest.scope, fault) | length_of(game) | out


class Training:
    """Disputes about a training run in memory that keeps a state every so many steps."""

    def __init__(self, step: Step, batch: Batches, seed: int, steps: int, every: int) -> None:
        self.step, self.batch, self.seed, self.steps, self.every = step, batch, seed, steps, every
        self.true = Trained(step, batch, steps)
        self._runner = step.runner()
        self.replayed = 0.0  # CPU seconds of re-execution in the dispute that is played

    def replay(self, s: int) -> Party:
        """A step made again from the last state that was kept."""
        start = time.process_time()
        kept = (s - 1) // self.every * self.every
        self._runner.load(self.true.states[kept])
        for i in range(kept + 1, s):
            self._runner.run(self.batch(i))
        state = [np.array(x) for x in self._runner.state]
        run = step_run(self.step, state, self.step.batch(self.batch(s)))
        self.replayed += time.process_time() - start
        return Party(run, self.step.instance.digest)

    def dispute(self, value: int, at: int) -> dict[str, Any] | None:
        """As for a call, about a value of step `at`; None if no lie reaches the history."""
        scope = ProgramScope(self.step.instance.graph)
        for fault in inner_faults(scope, value, np.random.default_rng(value)):
            try:
                lie = Trained(self.step, self.batch, self.steps, (at, fault), self.true)
            except MaskedFault:
                continue
            if lie.records != self.true.records:
                break
        else:
            return None
        liar, out = lie.service(self.seed), {}
        self.replay(at)  # warm
        for role in ("challenger", "defender"):
            self.replayed, start = 0.0, time.process_time()
            honest = self.true.service(self.seed, self.replay)
            stands = time.process_time() - start
            sides = (liar, honest) if role == "challenger" else (honest, liar)
            game = play(self.step.program, *sides)
            assert game["winner"] == role
            out[f"{role} seconds"] = round(stands + game["cpu"][role] - self.replayed, 4)
        out["re-execution seconds"] = round(self.replayed, 4)
        return sizes_of(scope, fault, self.steps) | length_of(game) | out
