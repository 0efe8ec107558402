"""Canonical encodings: fixed-width big-endian unsigned integers, as the EVM reads them, and the
tags that keep hashes of different things apart."""

from __future__ import annotations

import hashlib

from ree.kernels.constants import DIGEST_BYTES

DIGEST = DIGEST_BYTES
ZERO = bytes(DIGEST)

# First byte of every hashed message. Numbers never change meaning.
LEAF = b"\x00"
NODE = b"\x01"
TENSOR = b"\x02"
TRACE = b"\x03"  # what both levels of a trace commit to
INSTANCE = b"\x04"  # ree.compiler.instance
OPS_TRACE = b"\x05"  # a trace that also commits to every value
HISTORY = b"\x06"  # a training run
RECEIPT = b"\x07"  # a generation: ree.generation.receipt


def u8(x: int) -> bytes:
    """One byte; OverflowError outside 0 .. 2**8 - 1."""
    return x.to_bytes(1, "big")


def u32(x: int) -> bytes:
    """Four bytes; OverflowError outside 0 .. 2**32 - 1."""
    return x.to_bytes(4, "big")


def u64(x: int) -> bytes:
    """Eight bytes; OverflowError outside 0 .. 2**64 - 1."""
    return x.to_bytes(8, "big")


def sha256(*parts: bytes) -> bytes:
    """SHA-256 of the parts joined."""
    return hashlib.sha256(b"".join(parts)).digest()


def digest(x: bytes, what: str) -> bytes:
    """`x` if it is 32 bytes, else ValueError naming `what`."""
    if not isinstance(x, bytes) or len(x) != DIGEST:
        got = f"{len(x)} bytes" if isinstance(x, bytes) else type(x).__name__
        raise ValueError(f"{what}: expected 32 bytes, got {got}")
    return x
