"""Errors a user can cause.

ReeError              one line for the user, exit code 2
+-- CaptureError      the model cannot be captured
|   +-- UnsupportedError  operators or dtypes outside the registry
+-- InputError        wrong input name, shape, dtype or value
+-- ArtifactError     an artifact that is malformed, altered or from another version
+-- TraceError        a trace file that is malformed
+-- RunError          a training run on disk that is malformed, altered or in use
+-- DisputeError      a party, a transcript or a verdict file that cannot be used
+-- ChainError        a node, a contract or a key that cannot do what was asked
+-- PlatformError     this machine or its settings cannot do what was asked
+-- InternalError     a defect of REE itself, its cause beside it
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from ree.printable import printable

P = ParamSpec("P")
R = TypeVar("R")


class ReeError(Exception):
    """Base of all errors a user can cause.

    `message` is one line, `items` what it is about when that is several things, `hint`, if any, says
    what to do; the text of the error has them all.
    """

    def __init__(self, message: str, hint: str = "", items: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message, self.hint = printable(message), printable(hint)
        self.items = tuple(map(printable, items))

    def __str__(self) -> str:
        hint = (f"hint: {self.hint}",) if self.hint else ()
        return "\n".join((self.message, *(f"  {x}" for x in self.items), *hint))

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (type(self), self.message, self.hint, self.items)


def _again(kind: type[ReeError], message: str, hint: str, items: tuple[str, ...]) -> ReeError:
    """An error from its parts, which a subclass may take in another order."""
    e = kind.__new__(kind)
    ReeError.__init__(e, message, hint, items)
    return e


class CaptureError(ReeError):
    """The model cannot be captured as one graph."""


class UnsupportedError(CaptureError):
    """The model needs operators or dtypes that the registry lacks; `items` lists them all."""

    def __init__(self, message: str, items: tuple[str, ...], hint: str = "") -> None:
        super().__init__(message, hint, items)


class InputError(ReeError):
    """An input whose name, shape, dtype or value does not fit the program."""


class ArtifactError(ReeError):
    """An artifact that is malformed, altered, or written by another version."""


class TraceError(ReeError):
    """A trace file that is malformed."""


class RunError(ReeError):
    """A training run on disk that is malformed, altered, in use, or cannot be written."""


class DisputeError(ReeError):
    """A party that cannot be asked, or a transcript or verdict file that is malformed or another's."""


class ChainError(ReeError):
    """A node, a contract or a key that cannot do what was asked."""


class PlatformError(ReeError):
    """This machine, or a setting, cannot do what was asked."""


class InternalError(ReeError):
    """A defect of REE: an error that no check foresaw; `__cause__` is the error itself."""


class Foreign:
    """A user's functions that are called inside ours; what they raise is handed on as it is."""

    def __init__(self) -> None:
        self._raised: list[BaseException] = []

    def wrap(self, function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function, assigned=(), updated=())
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except Exception as e:
                self._raised.append(e)
                raise

        return called

    def raised(self, e: BaseException) -> bool:
        """Whether one of the functions raised this very exception."""
        return any(e is x for x in self._raised)


@contextmanager
def only_ree_errors(foreign: Foreign | None = None) -> Iterator[None]:
    """What is raised inside leaves as a ReeError, but for what a user's functions raised."""
    try:
        yield
    except (ReeError, MemoryError):
        raise
    except Exception as e:
        if foreign is not None and foreign.raised(e):
            raise
        raise _as_ree_error(e) from e


def _as_ree_error(e: Exception) -> ReeError:
    if isinstance(e, OSError):
        return ReeError(f"{e.filename or 'file'}: {e.strerror or e}")
    return InternalError(
        f"unexpected {type(e).__name__}: {str(e)[:300]}",
        "this is a defect of REE, or an argument that it should have refused; please report it",
    )


def public(function: Callable[P, R]) -> Callable[P, R]:
    """A function of the public API: what it raises is a ReeError, whatever went wrong inside."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:  # as only_ree_errors, quicker
            return function(*args, **kwargs)
        except (ReeError, MemoryError):
            raise
        except Exception as e:
            raise _as_ree_error(e) from e

    return guarded
