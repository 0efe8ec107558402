"""GGUF files for tests, written by the letter of the format."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any


def string(text: str | bytes) -> bytes:
    """A string of the format."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def value(x: Any) -> bytes:
    """A value of the metadata, its type first."""
    if isinstance(x, str):
        return struct.pack("<I", 8) + string(x)
    if isinstance(x, bool):
        return struct.pack("<I?", 7, x)
    if isinstance(x, int):
        return struct.pack("<II", 4, x)
    if isinstance(x, float):
        return struct.pack("<If", 6, x)
    if x and isinstance(x[0], str):
        return struct.pack("<IIQ", 9, 8, len(x)) + b"".join(map(string, x))
    if x and isinstance(x[0], float):
        return struct.pack("<IIQ", 9, 6, len(x)) + struct.pack(f"<{len(x)}f", *x)
    return struct.pack("<IIQ", 9, 4, len(x)) + b"".join(struct.pack("<I", i) for i in x)


def gguf(
    metadata: Mapping[str, Any],
    tensors: Mapping[str, tuple[tuple[int, ...], int, bytes]],
    version: int = 3,
) -> bytes:
    """A file's bytes; tensors are name -> (dims outermost first, type, bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(string(k) + value(x) for k, x in metadata.items())
    body = b""
    for name, (dims, kind, raw) in tensors.items():
        body += b"\0" * (-len(body) % 32)
        head += string(name) + struct.pack(
            f"<I{len(dims)}QIQ", len(dims), *reversed(dims), kind, len(body)
        )
        body += raw
    return head + b"\0" * (-len(head) % 32) + body
