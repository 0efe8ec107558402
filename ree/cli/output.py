"""The one place where text reaches a terminal: data on stdout, talk on stderr, nothing unprintable."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from ree.printable import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Mapping

QUIET = 10.0  # seconds between lines of a progress bar where there is no terminal


def stderr_line(text: str) -> None:
    """One line to stderr, if somebody listens."""
    with contextlib.suppress(OSError, ValueError):
        _write(sys.stderr, f"{printable(text)}\n")


def stdout_line(text: str) -> None:
    """One line to stdout."""
    _write(sys.stdout, f"{printable(text)}\n")


def stdout_text(text: str) -> None:
    """Part of a longer text to stdout at once; its line ends and tabs stay what they are."""
    _write(sys.stdout, "".join(c if c in "\n\t" else printable(c) for c in text))
    sys.stdout.flush()


def print_result(args: argparse.Namespace, data: Mapping[str, Any], lines: Iterable[str]) -> None:
    """The result of a command: JSON or lines on stdout; on stderr where stdout holds its output."""
    if args.json:
        import json

        text = json.dumps(data, indent=1)
    else:
        text = "\n".join(map(printable, lines))
    _write(sys.stderr if _holds_output(args) else sys.stdout, f"{text}\n")


@contextlib.contextmanager
def progress(text: str) -> Iterator[None]:
    """A spinner on an interactive stderr; a line with the time for what took over two seconds."""
    from rich.console import Console

    console = Console(stderr=True)
    start = time.perf_counter()
    with console.status(printable(text)) if console.is_terminal else contextlib.nullcontext():
        yield
    seconds = time.perf_counter() - start
    if seconds >= 2 or console.is_terminal:
        stderr_line(f"{text}: {seconds:.1f} s")


@contextlib.contextmanager
def progress_bar(text: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A progress bar on a terminal, a line now and then elsewhere; call with (done, what)."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.description}"))  # fmt: skip
    last = time.perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as p:
        task = p.add_task("", total=total)

        def done(n: int, what: str) -> None:
            nonlocal last
            p.update(task, completed=n, description=printable(what))
            if not console.is_terminal and time.perf_counter() - last >= QUIET:
                last = time.perf_counter()
                stderr_line(f"{text} {n}/{total} {what}".rstrip())

        yield done


def _holds_output(args: argparse.Namespace) -> bool:
    """Whether what the command has written went to standard output: -o - or -o /dev/stdout."""
    from ree.traces.replacing import is_standard_output

    written = [getattr(args, "output", None), args.command == "run" and args.trace]
    return any(is_standard_output(path) for path in written if path)


def _write(stream: TextIO, text: str) -> None:
    """Write what the stream's encoding holds, the rest escaped."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
