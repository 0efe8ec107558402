"""Keys and signatures: ed25519 (RFC 8032), the key a file that nobody else may read. Needs `pynacl`."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from ree.errors import PlatformError, ReeError
from ree.files.atomic import read_private

SEED_BYTES, KEY_BYTES, SIGNATURE_BYTES = 32, 32, 64
MAX_KEY_FILE = 4096  # bytes

try:
    import nacl.exceptions
    import nacl.signing
except ImportError as e:
    raise PlatformError(f"signatures need '{e.name}'", "pip install 'ree-ml[dispute]'") from e


class SigningKey:
    """A private key. Its text form is the public one, `key`."""

    def __init__(self, seed: bytes) -> None:
        self._key = nacl.signing.SigningKey(seed)
        self.key = bytes(self._key.verify_key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key.hex()})"

    def sign(self, data: bytes) -> bytes:
        """64 bytes, always the same for the same data."""
        return bytes(self._key.sign(data).signature)


@lru_cache(maxsize=1024)  # a request repeats the moves of the one before
def is_signed(key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether a key has signed data. A key of small order, for which anyone can sign, is none."""
    try:
        nacl.signing.VerifyKey(key).verify(data, signature)
    except (nacl.exceptions.CryptoError, ValueError, TypeError):
        return False
    return True


def default_path(name: str) -> Path:
    """Where this user's key of a kind is, if no other file is named."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "ree" / f"{name}.key"


def load_seed(path: str | Path, error: type[ReeError] = ReeError) -> bytes:
    """The 32 bytes in a key's file, as hex; `error` where it is none, or is not private."""
    text = read_private(path, MAX_KEY_FILE, error).decode(errors="replace").strip()
    try:
        seed = bytes.fromhex(text)
        if len(seed) != SEED_BYTES:
            raise ValueError
    except ValueError:  # what it says could show the key
        raise error(f"'{path}' is no key: expected {SEED_BYTES} bytes as hex") from None
    return seed


def make_seed(path: str | Path, error: type[ReeError] = ReeError) -> None:
    """A new key in a new file, whole or not at all; FileExistsError if there is one."""
    path = Path(path)
    if path.exists():
        raise FileExistsError(str(path))
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
        raise error(
            f"cannot make a key at '{path}': {e.strerror or e}", "name another file with --key"
        ) from e
    finally:
        with suppress(OSError):
            part.unlink()
