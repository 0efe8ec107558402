"""Verdicts: a decided dispute as a file that anyone replays with nothing but the artifact.

    digest      SHA-256 over all that follows
    terms       what the defender stands for: statement, program, symbols, commitment, key, signature
    challenger  what the challenger stands for
    moves       every move, in order
    signatures  of the moves, each by its player's key
    winner      "defender" or "challenger"
    reason      what decided

A verdict shows that the owners of the two keys stood for these terms and made these moves, and who wins. Whose
the keys are is not in the file: it is shown by what the parties published.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ree.compiler.instance import Instance
from ree.errors import DisputeError
from ree.files.atomic import atomic_file
from ree.program import Program
from ree.traces.encoding import ZERO
from ree.traces.history import RunHeader, run_commitment
from ree.traces.trace import io_root_of, ops_root
from ree.verde.game import Game
from ree.verde.messages import (
    MAX_REQUEST,
    OPTIONAL_TERMS,
    SIGNATURES,
    TERMS,
    MessageError,
    Parties,
    Signed,
    Terms,
    canonical,
    envelope,
    fields,
    move_value,
    moves_of,
    parse,
)
from ree.verde.moves import (
    VERSION,
    IllegalMove,
    Move,
    Open,
    Phase,
    RunStatement,
    State,
    Statement,
)
from ree.verde.protocol import Reason
from ree.verde.scope import ProgramScope
from ree.verde.signing import Unsigned, history_of

TIMEOUT = Reason.TIMEOUT.text


@dataclass(frozen=True)
class Verdict:
    """A decided dispute. Without the challenger's terms and the signatures it does not show who moved."""

    terms: Terms
    moves: tuple[Move, ...]
    winner: str
    reason: str
    challenger: Terms | None = None
    signatures: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """Whether a verdict follows from its moves, and if not, why. `state`: where the moves lead."""

    follows: bool
    text: str
    state: State | None = None


def encode_verdict(v: Verdict) -> bytes:
    """The file's bytes."""
    body = {"kind": "verdict", "v": VERSION, "terms": TERMS.encode(v.terms),
            "challenger": OPTIONAL_TERMS.encode(v.challenger), "moves": [move_value(m) for m in v.moves],
            "signatures": SIGNATURES.encode(v.signatures), "winner": v.winner, "reason": v.reason}  # fmt: skip
    return canonical({**body, "digest": hashlib.sha256(canonical(body)).hexdigest()})


def decode_verdict(data: bytes) -> tuple[Verdict, bool]:
    """The verdict of a file, and whether its digest is right; MessageError for a malformed one."""
    value = parse(data.removesuffix(b"\n"), MAX_REQUEST, "verdict")
    envelope(value, ("verdict",), "verdict")
    fields(value, ("kind", "v", "digest", "terms", "challenger", "moves", "signatures", "winner", "reason"),
           "verdict")  # fmt: skip
    for name in ("winner", "reason", "digest"):
        if not isinstance(value[name], str):
            raise MessageError(f"{name}: expected text")
    digest = value.pop("digest")
    same = digest == hashlib.sha256(canonical(value)).hexdigest()
    challenger = OPTIONAL_TERMS.decode(value["challenger"], "challenger")
    signatures = SIGNATURES.decode(value["signatures"], "signatures")
    verdict = Verdict(TERMS.decode(value["terms"], "terms"), tuple(moves_of(value["moves"])), value["winner"],
                      value["reason"], challenger, signatures)  # fmt: skip
    return verdict, same


def write_verdict(path: str | Path, v: Verdict) -> None:
    """Write the file, whole or not at all."""
    with atomic_file(path) as f:
        f.write(encode_verdict(v) + b"\n")


def instance_of(program: Program, terms: Terms) -> Instance:
    """The instance that terms are about; DisputeError if the artifact is not theirs."""
    if terms.program != program.program_hash:
        raise DisputeError(f"the artifact is not the dispute's: expected program {terms.program.hex()}, "
                           f"got {program.program_hash.hex()}")  # fmt: skip
    env = dict(terms.symbols)
    symbols = program.graph.symbols
    if set(env) != {s.name for s in symbols} or any(
        not s.low <= env[s.name] <= s.high for s in symbols
    ):
        raise DisputeError("the program does not accept the dispute's sizes")
    instance = program.instance(env)
    if instance.digest != terms.statement.instance:
        raise DisputeError(f"expected instance {terms.statement.instance.hex()}, "
                           f"got {instance.digest.hex()}")  # fmt: skip
    if terms.statement.weights != program.weights_root:
        raise DisputeError(f"the artifact's weights are not the dispute's: expected root "
                           f"{terms.statement.weights.hex()}, got {program.weights_root.hex()}")  # fmt: skip
    is_run, has_states = isinstance(terms.statement, RunStatement), bool(instance.graph.states)
    if is_run != has_states:
        raise DisputeError(f"the artifact is {'' if has_states else 'not '}a training step, and the dispute "
                           f"is {'' if is_run else 'not '}about a run")  # fmt: skip
    if isinstance(terms.statement, Statement) and (
        terms.statement.states,
        terms.statement.loss,
    ) != (ZERO, b""):
        raise DisputeError("the program has no states, and the dispute has")
    return instance


def commitment_of(instance: Instance, terms: Terms, values: bytes = b"") -> bytes:
    """Root of the trace that a statement and the root of its values make, or the commitment of a run."""
    s, g = terms.statement, instance.graph
    if isinstance(s, RunStatement):
        seed = terms.seed - (terms.seed >> 63 << 64)
        header = RunHeader(instance.numeric_id, s.instance, s.weights, s.initial, seed)
        return run_commitment(header, s.steps, s.batches, s.history)
    io = io_root_of(instance.numeric_id, terms.program, s.instance, s.weights,
                    (len(g.inputs), s.inputs), (len(g.outputs), s.outputs))  # fmt: skip
    return ops_root(io, g.n_values, values)


class Rules:
    """The game of given terms: its moves, and that what is opened is what was committed to."""

    def __init__(self, program: Program, terms: Terms) -> None:
        self.terms = terms
        self.instance = instance_of(program, terms)
        self.scope = ProgramScope(self.instance.graph)
        self.game = Game(self.scope)
        self._is_run = isinstance(terms.statement, RunStatement)
        if self._is_run and commitment_of(self.instance, terms) != terms.commitment:
            raise DisputeError("the run's commitment is not made of what the statement says")

    def start(self) -> State:
        return self.game.begin(self.terms.statement)

    def apply(self, s: State, move: Move) -> State:
        """The state after a move; IllegalMove."""
        if isinstance(move, Open) and s.phase is Phase.OPEN and not self._is_run:
            if commitment_of(self.instance, self.terms, move.values) != self.terms.commitment:
                raise IllegalMove("the values are not those of the trace")
        return self.game.apply(s, move)

    def states(self, moves: Sequence[Move]) -> list[State]:
        """The states before and after each move; IllegalMove names the one that is none."""
        out = [self.start()]
        for i, move in enumerate(moves):
            try:
                out.append(self.apply(out[-1], move))
            except IllegalMove as e:
                raise IllegalMove(f"move {i}: {e}") from e
        return out

    def replay(self, moves: Sequence[Move | Signed]) -> State:
        """The state that moves lead to, signed or not; IllegalMove."""
        return self.states([m.move if isinstance(m, Signed) else m for m in moves])[-1]


def check_verdict(v: Verdict, program: Program, inputs: bytes | None = None) -> Judgement:
    """Replay a verdict. `inputs`: root of the inputs it should be about, if known. DisputeError when the
    artifact is not the dispute's."""
    rules = Rules(program, v.terms)
    if inputs is not None:
        about = v.terms.statement
        if not isinstance(about, Statement):
            raise DisputeError("the dispute is about a run: its batches are in its commitment")
        if inputs != about.inputs:
            raise DisputeError(f"the inputs are not the dispute's: expected root {about.inputs.hex()}, "
                               f"got {inputs.hex()}")  # fmt: skip
    try:
        states = rules.states(v.moves)
    except IllegalMove as e:
        return Judgement(False, str(e))
    s = states[-1]
    if s.phase is not Phase.OVER:
        late = (
            v.reason == TIMEOUT and v.winner != s.player and v.winner in ("defender", "challenger")
        )
        text = f"after {len(v.moves)} moves the {s.player} is to move"
        if late:  # no file shows how late it was
            text += "; that its time was up is the referee's word alone"
        return Judgement(False, text, s)
    if (s.winner, s.reason) != (v.winner, v.reason):
        return Judgement(False, f"the moves lead to: the {s.winner} wins, {s.reason}", s)
    if missing := _unsigned(v, [x.player for x in states[:-1]]):
        text = f"{missing}: it does not show who moved; the moves lead to: the {s.winner} wins, {s.reason}"
        return Judgement(False, text, s)
    return Judgement(True, f"the {s.winner} wins: {s.reason}", s)


def _unsigned(v: Verdict, players: list[str]) -> str:
    """What is not signed by whom it should be; empty if all is."""
    if v.challenger is None or len(v.signatures) != len(v.moves):
        return "its moves are not signed"
    try:
        history_of(Parties(v.terms, v.challenger), players,
                   [Signed(*x) for x in zip(v.moves, v.signatures, strict=True)])  # fmt: skip
    except Unsigned as e:
        return str(e)
    return ""


def check_verdict_file(
    path: str | Path, program: Program, inputs: bytes | None = None
) -> Judgement:
    """Read and replay a verdict file; DisputeError when it cannot be read or is malformed."""
    v, same = read_verdict(path)
    if not same:
        return Judgement(False, "the file has been altered: its digest is not that of its content")
    return check_verdict(v, program, inputs)


def read_verdict(path: str | Path) -> tuple[Verdict, bool]:
    """The verdict of a file, and whether its digest is right; DisputeError."""
    try:
        with open(path, "rb") as f:
            data = f.read(MAX_REQUEST + 2)
        return decode_verdict(data)
    except FileNotFoundError as e:
        raise DisputeError(f"no verdict at '{path}'") from e
    except OSError as e:
        raise DisputeError(f"cannot read verdict '{path}': {e.strerror or e}") from e
    except MessageError as e:
        raise DisputeError(f"verdict '{path}' is malformed: {e}") from e
