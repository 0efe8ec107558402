"""A party as a service: bytes in, bytes out; nothing follows from what is kept between two questions."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ree.compiler.instance import Instance
from ree.errors import InputError, ReeError
from ree.kernels.opdef import Array
from ree.program import Program
from ree.traces.history import History
from ree.training.directory import RunReader
from ree.training.loop import loss_bits
from ree.verde.fault import Fault, FaultyParty, MaskedFault
from ree.verde.game import Game
from ree.verde.messages import (
    MessageError,
    Parties,
    Signed,
    Terms,
    decode_request,
    encode_signed,
)
from ree.verde.moves import IllegalMove, Move, Phase, RunStatement, State, Statement
from ree.verde.party import Party, Run, run_of
from ree.verde.referee import InvalidResponse, difference
from ree.verde.run_party import RunParty, step_run
from ree.verde.scope import ROW, VALUES, ProgramScope
from ree.verde.signing import Signer, Unsigned, history_of, process_signer
from ree.verde.verdict import Rules, commitment_of


class RefusedQuestion(ValueError):
    """A question that the party does not answer; the message says why."""


class Player(Protocol):
    """A party to a call or to a run."""

    game: Game

    @property
    def statement(self) -> Statement | RunStatement:
        """What it stands for."""

    def move(self, s: State) -> Move:
        """The move that is due."""


class Service:
    """Answers for one party, for its own statement as defender or against another's. It signs no move after
    one that the other, or itself, has not signed: what it signs, anyone may show."""

    def __init__(
        self, program: Program, party: Player, terms: Terms, signer: Signer | None = None
    ) -> None:
        self.party, self.signer = party, signer or process_signer()
        self.terms = self.signer.terms(terms)
        Rules(program, terms)  # the commitment is made of the terms
        self.game = party.game
        self._lock = threading.Lock()  # a party computes one answer at a time
        self._known: list[
            tuple[Move | None, State]
        ] = []  # of the last dispute; nothing follows from it

    def answer(self, request: bytes) -> bytes:
        """The signed move that is due after a dispute's moves so far; MessageError, Refused."""
        return encode_signed(self.respond(*decode_request(request)))

    def respond(self, dispute: Parties, moves: Sequence[Signed]) -> Signed:
        """The move that is due, signed; Refused unless all that came before it is signed too."""
        if self.terms not in dispute:
            raise RefusedQuestion("this party does not stand for those terms")
        bare = [m.move for m in moves]
        with self._lock:
            states = self._due(dispute.defender.statement, bare)
            *players, player = (s.player for s in states)
            if getattr(dispute, player) != self.terms:
                raise RefusedQuestion(f"this party is not the {player}")
            try:
                history = history_of(dispute, players, moves)
            except Unsigned as e:
                raise RefusedQuestion(str(e)) from e
            return self.signer.move(player, history, self.party.move(states[-1]))

    def move(self, statement: Statement | RunStatement, moves: Sequence[Move]) -> Move:
        """The move that is due, which this says to nobody else; Refused."""
        with self._lock:
            return self.party.move(self._due(statement, moves)[-1])

    def _due(self, statement: Statement | RunStatement, moves: Sequence[Move]) -> list[State]:
        """The states of a dispute in which this party may have to move; Refused."""
        mine = self.terms.statement
        found = difference(statement, mine)
        if found:
            raise RefusedQuestion(f"the dispute is about another {found}")
        try:
            states = self._states(statement, moves)
        except IllegalMove as e:
            raise RefusedQuestion(f"not a dispute: {e}") from e
        if states[-1].phase is Phase.OVER:
            raise RefusedQuestion("the dispute is decided")
        if states[-1].player == "defender" and statement != mine:
            raise RefusedQuestion("this party does not stand for that statement")
        return states

    def _states(self, statement: Statement | RunStatement, moves: Sequence[Move]) -> list[State]:
        """The states before and after each move; those that the last answer was about are not played again."""
        first = self.game.begin(statement)
        if not self._known or self._known[0][1] != first:
            self._known = [(None, first)]
        same = 0
        while (
            same < min(len(moves), len(self._known) - 1) and self._known[same + 1][0] == moves[same]
        ):
            same += 1
        del self._known[same + 1 :]
        for m in moves[same:]:
            self._known.append((m, self.game.apply(self._known[-1][1], m)))
        return [s for _, s in self._known]


class Local:
    """The transport to a party in this process."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def terms(self, seconds: float) -> Terms:
        return self.service.terms

    def ask(self, dispute: Parties, moves: Sequence[Signed], seconds: float) -> bytes:
        try:
            return encode_signed(self.service.respond(dispute, moves))
        except (RefusedQuestion, MessageError) as e:
            raise InvalidResponse(str(e)) from e


def make_service(
    program: Program,
    inputs: Mapping[str, Any],
    fault: Fault | None = None,
    threads: int | None = None,
    signer: Signer | None = None,
) -> Service:
    """Run a program on inputs and stand for what came out, or for a lie. InputError where inputs or
    fault do not fit."""
    missing = [n for n in program.names.inputs if n not in inputs]
    unknown = [n for n in inputs if n not in program.names.inputs]
    if missing or unknown:
        raise InputError(f"missing input '{missing[0]}'" if missing else f"unknown input '{unknown[0]}'",
                         f"inputs are {', '.join(program.names.inputs)}")  # fmt: skip
    arrays = program.arrays([inputs[n] for n in program.names.inputs])
    env = program.bind_symbols(arrays)
    if program.graph.states:
        raise ReeError("a training step has no party: serve the run")
    run, instance = run_of(program, arrays, threads)
    return service_of(program, run, instance, env, fault, signer)


def service_of(
    program: Program,
    run: Run,
    instance: Instance,
    symbols: Mapping[str, int],
    fault: Fault | None = None,
    signer: Signer | None = None,
) -> Service:
    """Stand for a run in memory, or for a lie about it; InputError where the fault does not fit."""
    party = _party(run, instance.digest, fault)
    bare = Terms(party.statement, program.program_hash, tuple(sorted(symbols.items())), bytes(32))
    terms = replace(bare, commitment=commitment_of(instance, bare, party.committed[VALUES].root))
    return Service(program, party, terms, signer)


def _party(run: Run, instance: bytes, fault: Fault | None) -> Party:
    """An honest party to a run, or one that lies; InputError where the fault does not fit."""
    if fault is None:
        return Party(run, instance)
    check_fault(run.scope, fault)
    try:
        return FaultyParty(run, fault, instance)
    except MaskedFault as e:
        raise InputError(
            "fault: it vanishes within its value", "flip a higher bit, or another operation's"
        ) from e


def run_service(
    path: str | Path, fault: Fault | None = None, at: int = 0, signer: Signer | None = None
) -> Service:
    """Stand for a training run on disk; steps are made again from its checkpoints and kept batches. With a
    fault, lie in step `at` and go on from there. RunError where the run is not as it must be, InputError where
    the fault does not fit."""
    reader = RunReader(Path(path))
    step, header, records = reader.step, reader.manifest.header(), list(reader.records)
    false: list[Array] = []  # state after the lie

    runner = step.runner()

    def replay(s: int) -> Party:
        start = at if false and s > at else reader.nearest(s - 1)
        runner.load(false if false and s > at else reader.state(start))
        for i in range(start + 1, s):
            runner.run(reader.batch(i))
        run = step_run(step, [np.array(x) for x in runner.state], reader.batch(s))
        return _party(run, step.instance.digest, fault if s == at else None)

    if fault is not None:
        if not 1 <= at <= len(records):
            raise InputError(f"fault: expected a step of 1 to {len(records)}, got {at}")
        outputs = replay(at).run.arrays["outputs"]
        *state, loss = (np.array(x) for x in outputs if x is not None)
        false += state
        runner.load(false)
        for i in range(at, len(records) + 1):
            if i > at:
                loss = np.array(runner.run(reader.batch(i)))
                state = [np.array(x) for x in runner.state]
            records[i - 1] = replace(
                records[i - 1], state_root=step.state_root(state), loss=loss_bits(loss)
            )
    party = RunParty(step, header.initial_root, records, replay)
    terms = Terms(party.statement, step.program_hash, (), History(header, records).commitment,
                  header.seed % 2**64)  # fmt: skip
    return Service(step.program, party, terms, signer)


def check_fault(scope: ProgramScope, f: Fault) -> None:
    """InputError unless a fault is somewhere in the program."""
    if not 0 <= f.value < scope.count(VALUES) or scope.is_move(VALUES, f.value):
        raise InputError(f"fault: value {f.value} is none that an operator computes")
    size = scope.type(VALUES, f.value).numel
    if not 0 <= f.element < size:
        raise InputError(f"fault: expected an element below {size}, got {f.element}")
    program = scope.row_program(VALUES, f.value)
    if (program is not None) != (f.row is not None):
        raise InputError("fault: a composite needs a node and an element of its row program"
                         if program is not None else "fault: only a composite has a row program")  # fmt: skip
    if program is None or f.row is None:
        count = scope.derivation(VALUES, f.value, f.element).count
    else:
        inner = scope.inside((VALUES, f.value, f.element))
        node, element = f.row
        if not 0 <= node < len(inner.nodes) or inner.is_move(ROW, node):
            raise InputError(f"fault: row node {node} is none that an operator computes")
        if not 0 <= element < inner.nodes[node].out.numel:
            raise InputError(
                f"fault: expected an element below {inner.nodes[node].out.numel}, got {element}"
            )
        count = inner.derivation(ROW, node, element).count
    if not 0 <= f.operation < count:
        raise InputError(f"fault: expected an operation below {count}, got {f.operation}")


def parse_fault(text: str, row: str | None = None) -> Fault:
    """value,element,operation[,flip], and node,element of the row program; InputError."""
    try:
        numbers = [int(x, 0) for x in text.split(",")]
        inner = None if row is None else [int(x, 0) for x in row.split(",")]
    except ValueError as e:
        raise InputError("fault: expected numbers") from e
    if len(numbers) not in (3, 4) or (inner is not None and len(inner) != 2):
        raise InputError("fault: expected value,element,operation[,flip], row node,element")
    flip = numbers[3] if len(numbers) == 4 else 1
    if not 0 < flip < 1 << 32:
        raise InputError("fault: expected a flip of 1 to 32 bits")
    at = None if inner is None else (inner[0], inner[1])
    return Fault(numbers[0], numbers[1], numbers[2], flip, at)
