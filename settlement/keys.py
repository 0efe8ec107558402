"""Signing keys, from a file or the environment; never printed."""

from __future__ import annotations

import hashlib
import hmac
import os
from functools import lru_cache
from typing import Any

from ree.errors import ChainError
from ree.files.atomic import read_private
from ree.traces.strict_json import strict_json

MAX_KEY_FILE = 64 << 10  # bytes


class Key:
    """A key that signs transactions and makes salts. Its text form is its address."""

    def __init__(self, secret: bytes) -> None:
        from eth_account import Account

        self._account = Account.from_key(secret)
        self._secret = secret
        self.address = str(self._account.address)

    def __repr__(self) -> str:
        return f"Key({self.address})"

    def sign(self, transaction: dict[str, Any]) -> bytes:
        """The signed transaction's bytes."""
        return bytes(self._account.sign_transaction(transaction).raw_transaction)

    def sign_typed(self, message: Any) -> bytes:
        """The signature, 65 bytes, of typed data (EIP-712)."""
        return bytes(self._account.sign_message(message).signature)

    def salt(self, *parts: bytes) -> bytes:
        """16 bytes that only this key can make, always the same for the same parts."""
        message = b"".join(len(p).to_bytes(4, "big") + p for p in (b"ree.salt", *parts))
        return hmac.new(self._secret, message, hashlib.sha256).digest()[:16]


@lru_cache(maxsize=256)
def role_key(name: str) -> Key:
    """The key of a role in demonstrations and tests, made from its name: anyone can make it."""
    return Key(hashlib.sha256(b"ree.role." + name.encode()).digest())


def load_key(path: str | None) -> Key:
    """The key in a file: 32 bytes as hex, or an encrypted JSON keystore whose password is REE_KEY_PASSWORD.
    Without a path, the hex in REE_KEY. ChainError where that is no key; it never shows what was read."""
    if path is None:
        text = os.environ.get("REE_KEY", "")
        if not text:
            raise ChainError("no key", "name a file with --key, or set REE_KEY")
        return _from_hex(text, "REE_KEY")
    text = read_private(path, MAX_KEY_FILE, ChainError).decode(errors="replace").strip()
    if text.startswith("{"):
        return _from_keystore(text, path)
    return _from_hex(text, f"'{path}'")


def _from_hex(text: str, where: str) -> Key:
    try:
        secret = bytes.fromhex(text.strip().removeprefix("0x"))
        if len(secret) != 32:
            raise ValueError
        return Key(secret)
    except Exception:  # whatever it says could show the key
        raise ChainError(f"{where} is no key: expected 32 bytes as hex") from None


def _from_keystore(text: str, path: str) -> Key:
    from eth_account import Account

    password = os.environ.get("REE_KEY_PASSWORD")
    if password is None:
        raise ChainError(f"'{path}' is encrypted", "set REE_KEY_PASSWORD")
    try:
        return Key(bytes(Account.decrypt(strict_json(text.encode()), password)))
    except Exception:
        raise ChainError(f"'{path}': wrong password, or no keystore") from None
