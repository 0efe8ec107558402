"""What text tokens stand for, one token at a time: the rules of the decoders that are admitted.

The library decodes whole lists; here the same text comes as tokens come, each part once it cannot change.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ree.errors import ReeError
from ree.generation.tokenizer_json import parts_of

_BYTE = re.compile(r"<0x(\+[0-9a-fA-F]|[0-9a-fA-F]{2})>")
_SHAPES = "ByteLevel; Metaspace; WordPiece; or Replace, ByteFallback, Fuse, Strip on the left, in this order"


class Assembler(Protocol):
    """A text in the making: what is final of it after one more piece, and the rest at the end."""

    def push(self, piece: str) -> str: ...
    def finish(self) -> str: ...


class TokenText:
    """The rules of one tokenizer; ReeError if its decoder is of another shape than those known here."""

    def __init__(
        self, decoder: Mapping[str, Any], pieces: Mapping[int, str], special: frozenset[int]
    ) -> None:
        self.pieces, self.special = pieces, special
        self._parts = parts_of(decoder)
        kinds = "".join(_LETTERS.get(p["type"], "?") for p in self._parts)
        if not re.fullmatch("L|M|W|R*B?(FS?)?", kinds) or any(
            (p["type"] == "Strip" and p["stop"])
            or (p["type"] == "Replace" and "String" not in p["pattern"])
            for p in self._parts
        ):
            raise ReeError(
                "tokenizer.json: a decoder of this shape is not supported", f"supported: {_SHAPES}"
            )

    def begin(self) -> Assembler:
        """A new text."""
        first = self._parts[0] if self._parts else {"type": "Fuse"}
        if first["type"] == "ByteLevel":
            return _ByteLevel()
        if first["type"] == "WordPiece":
            return _WordPiece(first)
        return _Metaspace(first) if first["type"] == "Metaspace" else _Fallback(self._parts)

    def raw(self, token_id: int) -> bytes:
        """What one token stands for within a text, as bytes, which need not be UTF-8; nothing where a model has
        more tokens than its tokenizer."""
        piece = self.pieces.get(token_id, "")
        if token_id in self.special:
            return piece.encode()
        first = self._parts[0] if self._parts else {"type": "Fuse"}
        if first["type"] == "ByteLevel":
            return _byte_level(piece)
        if first["type"] == "Metaspace":
            return piece.replace(_sign(first), " ").encode()
        return _Fallback(self._parts).raw(piece)


_LETTERS = {
    "ByteLevel": "L",
    "Metaspace": "M",
    "WordPiece": "W",
    "Replace": "R",
    "ByteFallback": "B",
    "Fuse": "F",
    "Strip": "S",
}


def _byte_level_alphabet() -> dict[str, int]:
    """The characters by which byte-level vocabularies write bytes (GPT-2): printable Latin-1 ones are
    themselves, the others count from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


_ALPHABET = _byte_level_alphabet()


def _byte_level(piece: str) -> bytes:
    try:
        return bytes(map(_ALPHABET.__getitem__, piece))
    except KeyError:  # an added token, written as it is
        return piece.encode()


def _sign(part: Mapping[str, Any]) -> str:
    """What stands for a space."""
    return str(part.get("replacement", part.get("str_rep", "▁")))


class _ByteLevel:
    """Pieces are bytes; what is not UTF-8 becomes U+FFFD, one for each longest cut-short sequence."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, piece: str) -> str:
        return self._decoder.decode(_byte_level(piece))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class _Metaspace:
    """A sign stands for a space, or in the first piece for nothing if the tokenizer put it there."""

    def __init__(self, part: Mapping[str, Any]) -> None:
        self._sign = _sign(part)
        scheme = part.get("prepend_scheme", "always")
        self._space = " " if scheme == "never" or part.get("add_prefix_space") is False else ""

    def push(self, piece: str) -> str:
        text, self._space = piece.replace(self._sign, self._space), " "
        return text

    def finish(self) -> str:
        return ""


# as the library's cleanup: in each piece, in this order
_CLEANUP = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
            (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))  # fmt: skip


class _WordPiece:
    """A piece goes on with a word if it has the prefix, else a space stands before it."""

    def __init__(self, part: Mapping[str, Any]) -> None:
        self._prefix, self._cleanup = part["prefix"], part["cleanup"]
        self._first = True

    def push(self, piece: str) -> str:
        if not self._first:
            goes_on = piece.startswith(self._prefix)
            piece = piece.removeprefix(self._prefix) if goes_on else " " + piece
        self._first = False
        for old, new in _CLEANUP if self._cleanup else ():
            piece = piece.replace(old, new)
        return piece

    def finish(self) -> str:
        return ""


class _Fallback:
    """Replacements in each piece; runs of pieces like <0x0A> as bytes, each byte U+FFFD if the run is
    not UTF-8; of the whole, some characters at its start stripped."""

    def __init__(self, parts: Sequence[Mapping[str, Any]]) -> None:
        self._replaced = [
            (p["pattern"]["String"], p["content"]) for p in parts if p["type"] == "Replace"
        ]
        self._bytes = any(p["type"] == "ByteFallback" for p in parts)
        strip = [p for p in parts if p["type"] == "Strip"]
        self._strip: str = strip[0]["content"] if strip else ""
        self._left: int = strip[0]["start"] if strip else 0
        self._run = bytearray()

    def push(self, piece: str) -> str:
        piece = self._written(piece)
        if self._bytes and (m := _BYTE.fullmatch(piece)):
            self._run.append(int(m[1], 16))
            return ""
        return self._stripped(self._flushed() + piece)

    def raw(self, piece: str) -> bytes:
        piece = self._written(piece)
        m = _BYTE.fullmatch(piece) if self._bytes else None
        return bytes([int(m[1], 16)]) if m else piece.encode()

    def _written(self, piece: str) -> str:
        for old, new in self._replaced:
            piece = piece.replace(old, new)
        return piece

    def finish(self) -> str:
        return self._stripped(self._flushed())

    def _flushed(self) -> str:
        raw, self._run = bytes(self._run), bytearray()
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(raw)

    def _stripped(self, text: str) -> str:
        while self._left and text:
            if text[0] != self._strip:
                self._left = 0
                break
            text, self._left = text[1:], self._left - 1
        return text
