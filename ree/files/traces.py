"""Trace files as the public API and the commands read them."""

from __future__ import annotations

import os

from ree.errors import TraceError, public
from ree.runtime.hashing import fast_body_root
from ree.traces.files import TraceFile, TraceFormatError, read_trace
from ree.traces.trace import Trace


@public
def load_trace(path: str | os.PathLike[str]) -> Trace:
    """The trace of a file; TraceError if it is malformed or cannot be read."""
    return read_trace_file(path).trace


def read_trace_file(path: str | os.PathLike[str]) -> TraceFile:
    """A parsed trace file; TraceError if malformed or unreadable."""
    if not isinstance(path, str | os.PathLike):
        raise TraceError(f"trace: expected a path, got {type(path).__name__}")
    try:
        return read_trace(path, fast_body_root)
    except FileNotFoundError as e:
        raise TraceError(f"no trace at '{path}'") from e
    except TraceFormatError as e:
        raise TraceError(f"trace '{path}' is malformed: {e}") from e
    except OSError as e:
        raise TraceError(f"cannot read trace '{path}': {e.strerror or e}") from e
