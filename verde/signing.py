"""Signatures: who stands for terms, and who made a move. Needs the extra `dispute`.

Keys are ed25519 (RFC 8032). What is signed, each with a tag of its own:

    terms     the message of the terms, without the signature
    move      who moves, the history before it, and the move's message
    history   of a dispute: SHA-256 over the terms of both; after a move: over the history before and the move
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from ree.errors import DisputeError, PlatformError
from ree.files.atomic import read_private
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
SEED_BYTES = 32
MAX_KEY_FILE = 4096  # bytes

try:
    import nacl.exceptions
    import nacl.signing
except ImportError as e:
    raise PlatformError(f"a dispute needs '{e.name}'", "pip install 'ree-ml[dispute]'") from e


class Signer:
    """A private key. Its text form is the public one."""

    def __init__(self, seed: bytes) -> None:
        self._key = nacl.signing.SigningKey(seed)
        self.key = bytes(self._key.verify_key)

    def __repr__(self) -> str:
        return f"Signer({self.key.hex()})"

    def sign(self, data: bytes) -> bytes:
        """64 bytes, always the same for the same data."""
        return bytes(self._key.sign(data).signature)

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
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "ree" / "party.key"


def load_signer(path: str | Path) -> Signer:
    """The key in a file, 32 bytes as hex that nobody else may read; made if there is no file. DisputeError
    where it is no key."""
    path = Path(path)
    with suppress(FileExistsError):
        _make(path)
    text = read_private(path, MAX_KEY_FILE, DisputeError).decode(errors="replace").strip()
    try:
        seed = bytes.fromhex(text)
        if len(seed) != SEED_BYTES:
            raise ValueError
    except ValueError:  # what it says could show the key
        raise DisputeError(f"'{path}' is no key: expected {SEED_BYTES} bytes as hex") from None
    return Signer(seed)


def _make(path: Path) -> None:
    """A new key in a new file, whole or not at all; FileExistsError if there is one."""
    if path.exists():
        return
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
            f.write(f"{secrets.token_hex(SEED_BYTES)}\n")
            f.flush()
            os.fsync(f.fileno())
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError as e:
        raise DisputeError(
            f"cannot make a key at '{path}': {e.strerror or e}", "name another file with --key"
        ) from e
    finally:
        with suppress(OSError):
            part.unlink()


def _of_terms(terms: Terms) -> bytes:
    return TERMS_TAG + canonical(TERMS.encode(replace(terms, signature=b"")))


def _of_move(player: str, history: bytes, move: Move) -> bytes:
    return MOVE_TAG + player.encode() + b"\0" + history + encode_move(move)


@lru_cache(maxsize=1024)  # a request repeats the moves of the one before
def _is_signed(key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether a key has signed data. A key of small order, for which anyone can sign, is none."""
    try:
        nacl.signing.VerifyKey(key).verify(data, signature)
    except (nacl.exceptions.CryptoError, ValueError, TypeError):
        return False
    return True


class Unsigned(ValueError):
    """Terms or a move without the signature that they need; says which."""


def begin(dispute: Parties) -> bytes:
    """The history of a dispute before its first move; Unsigned unless both have signed their terms."""
    parts = []
    for name, terms in zip(Parties._fields, dispute, strict=True):
        if not _is_signed(terms.key, _of_terms(terms), terms.signature):
            raise Unsigned(f"the {name} has not signed its terms")
        parts.append(hashlib.sha256(canonical(TERMS.encode(terms))).digest())
    return hashlib.sha256(DISPUTE_TAG + b"".join(parts)).digest()


def after(dispute: Parties, history: bytes, player: str, given: Signed) -> bytes:
    """The history after a move by a player; Unsigned unless that player has signed it."""
    key = getattr(dispute, player).key
    if not _is_signed(key, _of_move(player, history, given.move), given.signature):
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
