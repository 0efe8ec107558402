"""Signatures: who stands for terms, and who made a move. Needs the extra `dispute`.

Keys are ed25519 (RFC 8032). What is signed, each with a tag of its own:

    terms     the message of the terms, without the signature
    move      who moves, the history before it, and the move's message
    history   of a dispute: SHA-256 over the terms of both; after a move: over the history before and the move
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from ree import signing
from ree.errors import DisputeError
from ree.signing import SEED_BYTES, SigningKey, is_signed
from ree.verde.messages import (
    TERMS,
    Parties,
    Signed,
    Terms,
    canonical,
    encode_move,
)
from ree.verde.moves import Move

TERMS_TAG, MOVE_TAG, DISPUTE_TAG, HISTORY_TAG = (
    b"ree.verde." + x + b"\0" for x in (b"terms", b"move", b"dispute", b"history")
)


class Signer(SigningKey):
    """A party's key."""

    def terms(self, terms: Terms) -> Terms:
        """The terms with this key, signed."""
        mine = replace(terms, key=self.key, signature=b"")
        return replace(mine, signature=self.sign(_of_terms(mine)))

    def move(self, player: str, history: bytes, move: Move) -> Signed:
        """A move by a player after a history."""
        return Signed(move, self.sign(_of_move(player, history, move)))


@lru_cache(maxsize=1)
def process_signer() -> Signer:
    """A key that lasts as long as this process: for parties that nobody else knows."""
    return Signer(secrets.token_bytes(SEED_BYTES))


def default_path() -> Path:
    """Where this user's key is, if no other file is named."""
    return signing.default_path("party")


def load_signer(path: str | Path) -> Signer:
    """The key in a file, made if there is no file; DisputeError where it is no key."""
    with suppress(FileExistsError):
        signing.make_seed(path, DisputeError)
    return Signer(signing.load_seed(path, DisputeError))


def _of_terms(terms: Terms) -> bytes:
    return TERMS_TAG + canonical(TERMS.encode(replace(terms, signature=b"")))


def _of_move(player: str, history: bytes, move: Move) -> bytes:
    return MOVE_TAG + player.encode() + b"\0" + history + encode_move(move)


class Unsigned(ValueError):
    """Terms or a move without the signature that they need; says which."""


def begin(dispute: Parties) -> bytes:
    """The history of a dispute before its first move; Unsigned unless both have signed their terms."""
    parts = []
    for name, terms in zip(Parties._fields, dispute, strict=True):
        if not is_signed(terms.key, _of_terms(terms), terms.signature):
            raise Unsigned(f"the {name} has not signed its terms")
        parts.append(hashlib.sha256(canonical(TERMS.encode(terms))).digest())
    return hashlib.sha256(DISPUTE_TAG + b"".join(parts)).digest()


def after(dispute: Parties, history: bytes, player: str, given: Signed) -> bytes:
    """The history after a move by a player; Unsigned unless that player has signed it."""
    key = getattr(dispute, player).key
    if not is_signed(key, _of_move(player, history, given.move), given.signature):
        raise Unsigned(f"not signed by the {player}")
    return hashlib.sha256(HISTORY_TAG + history + encode_move(given.move)).digest()


def history_of(dispute: Parties, players: Sequence[str], moves: Sequence[Signed]) -> bytes:
    """The history after moves, each by its player; Unsigned names the first that is not signed."""
    history = begin(dispute)
    for i, (player, given) in enumerate(zip(players, moves, strict=True)):
        try:
            history = after(dispute, history, player, given)
        except Unsigned as e:
            raise Unsigned(f"move {i} is {e}") from e
    return history
