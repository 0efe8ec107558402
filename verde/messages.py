"""Messages: the one byte form of moves, statements and requests.

A message is canonical JSON: keys sorted, no spaces, hashes and leaves as lower-case hex, `kind` and `v`
beside the fields. What does not encode back to the same bytes is refused, so that every message has
exactly one form. A state has no form of its own: it follows from the statement and the moves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from ree.traces.strict_json import strict_json
from ree.traces.tensor import LEAF_BYTES
from ree.verde.moves import (
    VERSION,
    Derive,
    EntryOpening,
    Leaf,
    Move,
    Open,
    Opening,
    OpenStep,
    Point,
    Prove,
    Reveal,
    Rows,
    RunStatement,
    Statement,
    Tensor,
)

MAX_MESSAGE = 256 << 10  # bytes of any move: a prove with 16 openings of the deepest trees
MAX_ANSWER = MAX_MESSAGE + 1024  # with its signature
MAX_REQUEST = 8 << 20  # bytes of a statement with the moves so far
MAX_MOVES = 4096
MAX_PROOF = 64  # digests: trees have at most 2^40 leaves
MAX_OPENINGS = 16
MAX_INDEX = 1 << 32
MAX_STEPS = 1 << 40


class MessageError(ValueError):
    """Bytes that are no message; says what was expected where."""


class Codec(NamedTuple):
    """A field: to JSON, and back from JSON at a named place."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any, str], Any]


def _bytes_of(size: int) -> Codec:
    def encode(x: bytes) -> str:
        if len(x) != size:
            raise MessageError(f"expected {size} bytes, got {len(x)}")
        return x.hex()

    def decode(x: Any, at: str) -> bytes:
        if not isinstance(x, str) or len(x) != 2 * size or not set(x) <= set("0123456789abcdef"):
            raise MessageError(f"{at}: expected {size} bytes as hex")
        return bytes.fromhex(x)

    return Codec(encode, decode)


def _number(bound: int) -> Codec:
    def check(x: Any, at: str) -> int:
        if type(x) is not int or not 0 <= x < bound:
            raise MessageError(f"{at}: expected a number below {bound}")
        return x

    return Codec(lambda x: check(x, "number"), check)


def _or_nothing(codec: Codec) -> Codec:
    """Empty bytes besides; the empty text."""
    return Codec(
        lambda x: codec.encode(x) if x else "",
        lambda x, at: codec.decode(x, at) if x != "" else b"",
    )


def _or_null(codec: Codec) -> Codec:
    """None besides; null."""
    return Codec(
        lambda x: None if x is None else codec.encode(x),
        lambda x, at: None if x is None else codec.decode(x, at),
    )


def _pair(first: Codec, second: Codec) -> Codec:
    def decode(x: Any, at: str) -> tuple[Any, Any]:
        if not isinstance(x, list) or len(x) != 2:
            raise MessageError(f"{at}: expected two")
        return first.decode(x[0], at), second.decode(x[1], at)

    return Codec(lambda x: [first.encode(x[0]), second.encode(x[1])], decode)


def _list_of(item: Codec, most: int) -> Codec:
    def encode(x: Sequence[Any]) -> list[Any]:
        return [item.encode(y) for y in x]

    def decode(x: Any, at: str) -> tuple[Any, ...]:
        if not isinstance(x, list) or len(x) > most:
            raise MessageError(f"{at}: expected a list of at most {most}")
        return tuple(item.decode(y, f"{at}[{i}]") for i, y in enumerate(x))

    return Codec(encode, decode)


def fields(x: Any, names: Sequence[str], at: str) -> dict[str, Any]:
    """An object with exactly these fields; MessageError otherwise."""
    if not isinstance(x, dict) or set(x) != set(names):
        raise MessageError(f"{at}: expected an object of {', '.join(sorted(names))}")
    return x


def _record(cls: type, **codecs: Codec) -> Codec:
    def encode(x: Any) -> dict[str, Any]:
        return {name: c.encode(getattr(x, name)) for name, c in codecs.items()}

    def decode(x: Any, at: str) -> Any:
        fields(x, tuple(codecs), at)
        return cls(**{name: c.decode(x[name], f"{at}.{name}") for name, c in codecs.items()})

    return Codec(encode, decode)


DIGEST = _bytes_of(32)
OPTIONAL_SIGNATURE = _or_nothing(_bytes_of(64))
LEAF = _bytes_of(LEAF_BYTES)
INDEX = _number(MAX_INDEX)
PROOF = _list_of(DIGEST, MAX_PROOF)
STEP = _pair(DIGEST, _or_nothing(DIGEST))
OPENING = _record(Opening, tensor_proof=PROOF, body=DIGEST, leaf=LEAF, leaf_proof=PROOF)
ENTRY_OPENING = _record(EntryOpening, leaf=LEAF, proof=PROOF)
OF_CALL = _record(Statement, instance=DIGEST, inputs=DIGEST, weights=DIGEST, states=DIGEST, outputs=DIGEST,
                  loss=_or_nothing(DIGEST))  # fmt: skip
OF_RUN = _record(RunStatement, instance=DIGEST, weights=DIGEST, initial=DIGEST, steps=_number(MAX_STEPS),
                 batches=DIGEST, history=DIGEST)  # fmt: skip
STATEMENT = Codec(
    lambda x: (OF_CALL if isinstance(x, Statement) else OF_RUN).encode(x),
    lambda x, at: (OF_RUN if isinstance(x, dict) and "history" in x else OF_CALL).decode(x, at),
)


def _encode_any(x: Opening | EntryOpening) -> Any:
    return (OPENING if isinstance(x, Opening) else ENTRY_OPENING).encode(x)


def _decode_any(x: Any, at: str) -> Any:
    return (OPENING if isinstance(x, dict) and "body" in x else ENTRY_OPENING).decode(x, at)


ANY_OPENING = Codec(_encode_any, _decode_any)


@dataclass(frozen=True)
class MessageForm:
    """The form of one kind of move; `limit`: bytes of its message."""

    type: type
    codec: Codec
    limit: int


def _form(cls: type, limit: int, **codecs: Codec) -> MessageForm:
    return MessageForm(cls, _record(cls, **codecs), limit)


MOVES: dict[str, MessageForm] = {
    "step": _form(
        OpenStep,
        16 << 10,
        after=STEP,
        batch=DIGEST,
        batch_proof=PROOF,
        before=STEP,
        before_proof=PROOF,
    ),
    "open": _form(Open, 256, values=DIGEST),
    "point": _form(Point, 128, index=INDEX),
    "reveal": _form(Reveal, 2 << 10, nodes=_list_of(DIGEST, 16)),
    "tensor": _form(Tensor, 512, hash=DIGEST, body=DIGEST),
    "leaf": _form(Leaf, 2 << 10, data=LEAF),
    "derive": _form(
        Derive, 8 << 10, entries=DIGEST, last=ENTRY_OPENING, first=_or_null(ENTRY_OPENING)
    ),
    "rows": _form(Rows, 12 << 10, rows=DIGEST, last=OPENING),
    "prove": _form(Prove, MAX_MESSAGE, openings=_list_of(ANY_OPENING, MAX_OPENINGS)),
}
KINDS = {form.type: kind for kind, form in MOVES.items()}


def canonical(x: Any) -> bytes:
    """The bytes of a JSON value."""
    return json.dumps(x, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse(data: bytes, limit: int, what: str = "message") -> Any:
    """The JSON value of canonical bytes; MessageError for anything else, or over `limit` bytes."""
    if len(data) > limit:
        raise MessageError(f"{what}: expected at most {limit} bytes")
    try:
        value = strict_json(data)
        same = canonical(value) == data
    except ValueError as e:
        raise MessageError(f"{what}: expected JSON") from e
    if not same:
        raise MessageError(f"{what}: expected canonical JSON")
    return value


def envelope(value: Any, kinds: Sequence[str], what: str = "message") -> str:
    """The kind of a message; MessageError for another version or kind."""
    if not isinstance(value, dict) or type(value.get("v")) is not int or value["v"] != VERSION:
        raise MessageError(f"{what}: expected version {VERSION}")
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise MessageError(f"{what}: expected {' or '.join(kinds)}")
    return kind


def move_value(move: Move) -> dict[str, Any]:
    """A move as a JSON value."""
    kind = KINDS[type(move)]
    return {"kind": kind, "v": VERSION, **MOVES[kind].codec.encode(move)}


def move_of(value: Any, what: str = "move") -> Move:
    """The move of a JSON value; MessageError if it is none."""
    kind = envelope(value, tuple(MOVES), what)
    body = {k: v for k, v in value.items() if k not in ("kind", "v")}
    move: Move = MOVES[kind].codec.decode(body, what)
    return move


def encode_move(move: Move) -> bytes:
    """The message of a move; MessageError for a move that has none."""
    data = canonical(move_value(move))
    limit = MOVES[KINDS[type(move)]].limit
    if len(data) > limit:
        raise MessageError(f"{KINDS[type(move)]}: expected at most {limit} bytes, got {len(data)}")
    move_of(json.loads(data))  # bounds of lists
    return data


def decode_move(data: bytes) -> Move:
    """The move of a message; MessageError if it is none."""
    move = move_of(parse(data, MAX_MESSAGE, "move"))
    kind = KINDS[type(move)]
    if len(data) > MOVES[kind].limit:
        raise MessageError(f"{kind}: expected at most {MOVES[kind].limit} bytes")
    return move


@dataclass(frozen=True)
class Terms:
    """What a party stands for, and the program it ran. `symbols`: sizes that its inputs bind, by name.
    `commitment`: root of its trace of every value; of a run, the run's commitment, and its seed mod 2^64.
    `key`: that its moves are signed with; `signature`: by that key, of the rest. Both may be empty."""

    statement: Statement | RunStatement
    program: bytes
    symbols: tuple[tuple[str, int], ...]
    commitment: bytes
    seed: int = 0
    key: bytes = b""
    signature: bytes = b""


class Parties(NamedTuple):
    """Who stands for what."""

    defender: Terms
    challenger: Terms


class Signed(NamedTuple):
    """A move, and its player's signature; empty if there is none."""

    move: Move
    signature: bytes = b""


def _decode_symbols(x: Any, at: str) -> tuple[tuple[str, int], ...]:
    if not isinstance(x, dict) or len(x) > 1024:
        raise MessageError(f"{at}: expected an object of sizes")
    return tuple((name, INDEX.decode(x[name], f"{at}.{name}")) for name in sorted(x))


SYMBOLS = Codec(lambda x: {name: INDEX.encode(size) for name, size in x}, _decode_symbols)
TERMS = _record(Terms, statement=STATEMENT, program=DIGEST, symbols=SYMBOLS, commitment=DIGEST,
                seed=_number(1 << 64), key=_or_nothing(DIGEST), signature=OPTIONAL_SIGNATURE)  # fmt: skip
OPTIONAL_TERMS = _or_null(TERMS)
SIGNATURES = _list_of(OPTIONAL_SIGNATURE, MAX_MOVES)


def encode_terms(terms: Terms) -> bytes:
    """What a party answers when asked what it stands for."""
    return canonical({"kind": "terms", "v": VERSION, **TERMS.encode(terms)})


def decode_terms(data: bytes) -> Terms:
    """The inverse of `encode_terms`; MessageError."""
    value = parse(data, MAX_MESSAGE, "terms")
    envelope(value, ("terms",), "terms")
    terms: Terms = TERMS.decode({k: v for k, v in value.items() if k not in ("kind", "v")}, "terms")
    return terms


def encode_signed(signed: Signed) -> bytes:
    """What a party answers when asked for a move."""
    return canonical({"kind": "signed", "v": VERSION, **_SIGNED.encode(signed)})


def decode_signed(data: bytes) -> Signed:
    """The inverse of `encode_signed`; MessageError."""
    value = parse(data, MAX_ANSWER, "answer")
    envelope(value, ("signed",), "answer")
    signed: Signed = _SIGNED.decode(
        {k: v for k, v in value.items() if k not in ("kind", "v")}, "answer"
    )
    return signed


def encode_request(dispute: Parties, moves: Sequence[Signed]) -> bytes:
    """What a party is asked: the dispute so far."""
    both = {name: TERMS.encode(t) for name, t in dispute._asdict().items()}
    return canonical({"kind": "request", "v": VERSION, **both, "moves": [move_value(m.move) for m in moves],
                      "signatures": SIGNATURES.encode([m.signature for m in moves])})  # fmt: skip


def decode_request(data: bytes) -> tuple[Parties, list[Signed]]:
    """The inverse of `encode_request`; MessageError."""
    value = parse(data, MAX_REQUEST, "request")
    envelope(value, ("request",), "request")
    fields(value, ("kind", "v", "defender", "challenger", "moves", "signatures"), "request")
    dispute = Parties(TERMS.decode(value["defender"], "defender"),
                      TERMS.decode(value["challenger"], "challenger"))  # fmt: skip
    moves, signatures = (
        moves_of(value["moves"]),
        SIGNATURES.decode(value["signatures"], "signatures"),
    )
    if len(moves) != len(signatures):
        raise MessageError(f"signatures: expected {len(moves)}")
    return dispute, [Signed(*x) for x in zip(moves, signatures, strict=True)]


def moves_of(value: Any) -> list[Move]:
    """The moves of a JSON list, each within its limit; MessageError."""
    if not isinstance(value, list) or len(value) > MAX_MOVES:
        raise MessageError(f"moves: expected a list of at most {MAX_MOVES}")
    return [_known_move(canonical(m)) for m in value]


_known_move = lru_cache(maxsize=64)(decode_move)  # a request repeats the moves of the one before
_MOVE = Codec(move_value, lambda x, at: decode_move(canonical(x)))
_SIGNED = _record(Signed, move=_MOVE, signature=OPTIONAL_SIGNATURE)
