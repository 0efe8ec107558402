"""The command line: thin, stdout is data, stderr is talk.

Exit codes: 0 success, 1 the check says no, 2 an error, 70 a fault of this program, 130 interrupted (143 by
SIGTERM).
A command is a module, listed in `commands.py`, that imports what is heavy when it runs: --help is fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ree.cli.commands import COMMANDS
from ree.cli.exit_codes import ERROR, INTERNAL, INTERRUPTED, OK
from ree.cli.grammar import make_parser
from ree.cli.output import stderr_line
from ree.errors import InternalError, ReeError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    _open_streams()
    try:
        return _main(argv)
    except KeyboardInterrupt as e:
        from ree.training.interrupts import Interrupted

        if isinstance(e, Interrupted):
            stderr_line(
                f"{e}; its state is kept: the same command with --resume goes on from there"
            )
            return 128 + e.number
        stderr_line("interrupted")
        return INTERRUPTED
    except SystemExit as e:  # argparse's
        return _flushed(e.code if isinstance(e.code, int) else ERROR)


def _main(argv: Sequence[str] | None) -> int:
    try:
        args = make_parser(COMMANDS).parse_args(argv)
        return _flushed(COMMANDS[args.command].run(args))
    except ReeError as e:
        for line in f"error: {e}".splitlines():
            stderr_line(line)
        return INTERNAL if isinstance(e, InternalError) else ERROR
    except BrokenPipeError:
        return _no_reader()
    except MemoryError:
        stderr_line("error: out of memory")
        return ERROR
    except OSError as e:
        stderr_line(f"error: {e.filename or 'file'}: {e.strerror or e}")
        return ERROR
    except Exception as e:  # the interpreter would exit with 1, which says that a check failed
        if os.environ.get("REE_DEBUG"):
            import traceback

            traceback.print_exc()
        text = " ".join(str(e).split())[:300]
        stderr_line(f"internal error: {type(e).__name__}: {text}")
        stderr_line("hint: REE_DEBUG=1 shows where; please report it")
        return INTERNAL


def _open_streams() -> None:
    """Stand-ins for standard streams that were closed, so that talk and data have somewhere to go."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (for the process's life)


def _flushed(code: int) -> int:
    """The exit code, once all of stdout is written; that of an error if it cannot be."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _no_reader(code)
    except OSError as e:
        _discard()
        stderr_line(f"error: cannot write to stdout: {e.strerror or e}")
        return ERROR
    return code


def _no_reader(code: int = OK) -> int:
    """The reader of stdout left: that is no error, and no verdict is lost that it wanted."""
    _discard()
    return code


def _discard() -> None:
    """Let what stdout still holds go nowhere; the interpreter flushes it at exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
