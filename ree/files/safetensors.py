"""Safetensors files: written without a copy in memory, read without trust.

In memory uint16 holds the bits of bfloat16, in a file its type is BF16, as everywhere else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ree.errors import RunError
from ree.kernels.canonical import is_canonical
from ree.kernels.opdef import Array
from ree.kernels.types import MAX_RANK, DType, TensorType
from ree.traces.replacing import replacing
from ree.traces.strict_json import strict_json

CODES = {
    DType.F32: "F32", DType.F16: "F16", DType.BF16: "BF16", DType.I64: "I64", DType.I32: "I32",
    DType.I16: "I16", DType.I8: "I8", DType.U8: "U8", DType.BOOL: "BOOL",
}  # fmt: skip
_DTYPES = {code: d for d, code in CODES.items()}
METADATA = "__metadata__"  # so no tensor has this name
MAX_HEADER = 64 << 20
MAX_NAME = 500
WRONG_PROGRAM = "it may be from another program"


def array_type(x: Array) -> TensorType:
    """dtype and shape of an array."""
    return TensorType(DType.of(x.dtype), x.shape)


def _header(types: Mapping[str, TensorType], metadata: Mapping[str, str]) -> bytes:
    """The length and the JSON of a safetensors header, padded to a multiple of 8."""
    entries: dict[str, object] = {METADATA: dict(metadata)} if metadata else {}
    at = 0
    for name, t in types.items():
        if name == METADATA or not 0 < len(name) <= MAX_NAME:
            raise ValueError(f"no tensor in a file can be named '{name[:40]}'")
        name.encode()  # a ValueError for half a surrogate pair
        entries[name] = {"dtype": CODES[t.dtype], "shape": list(t.dims),
                         "data_offsets": [at, at + t.nbytes]}  # fmt: skip
        at += t.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(f"the header has {len(text)} bytes, expected at most {MAX_HEADER}")
    return len(text).to_bytes(8, "little") + text


def write_tensors_to(
    f: BinaryIO, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a stream, wide types first, so that all lie aligned; OSError, ValueError."""
    arrays = dict(sorted(tensors.items(), key=lambda x: -x[1].dtype.itemsize))
    f.write(_header({k: array_type(x) for k, x in arrays.items()}, metadata or {}))
    for x in arrays.values():
        if x.size:
            f.write(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)


def write_tensors(
    path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None,
    *, sync: bool = False,
) -> None:  # fmt: skip
    """Write a file of a directory of ours, whole or not at all; OSError, ValueError."""
    with replacing(path, follow=False, sync=sync) as f:
        write_tensors_to(f, tensors, metadata)


def parse_tensors(data: bytes | memoryview) -> dict[str, Array]:
    """Tensors of a file's bytes, read-only views; ValueError for what is malformed or of a type that
    programs do not have."""
    view = memoryview(data)
    length = int.from_bytes(view[:8], "little")
    if len(view) < 8 or length > min(MAX_HEADER, len(view) - 8):
        raise ValueError("the file is empty" if not view.nbytes else
                         f"expected a header of at most {max(len(view) - 8, 0)} bytes")  # fmt: skip
    types, offsets, _ = parse_header(bytes(view[8 : 8 + length]))
    want, have = sum(t.nbytes for t in types.values()), len(view) - 8 - length
    if have != want:
        raise ValueError(f"expected {want} bytes of tensors, got {have}")
    body = np.frombuffer(view, np.uint8, want, 8 + length)
    return {name: _view(body, t, offsets[name]) for name, t in types.items()}


def _view(body: Array, t: TensorType, start: int) -> Array:
    view = body[start : start + t.nbytes].view(t.dtype.numpy).reshape(t.dims)
    return np.require(view, requirements="A")


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
            try:
                found, offsets, metadata = parse_header(f.read(length))
            except ValueError as e:
                raise RunError(f"'{path}': {e}", WRONG_PROGRAM) from e
            _check(path, found, types)
            have = size - 8 - length
            if have != want:
                cut = " is truncated" if have < want else ""
                raise RunError(f"'{path}'{cut}: expected {want} bytes of tensors, got {have}")
            data = np.fromfile(f, np.uint8, want)
    except OSError as e:
        raise RunError(f"cannot read '{path}': {e.strerror or e}") from e
    if data.size != want:
        raise RunError(f"'{path}' is truncated: expected {want} bytes of tensors, got {data.size}")
    tensors = {name: _view(data, t, offsets[name]) for name, t in types.items()}
    for name, x in tensors.items():
        if not is_canonical(x):
            raise RunError(f"'{path}': tensor '{name[:200]}': its bits are not canonical")
    return tensors, metadata


def _check(path: Path, found: Mapping[str, TensorType], types: Mapping[str, TensorType]) -> None:
    if set(found) != set(types):
        odd = min(set(found) ^ set(types))
        what = "is missing" if odd in types else "is not expected"
        raise RunError(f"'{path}': tensor '{odd[:200]}' {what}", WRONG_PROGRAM)
    for name, t in types.items():
        if found[name] != t:
            raise RunError(
                f"'{path}': tensor '{name}': expected {t}, got {found[name]}", WRONG_PROGRAM
            )


def parse_header(raw: bytes) -> tuple[dict[str, TensorType], dict[str, int], dict[str, str]]:
    """(types, offsets, metadata) by name of a header's JSON; its tensors fill the file without a gap.

    ValueError for anything else.
    """
    try:
        header = strict_json(raw)
    except ValueError as e:
        raise ValueError("its header is not JSON") from e
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(
        isinstance(v, str) and len(v) <= 1 << 20 for v in metadata.values()
    ):
        raise ValueError("its metadata is not text")
    types, offsets, spans = {}, {}, []
    for name, entry in header.items():
        types[name], span = _entry(name[:200], entry)
        offsets[name] = span[0]
        spans.append(span)
    spans.sort()
    ends = [0] + [s[1] for s in spans]
    if [s[0] for s in spans] != ends[:-1]:
        raise ValueError("expected tensors that neither overlap nor leave gaps")
    return types, offsets, metadata


def _entry(name: str, entry: object) -> tuple[TensorType, list[int]]:
    """Type and span of one tensor."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor '{name}': expected dtype, shape and data_offsets")
    code, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise ValueError(
            f"tensor '{name}': dtype: expected one of {', '.join(_DTYPES)}, got {str(code)[:20]}"
        )
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(
        type(d) is int and 0 <= d < 1 << 48 for d in shape
    ):  # fmt: skip
        raise ValueError(f"tensor '{name}': expected a shape of at most {MAX_RANK} dimensions")
    if not isinstance(span, list) or [type(x) for x in span] != [int, int]:
        raise ValueError(f"tensor '{name}': expected two offsets")
    t = TensorType(_DTYPES[code], tuple(shape))
    if span[0] < 0 or span[1] != span[0] + t.nbytes:
        raise ValueError(f"tensor '{name}': expected {t.nbytes} bytes at {span[0]}")
    return t, span
