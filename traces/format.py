"""Bytes of a trace file; docs/trace-format.md has the layout and an example.

    magic (8) | format version u32 | lengths u64 of trace, sidecar, index, data
    trace | sidecar | index | SHA-256 of header, sidecar, index | zeros to a multiple of 64 | data

The checksum shows damage to what no hash covers; it authenticates nothing. The trace is left out of
it, so that an altered digest is a different run, which verification names; data is bound by the
tensor hashes, so that opening a file reads none of it: a tensor is checked when it is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ree.kernels.types import MAX_ELEMENTS, MAX_RANK, DType
from ree.traces.encoding import DIGEST, sha256, u8, u32, u64
from ree.traces.sidecar import MAX_BYTES as MAX_SIDECAR
from ree.traces.sidecar import SidecarError, decode_sidecar, encode_sidecar
from ree.traces.tensor import Array, BodyRoot, body_root, dtype_of, raw_bytes, tensor_hash
from ree.traces.trace import LEVELS, Trace, is_moved

MAGIC = b"\x89REE\r\n\x1a\n"  # as PNG's: shows 7-bit and line-end damage
FORMAT = 1
ALIGN = 64
HEADER_BYTES = 44
TRACE_BYTES = 4 + 1 + 4 * DIGEST + 3 * 4  # without its tensor hashes
MAX_TRACE = 512 << 20
MAX_INDEX = 64 << 20
KINDS = ("input", "output", "value")
_DTYPES = {d.code: d for d in DType}


class TraceFormatError(ValueError):
    """A trace file that is malformed; the message says what was expected."""


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies in the data section."""

    kind: str
    index: int
    dtype: DType
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.size


class StoredTensors(Mapping[tuple[str, int], Array]):
    """Tensors of a file by ("input" | "output" | "value", index), read-only views of its bytes.

    Each is hashed when it is first looked at: TraceFormatError unless it is the one that the trace
    commits to. `unchecked` gives what the file says, whatever it is.
    """

    def __init__(
        self,
        entries: Iterable[TensorEntry],
        data: memoryview,
        trace: Trace,
        body_root: BodyRoot = body_root,
    ) -> None:
        self.entries = {(e.kind, e.index): e for e in entries}
        self.trace = trace
        self._data, self._body_root = data, body_root
        self._sound: set[tuple[str, int]] = set()

    def __getitem__(self, key: tuple[str, int]) -> Array:
        x = self.unchecked(key)
        if key not in self._sound:
            self.check(key)
            self._sound.add(key)
        return x

    def check(self, key: tuple[str, int], body_root: BodyRoot | None = None) -> None:
        """TraceFormatError unless a tensor has the hash that the trace commits to."""
        where = f"{key[0]} {key[1]}"
        try:
            got = tensor_hash(self.unchecked(key), body_root=body_root or self._body_root)
        except ValueError as error:
            raise TraceFormatError(f"{where}: {error}") from error
        want = _hash_of(self.entries[key], self.trace)
        if got != want:
            raise TraceFormatError(
                f"{where}: expected bytes with hash {want.hex()}, got {got.hex()}"
            )

    def unchecked(self, key: tuple[str, int]) -> Array:
        """What the file holds; nothing says that it is what the trace commits to."""
        e = self.entries[key]
        if e.nbytes:
            raw = self._data[e.offset : e.offset + e.nbytes]
            return np.frombuffer(raw, e.dtype.numpy).reshape(e.shape)
        empty = np.zeros(e.shape, e.dtype.numpy)  # NumPy takes no empty buffer
        empty.flags.writeable = False
        return empty

    def __contains__(self, key: object) -> bool:
        return key in self.entries

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(frozen=True)
class TraceFile:
    """A parsed file."""

    trace: Trace
    tensors: StoredTensors


@dataclass(frozen=True)
class SectionLengths:
    """Section lengths, from the header."""

    trace: int
    sidecar: int
    index: int
    data: int

    @property
    def head_bytes(self) -> int:
        """Everything before the padding and the data."""
        return HEADER_BYTES + self.trace + self.sidecar + self.index + DIGEST

    @property
    def data_start(self) -> int:
        return _aligned(self.head_bytes) if self.data else self.head_bytes

    @property
    def file_bytes(self) -> int:
        return self.data_start + self.data


# writing


def encode_file(
    trace: Trace, tensors: Mapping[tuple[str, int], Array] | None = None
) -> Iterator[bytes | memoryview]:
    """The file in pieces. tensors: arrays to carry, by (kind, index); uint16 holds bfloat16.

    ValueError for a tensor the trace has no hash for, or a sidecar that does not fit. Hashes are
    not computed here.
    """
    arrays: list[Array] = []
    entries: list[TensorEntry] = []
    end = 0
    for kind, index in sorted(tensors or {}, key=lambda k: (KINDS.index(k[0]), k[1])):
        array = np.asarray((tensors or {})[kind, index])
        end = _aligned(end)
        e = TensorEntry(kind, index, dtype_of(array), array.shape, end)
        _check_entry(e, trace)
        arrays.append(array)
        entries.append(e)
        end += e.nbytes
    core, side, table = _encode_trace(trace), encode_sidecar(trace.sidecar), _encode_index(entries)
    layout = SectionLengths(len(core), len(side), len(table), end)
    _check_limits(layout)
    head = MAGIC + u32(FORMAT) + b"".join(map(u64, (len(core), len(side), len(table), end)))
    head += core + side + table + sha256(head, side, table)
    parse_head(head, layout)  # nothing is written that could not be read
    yield head
    if end:
        yield bytes(layout.data_start - layout.head_bytes)
    position = 0
    for e, array in zip(entries, arrays, strict=True):
        yield bytes(e.offset - position)
        yield raw_bytes(array)
        position = e.offset + e.nbytes


def _encode_trace(t: Trace) -> bytes:
    hashes = (*t.inputs, *t.outputs, *t.values)
    return b"".join(
        (
            u32(t.version), u8(LEVELS.index(t.level)), t.numeric_id, t.program, t.instance,
            t.weights_root, u32(len(t.inputs)), u32(len(t.outputs)), u32(len(t.values)), *hashes,
        )
    )  # fmt: skip


def _encode_index(entries: list[TensorEntry]) -> bytes:
    out = [u32(len(entries))]
    for e in entries:
        out += [u8(KINDS.index(e.kind)), u32(e.index), u8(e.dtype.code), u8(len(e.shape))]
        out += [u64(d) for d in e.shape] + [u64(e.offset)]
    return b"".join(out)


# reading


def parse_header(raw: bytes, file_bytes: int) -> SectionLengths:
    """Section lengths, checked against their limits and the size of the file."""
    if len(raw) < HEADER_BYTES:
        raise TraceFormatError(f"file: expected at least {HEADER_BYTES} bytes, got {len(raw)}")
    r = _Reader(raw)
    magic = r.take(8)
    if magic != MAGIC:
        raise TraceFormatError(f"magic: expected {MAGIC.hex()}, got {magic.hex()}")
    version = r.uint(4)
    if version != FORMAT:
        raise TraceFormatError(f"format version: expected {FORMAT}, got {version}")
    layout = SectionLengths(r.uint(8), r.uint(8), r.uint(8), r.uint(8))
    _check_limits(layout)
    if layout.file_bytes != file_bytes:
        raise TraceFormatError(f"file: expected {layout.file_bytes} bytes, got {file_bytes}")
    return layout


def parse_head(raw: bytes, layout: SectionLengths) -> tuple[Trace, tuple[TensorEntry, ...]]:
    """Trace and index from the first `layout.head_bytes` of a file."""
    checksum = raw[-DIGEST:]
    got = sha256(raw[:HEADER_BYTES], raw[HEADER_BYTES + layout.trace : -DIGEST])
    if got != checksum:
        raise TraceFormatError(
            f"checksum: expected {checksum.hex()}, got {got.hex()}: the file is damaged"
        )
    r = _Reader(raw)
    r.take(HEADER_BYTES)
    trace = _parse_trace(_Reader(r.take(layout.trace)), r.take(layout.sidecar))
    return trace, _parse_index(_Reader(r.take(layout.index)), trace, layout.data)


def parse_data(
    entries: tuple[TensorEntry, ...],
    data: memoryview,
    trace: Trace,
    body_root: BodyRoot = body_root,
) -> StoredTensors:
    """Views of the data section; its padding must be zeros."""
    position = 0
    for e in entries:
        if any(data[position : e.offset]):
            raise TraceFormatError(f"padding before {e.kind} {e.index}: expected zeros")
        position = e.offset + e.nbytes
    return StoredTensors(entries, data, trace, body_root)


def parse_file(raw: bytes) -> TraceFile:
    """A file that is in memory."""
    layout = parse_header(raw[:HEADER_BYTES], len(raw))
    trace, entries = parse_head(raw[: layout.head_bytes], layout)
    check_gap(raw[layout.head_bytes : layout.data_start])
    return TraceFile(trace, parse_data(entries, memoryview(raw)[layout.data_start :], trace))


def check_gap(gap: bytes) -> None:
    """The bytes between checksum and data must be zeros."""
    if any(gap):
        raise TraceFormatError(f"padding before data: expected zeros, got {gap.hex()}")


def check_values(file: TraceFile, body_root: BodyRoot = body_root) -> None:
    """Check every tensor the file carries against the trace; TraceFormatError for the first that
    does not have its hash."""
    for key in file.tensors:
        file.tensors.check(key, body_root)


def _parse_trace(r: _Reader, sidecar: bytes) -> Trace:
    if r.left < TRACE_BYTES:
        raise TraceFormatError(f"trace: expected at least {TRACE_BYTES} bytes, got {r.left}")
    version, level = r.uint(4), r.uint(1)
    if level >= len(LEVELS):
        raise TraceFormatError(f"level: expected 0 or 1, got {level}")
    numeric_id, program, instance, weights_root = (r.take(DIGEST) for _ in range(4))
    counts = [r.uint(4) for _ in range(3)]
    if r.left != DIGEST * sum(counts):
        raise TraceFormatError(
            f"tensor hashes: expected {DIGEST * sum(counts)} bytes, got {r.left}"
        )
    inputs, outputs, values = (tuple(r.take(DIGEST) for _ in range(n)) for n in counts)
    try:
        return Trace(
            LEVELS[level], numeric_id, program, instance, weights_root, inputs, outputs, values,
            version, decode_sidecar(sidecar, *counts),
        )  # fmt: skip
    except SidecarError as e:
        raise TraceFormatError(str(e)) from e
    except ValueError as e:
        raise TraceFormatError(f"trace: {e}") from e


def _parse_index(r: _Reader, trace: Trace, data_bytes: int) -> tuple[TensorEntry, ...]:
    count = r.uint(4)
    entries: list[TensorEntry] = []
    end, previous = 0, (-1, -1)
    for _ in range(count):  # every entry takes bytes, so a false count ends at the section's end
        kind, index, code, rank = r.uint(1), r.uint(4), r.uint(1), r.uint(1)
        if kind >= len(KINDS) or code not in _DTYPES or rank > MAX_RANK:
            raise TraceFormatError(
                f"index entry {len(entries)}: expected kind, dtype code and rank, "
                f"got {kind}, {code} and {rank}"
            )
        shape = tuple(r.uint(8) for _ in range(rank))
        e = TensorEntry(KINDS[kind], index, _DTYPES[code], shape, r.uint(8))
        if (kind, index) <= previous:
            raise TraceFormatError(f"index entry {len(entries)}: expected ascending order")
        previous = (kind, index)
        try:
            _check_entry(e, trace)
        except ValueError as error:
            raise TraceFormatError(str(error)) from error
        if e.offset != _aligned(end):
            raise TraceFormatError(
                f"{e.kind} {index}: expected offset {_aligned(end)}, got {e.offset}"
            )
        end = e.offset + e.nbytes
        entries.append(e)
    if r.left:
        raise TraceFormatError(f"index: expected {count} entries, got {r.left} further bytes")
    if end != data_bytes:
        raise TraceFormatError(f"data: expected {end} bytes, got {data_bytes}")
    return tuple(entries)


def _check_entry(e: TensorEntry, trace: Trace) -> None:
    """ValueError unless the trace has a hash for the tensor and its size is allowed."""
    if is_moved(_hash_of(e, trace)):
        raise ValueError(f"{e.kind} {e.index}: expected no bytes for a value that is only moved")
    if len(e.shape) > MAX_RANK or any(d > MAX_ELEMENTS for d in e.shape):
        raise ValueError(f"{e.kind} {e.index}: dimension or rank too large")
    if math.prod(e.shape) > MAX_ELEMENTS:
        raise ValueError(f"{e.kind} {e.index}: expected at most {MAX_ELEMENTS} elements")


def _hash_of(e: TensorEntry, trace: Trace) -> bytes:
    hashes = {"input": trace.inputs, "output": trace.outputs, "value": trace.values}[e.kind]
    if not 0 <= e.index < len(hashes):
        raise ValueError(f"{e.kind}: expected index below {len(hashes)}, got {e.index}")
    return hashes[e.index]


def _check_limits(layout: SectionLengths) -> None:
    for name, limit in (("trace", MAX_TRACE), ("sidecar", MAX_SIDECAR), ("index", MAX_INDEX)):
        if getattr(layout, name) > limit:
            raise TraceFormatError(
                f"{name}: expected at most {limit} bytes, got {getattr(layout, name)}"
            )


def _aligned(n: int) -> int:
    return (n + ALIGN - 1) // ALIGN * ALIGN


class _Reader:
    """Takes bytes from the front; never past the end."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    @property
    def left(self) -> int:
        return len(self._raw) - self._at

    def take(self, n: int) -> bytes:
        if n > self.left:
            raise TraceFormatError(f"section: expected {n} more bytes, got {self.left}")
        self._at += n
        return self._raw[self._at - n : self._at]

    def uint(self, n: int) -> int:
        return int.from_bytes(self.take(n), "big")
