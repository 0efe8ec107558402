"""Transcripts: an append-only file of a dispute in progress, from which it resumes after any crash.

One canonical JSON line for what is fixed at the start (terms of both, time limits), then one for each
answer: a move, an answer that was none, or that a player's time was up. A torn last line is dropped.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ree.errors import DisputeError
from ree.files.atomic import atomic_file
from ree.verde.messages import (
    MAX_MESSAGE,
    OPTIONAL_SIGNATURE,
    TERMS,
    MessageError,
    Parties,
    Signed,
    Terms,
    canonical,
    encode_move,
    envelope,
    fields,
    move_of,
    move_value,
    parse,
)
from ree.verde.moves import VERSION, Move, Phase, Point, State
from ree.verde.protocol import Side

PLAYERS: tuple[str, ...] = (Side.DEFENDER, Side.CHALLENGER)
MAX_LINE = MAX_MESSAGE + 1024
MAX_FILE = 64 << 20
MAX_TIME = 10**15  # microseconds


@dataclass(frozen=True)
class Header:
    """What is fixed at the start. Times in microseconds: for all moves of a player, and for one."""

    defender: Terms
    challenger: Terms
    limit: int
    move_limit: int

    @property
    def dispute(self) -> Parties:
        return Parties(self.defender, self.challenger)


@dataclass(frozen=True)
class Answer:
    """One answer: a move, or why there is none. `time`: microseconds it took. `final`: the player has
    lost by its clock."""

    player: str
    time: int
    move: Move | None = None
    signature: bytes = b""
    text: str = ""
    final: bool = False


class Transcript:
    """A dispute so far; on disk if it has a path. One process at a time."""

    def __init__(self, header: Header, path: Path | None = None) -> None:
        self.header, self.path = header, path
        self.records: list[Answer] = []
        self._file: BinaryIO | None = None

    @property
    def moves(self) -> list[Move]:
        return [m.move for m in self.signed]

    @property
    def signed(self) -> list[Signed]:
        return [Signed(r.move, r.signature) for r in self.records if r.move is not None]

    @classmethod
    def open(cls, path: str | Path, header: Header) -> Transcript:
        """A new transcript, or the one at `path`; DisputeError if that is malformed, of another dispute,
        or in use."""
        path = Path(path)
        if not path.exists():
            with atomic_file(path) as f:
                f.write(canonical(_header_value(header)) + b"\n")
        t = cls.read(path)
        if t.header != header:
            raise DisputeError(f"'{path}' is the transcript of another dispute",
                               "move it away, or write the verdict elsewhere")  # fmt: skip
        t._lock(path)
        return t

    @classmethod
    def read(cls, path: str | Path) -> Transcript:
        """The transcript at `path`, a torn last line left out; DisputeError."""
        path = Path(path)
        try:
            with open(path, "rb") as f:
                data = f.read(MAX_FILE + 1)
        except OSError as e:
            raise DisputeError(f"cannot read transcript '{path}': {e.strerror or e}") from e
        if len(data) > MAX_FILE:
            raise DisputeError(f"transcript '{path}' is over {MAX_FILE} bytes")
        lines = data.split(b"\n")[:-1]  # what follows the last newline is torn
        try:
            if not lines:
                raise MessageError("expected a header")
            t = cls(_header_of(parse(lines[0], MAX_LINE, "header")), path)
            t.records = [
                _record_of(parse(x, MAX_LINE, f"line {i + 2}")) for i, x in enumerate(lines[1:])
            ]
        except MessageError as e:
            raise DisputeError(f"transcript '{path}' is malformed: {e}") from e
        return t

    def _lock(self, path: Path) -> None:
        f = open(path, "r+b", buffering=0)  # noqa: SIM115 (held until close)
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            f.close()
            raise DisputeError(f"transcript '{path}' is in use by another referee") from e
        self.records = Transcript.read(path).records  # what was written before the lock was ours
        size = len(canonical(_header_value(self.header))) + 1
        size += sum(len(canonical(_record_value(r))) + 1 for r in self.records)
        f.truncate(size)
        f.seek(size)
        self._file = f

    def append(self, record: Answer) -> None:
        """Add an answer; when this returns it is on disk."""
        if self._file is not None:
            line = canonical(_record_value(record)) + b"\n"
            try:
                self._file.write(line)
                os.fsync(self._file.fileno())
            except OSError as e:
                raise DisputeError(
                    f"cannot write transcript '{self.path}': {e.strerror or e}"
                ) from e
        self.records.append(record)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def used(self, player: str) -> int:
        """Microseconds that a player has used."""
        return sum(r.time for r in self.records if r.player == player)


def _header_value(h: Header) -> dict[str, Any]:
    return {"kind": "transcript", "v": VERSION, "defender": TERMS.encode(h.defender),
            "challenger": TERMS.encode(h.challenger), "limit": h.limit, "move_limit": h.move_limit}  # fmt: skip


def _time(x: Any, at: str) -> int:
    if type(x) is not int or not 0 <= x <= MAX_TIME:
        raise MessageError(f"{at}: expected microseconds")
    return x


def _header_of(value: Any) -> Header:
    envelope(value, ("transcript",), "header")
    fields(value, ("kind", "v", "defender", "challenger", "limit", "move_limit"), "header")
    return Header(TERMS.decode(value["defender"], "defender"), TERMS.decode(value["challenger"], "challenger"),
                  _time(value["limit"], "limit"), _time(value["move_limit"], "move_limit"))  # fmt: skip


def _record_value(r: Answer) -> dict[str, Any]:
    return {"player": r.player, "time": r.time, "text": r.text, "final": r.final,
            "move": None if r.move is None else move_value(r.move),
            "signature": OPTIONAL_SIGNATURE.encode(r.signature)}  # fmt: skip


def _record_of(value: Any) -> Answer:
    fields(value, ("player", "time", "text", "final", "move", "signature"), "record")
    if value["player"] not in PLAYERS:
        raise MessageError("player: expected defender or challenger")
    if not isinstance(value["text"], str) or not isinstance(value["final"], bool):
        raise MessageError("record: expected text and final")
    move = None if value["move"] is None else move_of(value["move"])
    signature = OPTIONAL_SIGNATURE.decode(value["signature"], "signature")
    return Answer(value["player"], _time(value["time"], "time"), move, signature, value["text"],
                  value["final"])  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One line of a timeline. `bytes`: of the message; `seconds`: that the player took."""

    player: str
    phase: str
    what: str
    bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.player:10} {self.phase:8} {self.bytes:6} B {self.seconds:8.3f} s  {self.what}"
        )


def timeline(t: Transcript, start: State, apply: Callable[[State, Move], State]) -> list[Line]:
    """Who did what, one line an answer."""
    s, lines = start, []
    for r in t.records:
        phase = s.phase
        if r.move is None:
            lines.append(Line(r.player, phase.name.lower(), r.text, 0, r.time / 1e6))
            continue
        after = apply(s, r.move)
        new = after.trail[len(s.trail) :]
        what = ", ".join(new) or (_pointed(s, r.move) if isinstance(r.move, Point) else phase.what)
        if after.phase is Phase.OVER:
            what += f" -> the {after.winner} wins: {after.reason}"
        lines.append(
            Line(r.player, phase.name.lower(), what, len(encode_move(r.move)), r.time / 1e6)
        )
        s = after
    return lines


def _pointed(s: State, m: Point) -> str:
    if s.phase is Phase.CHOOSE:
        return "points at the outputs" if m.index else "points at the values"
    kind = f" of the {s.node.kind}" if s.node is not None else ""
    return f"points at descendant {m.index}{kind}"
