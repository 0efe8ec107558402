"""GGUF files read without trust: every count, length and offset is checked before it is used.

The format is GGUF version 2 and 3 (ggml, docs/gguf.md), little-endian. Nothing is mapped: a file that is cut
short while it is read gives an error, not a signal.
"""

from __future__ import annotations

import itertools
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from ree.errors import ReeError
from ree.generation.gguf_blocks import PARTS
from ree.generation.narrow import NarrowMatrix
from ree.kernels.types import DType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 4096
MAX_TENSORS = 1 << 16
MAX_KEY = 256
MAX_STRING = 1 << 20
MAX_ARRAY = 1 << 22
MAX_HEADER = 256 << 20
MAX_ALIGNMENT = 1 << 16
MAX_RANK = 4

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
# ggml type: (name, elements of a block, bytes of a block)
TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies; `dims` outermost first, `offset` and `nbytes` in bytes of the file."""

    name: str
    dims: tuple[int, ...]
    kind: int
    offset: int
    nbytes: int


class GgufFile:
    """An open GGUF file: its metadata, whole, and its tensors, read one at a time.

    ReeError, one line, for a file that is not GGUF, is cut short, or claims what the file cannot hold.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as e:
            raise ReeError(f"{path}: {e.strerror or e}") from e
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            header = _Header(self._file, min(self.size, MAX_HEADER), str(path))
            self.metadata, infos = header.metadata(), header.infos()
            self.tensors = self._placed(header, infos)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def _placed(
        self, header: _Header, infos: list[tuple[str, tuple[int, ...], int, int]]
    ) -> dict[str, GgufTensor]:
        """Tensors by name, none outside the file, none over another: so what they hold is bounded."""
        align = self.metadata.get("general.alignment", 32)
        if not isinstance(align, int) or not 8 <= align <= MAX_ALIGNMENT or align & (align - 1):
            raise ReeError(f"{self.path}: an alignment of {align}, expected a power of two")
        start = -(-header.at // align) * align
        out: dict[str, GgufTensor] = {}
        for name, dims, kind, offset in infos:
            if kind not in TYPES:
                raise ReeError(
                    f"{self.path}: tensor {name} has ggml type {kind}, which is not supported",
                    f"supported: {', '.join(n for n, _, _ in TYPES.values())}",
                )
            label, block, nbytes = TYPES[kind]
            if dims[-1] % block:
                raise ReeError(
                    f"{self.path}: tensor {name} has rows of {dims[-1]}, "
                    f"expected a multiple of {block} for {label}"
                )
            total = math.prod(dims) // block * nbytes
            if offset % align or start + offset + total > self.size:
                raise ReeError(
                    f"{self.path}: tensor {name} lies at {start + offset} to {start + offset + total}, "
                    f"the file has {self.size} bytes"
                )
            if name in out:
                raise ReeError(f"{self.path}: tensor {name} stands there twice")
            out[name] = GgufTensor(name, dims, kind, start + offset, total)
        order = sorted(out.values(), key=lambda t: t.offset)
        for a, b in itertools.pairwise(order):
            if a.offset + a.nbytes > b.offset:
                raise ReeError(f"{self.path}: tensors {a.name} and {b.name} overlap")
        return out

    def narrow(self, name: str) -> NarrowMatrix | None:
        """A matrix as it is kept; None for what is no matrix, or float32, or of a type that has no whole
        numbers of eight bits with one scale. ReeError if one of its values is not finite."""
        t = self.tensors[name]
        label, _, size = TYPES[t.kind]
        if len(t.dims) != 2 or label not in (*PARTS, "F16", "BF16"):
            return None
        raw, n = self._raw(t), t.dims[0]
        if label in PARTS:
            with np.errstate(all="ignore"):
                q, *terms = PARTS[label](raw.reshape(-1, size))
            shaped = [None if x is None else x.reshape(n, -1, x.shape[-1]) for x in (q, *terms)]
            m = NarrowMatrix(np.ascontiguousarray(shaped[0]), DType.I8, *shaped[1:])
        elif label == "F16":
            m = NarrowMatrix(raw.view("<f2").reshape(t.dims), DType.F16)
        else:
            m = NarrowMatrix(raw.view("<u2").reshape(t.dims), DType.BF16)
        return m

    def _raw(self, t: GgufTensor) -> NDArray[np.uint8]:
        self._file.seek(t.offset)
        raw = np.frombuffer(self._file.read(t.nbytes), np.uint8)
        if raw.size != t.nbytes:
            raise ReeError(f"{self.path}: tensor {t.name} is cut short")
        return raw

    def array(self, name: str) -> NDArray[np.float32]:
        """A tensor in float32, dequantised as `gguf` defines it; ReeError if one value is not finite."""
        from gguf import GGMLQuantizationType, dequantize

        t = self.tensors[name]
        raw = self._raw(t)
        label, block, size = TYPES[t.kind]
        if label == "F32":
            out = raw.view("<f4").astype(np.float32)
        elif label == "F16":
            out = raw.view("<f2").astype(np.float32)
        else:
            rows = raw.reshape(-1, t.dims[-1] // block * size)
            with np.errstate(all="ignore"):  # a NaN or an infinity is refused below
                out = dequantize(rows, GGMLQuantizationType(t.kind))
        if not np.isfinite(out).all():
            raise ReeError(f"{self.path}: tensor {name} has values that are not finite")
        return np.ascontiguousarray(out.reshape(t.dims), np.float32)


class _Header:
    """A cursor over the first `size` bytes of a file; each read is checked against what is left."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self.file, self.size, self.name, self.at = file, size, name, 0
        magic, version = self._take(4), self._number("I")
        if magic != MAGIC:
            raise ReeError(f"{name}: not a GGUF file")
        if version not in VERSIONS:
            raise ReeError(f"{name}: GGUF version {version}, expected 2 or 3, little-endian")
        self.n_tensors, self.n_keys = self._number("Q"), self._number("Q")
        for n, most, what in (
            (self.n_tensors, MAX_TENSORS, "tensors"),
            (self.n_keys, MAX_KEYS, "keys"),
        ):
            if n > most:
                raise ReeError(f"{name}: the header claims {n} {what}, expected at most {most}")

    def metadata(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for _ in range(self.n_keys):
            key = self._string(MAX_KEY)
            if key in out:
                raise ReeError(f"{self.name}: key {key} stands there twice")
            out[key] = self._value(self._number("I"), key)
        return out

    def infos(self) -> list[tuple[str, tuple[int, ...], int, int]]:
        out = []
        for _ in range(self.n_tensors):
            name = self._string(MAX_KEY)
            rank = self._number("I")
            if not 1 <= rank <= MAX_RANK:
                raise ReeError(
                    f"{self.name}: tensor {name} has {rank} dimensions, expected 1 to {MAX_RANK}"
                )
            dims = struct.unpack(f"<{rank}Q", self._take(8 * rank))[::-1]
            if not all(0 < d < 1 << 40 for d in dims):
                raise ReeError(f"{self.name}: tensor {name} has dimensions {dims}")
            kind, offset = struct.unpack("<IQ", self._take(12))
            out.append((name, dims, kind, offset))
        return out

    def _take(self, n: int) -> bytes:
        left = self.size - self.at
        raw = self.file.read(n) if n <= left else b""
        if len(raw) != n:
            raise ReeError(
                f"{self.name}: the header is cut short: {n} bytes expected at {self.at}, got {left}"
            )
        self.at += n
        return raw

    def _number(self, code: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def _string(self, most: int) -> str:
        n = self._number("Q")
        if n > most:
            raise ReeError(
                f"{self.name}: a string of {n} bytes at {self.at}, expected at most {most}"
            )
        try:
            return self._take(n).decode()
        except UnicodeDecodeError as e:
            raise ReeError(f"{self.name}: a string at {self.at - n} is not UTF-8") from e

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._string(MAX_STRING)
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind != _ARRAY:
            raise ReeError(f"{self.name}: key {key} has type {kind}, which GGUF does not know")
        of, n = self._number("I"), self._number("Q")
        if n > MAX_ARRAY:
            raise ReeError(
                f"{self.name}: key {key} claims {n} elements, expected at most {MAX_ARRAY}"
            )
        if of == _STRING:
            return [self._string(MAX_STRING) for _ in range(n)]
        if of not in _SCALARS:
            raise ReeError(f"{self.name}: key {key} is a list of type {of}, which is not supported")
        code = _SCALARS[of]
        return list(struct.unpack(f"<{n}{code}", self._take(n * struct.calcsize("<" + code))))
