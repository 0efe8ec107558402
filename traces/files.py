"""Reading and writing trace files."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping

from ree.traces.format import (
    HEADER_BYTES,
    TraceFile,
    TraceFormatError,
    check_gap,
    check_values,
    encode_file,
    parse_data,
    parse_head,
    parse_header,
)
from ree.traces.replacing import replacing
from ree.traces.tensor import Array, BodyRoot, body_root
from ree.traces.trace import Trace

__all__ = ["TraceFile", "TraceFormatError", "check_values", "read_trace", "write_trace"]


def read_trace(path: str | os.PathLike[str], body_root: BodyRoot = body_root) -> TraceFile:
    """Read a trace file; tensors stay on disk until looked at, and are checked then.

    TraceFormatError if it is malformed (any size is checked before memory is taken), OSError if it
    cannot be read. body_root: what hashes the tensors.
    """
    with open(path, "rb") as f:
        size = os.fstat(f.fileno()).st_size
        header = f.read(HEADER_BYTES)
        layout = parse_header(header, size)
        head = header + f.read(layout.head_bytes - HEADER_BYTES)
        if len(head) != layout.head_bytes:
            raise TraceFormatError(f"file: expected {layout.head_bytes} bytes, got {len(head)}")
        trace, entries = parse_head(head, layout)
        check_gap(f.read(layout.data_start - layout.head_bytes))
        data = memoryview(b"")
        if layout.data:
            mapped = mmap.mmap(f.fileno(), layout.file_bytes, access=mmap.ACCESS_READ)
            data = memoryview(mapped)[layout.data_start :]
    return TraceFile(trace, parse_data(entries, data, trace, body_root))


def write_trace(
    path: str | os.PathLike[str],
    trace: Trace,
    tensors: Mapping[tuple[str, int], Array] | None = None,
) -> None:
    """Write a trace file, replacing `path` only once all of it is on the disk.

    tensors: arrays to carry, by ("input" | "output" | "value", index). On any error (ValueError,
    OSError) an old file is untouched and nothing else is left behind.
    """
    with replacing(path) as f:
        for piece in encode_file(trace, tensors):
            f.write(piece)
