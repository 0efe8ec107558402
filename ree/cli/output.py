"""The one place where text reaches a terminal: data on stdout, talk on stderr, nothing unprintable."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any, TextIO

from ree.printable import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping


def say(text: str) -> None:
    """One line to stderr, if somebody listens."""
    with contextlib.suppress(OSError, ValueError):
        _write(sys.stderr, f"{printable(text)}\n")


def tell(text: str) -> None:
    """One line to stdout."""
    _write(sys.stdout, f"{printable(text)}\n")


def emit(args: argparse.Namespace, data: Mapping[str, Any], lines: Iterable[str]) -> None:
    """The result of a command: JSON or lines on stdout; on stderr where stdout holds its output."""
    text = json.dumps(data, indent=1) if args.json else "\n".join(map(printable, lines))
    _write(sys.stderr if _holds_output(args) else sys.stdout, f"{text}\n")


def _holds_output(args: argparse.Namespace) -> bool:
    """Whether what the command has written went to standard output: -o - or -o /dev/stdout."""
    from ree.traces.replacing import is_standard_output

    written = [getattr(args, "output", None), args.command == "run" and args.trace]
    return any(is_standard_output(path) for path in written if path)


def _write(stream: TextIO, text: str) -> None:
    """Write what the stream's encoding holds, the rest escaped."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
