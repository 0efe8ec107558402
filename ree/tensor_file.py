"""Safetensors files of known content: written without a copy in memory, read without trust."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ree.errors import RunError
from ree.kernels.opdef import Array
from ree.kernels.types import DType, TensorType
from ree.traces.strict_json import strict_json

CODES = {
    DType.F32: "F32", DType.F16: "F16", DType.BF16: "U16", DType.I64: "I64", DType.I32: "I32",
    DType.I16: "I16", DType.I8: "I8", DType.U8: "U8", DType.BOOL: "BOOL",
}  # fmt: skip
MAX_HEADER = 64 << 20
WRONG_PROGRAM = "it may be from another program"


def array_type(x: Array) -> TensorType:
    """dtype and shape of an array."""
    return TensorType(DType.of(x.dtype), x.shape)


def _header(types: Mapping[str, TensorType], metadata: Mapping[str, str]) -> bytes:
    """The length and the JSON of a safetensors header, padded to a multiple of 8."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, t in types.items():
        entries[name] = {"dtype": CODES[t.dtype], "shape": list(t.dims),
                         "data_offsets": [at, at + t.nbytes]}  # fmt: skip
        at += t.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_tensors(
    path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None,
    *, sync: bool = False,
) -> None:  # fmt: skip
    """Write tensors beside `path` and rename; on an error nothing is left and an old file stays.

    sync: only once the bytes are on the disk. OSError when they cannot be written.
    """
    temp = path.with_name(f".{path.name}.tmp")
    try:
        with open(temp, "wb", buffering=0) as f:
            _write_all(f.fileno(), _header({k: array_type(x) for k, x in tensors.items()},
                                           metadata or {}))  # fmt: skip
            for x in tensors.values():
                if x.size:
                    _write_all(f.fileno(), np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
            if sync:
                os.fsync(f.fileno())
        os.replace(temp, path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read_tensors(
    path: Path, types: Mapping[str, TensorType]
) -> tuple[dict[str, Array], dict[str, str]]:
    """(tensors, metadata) of a file that must hold exactly these names and types.

    RunError, naming the file, for anything else. The size is checked before memory is taken.
    """
    if path.is_symlink() or not path.is_file():
        raise RunError(f"'{path}' is missing" if not path.exists() else
                       f"'{path}': expected a regular file")  # fmt: skip
    want = sum(t.nbytes for t in types.values())
    try:
        with open(path, "rb") as f:
            size = os.fstat(f.fileno()).st_size
            length = int.from_bytes(f.read(8), "little")
            if size < 8 or length > min(MAX_HEADER, size - 8):
                raise RunError(f"'{path}': expected a header of at most {max(size - 8, 0)} bytes")
            offsets, metadata = _parse(f.read(length), path, types)
            have = size - 8 - length
            if have != want:
                cut = " is truncated" if have < want else ""
                raise RunError(f"'{path}'{cut}: expected {want} bytes of tensors, got {have}")
            data = np.fromfile(f, np.uint8, want)
    except OSError as e:
        raise RunError(f"cannot read '{path}': {e.strerror or e}") from e
    if data.size != want:
        raise RunError(f"'{path}' is truncated: expected {want} bytes of tensors, got {data.size}")
    out = {}
    for name, t in types.items():
        start = offsets[name]
        view = data[start : start + t.nbytes].view(t.dtype.numpy).reshape(t.dims)
        out[name] = np.require(view, requirements="A")
    return out, metadata


def _parse(
    raw: bytes, path: Path, types: Mapping[str, TensorType]
) -> tuple[dict[str, int], dict[str, str]]:
    """(offset of each tensor, metadata) of a header that describes exactly `types`."""
    try:
        header = strict_json(raw)
    except ValueError as e:
        raise RunError(f"'{path}': its header is not JSON") from e
    if not isinstance(header, dict):
        raise RunError(f"'{path}': its header is not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(v, str) and len(v) <= 1000 for v in metadata.values()
    ):
        raise RunError(f"'{path}': its metadata is not text")
    if set(header) != set(types):
        odd = min(set(header) ^ set(types))
        what = "is missing" if odd in types else "is not expected"
        raise RunError(f"'{path}': tensor '{odd[:200]}' {what}", WRONG_PROGRAM)
    offsets, spans = {}, []
    for name, t in types.items():
        entry = header[name]
        want = {"dtype": CODES[t.dtype], "shape": list(t.dims)}
        if not isinstance(entry, dict) or {k: entry.get(k) for k in want} != want:
            raise RunError(f"'{path}': tensor '{name}': expected {t}", WRONG_PROGRAM)
        span = entry.get("data_offsets")
        if not isinstance(span, list) or [type(x) for x in span] != [int, int]:
            raise RunError(f"'{path}': tensor '{name}': expected two offsets")
        if span[0] < 0 or span[1] != span[0] + t.nbytes:
            raise RunError(f"'{path}': tensor '{name}': expected {t.nbytes} bytes at {span[0]}")
        offsets[name] = span[0]
        spans.append(span)
    spans.sort()
    ends = [0] + [s[1] for s in spans]
    if [s[0] for s in spans] != ends[:-1]:  # so they fill the file, without gap or overlap
        raise RunError(f"'{path}': its tensors overlap or leave gaps")
    return offsets, metadata
