"""Errors a user can cause.

ReeError              one line for the user, exit code 2
+-- CaptureError      the model cannot be captured
|   +-- UnsupportedError  operators or dtypes outside the registry
+-- InputError        wrong input name, shape, dtype or value
+-- ArtifactError     an artifact that is malformed, altered or from another version
+-- TraceError        a trace file that is malformed
+-- RunError          a training run on disk that is malformed, altered or in use
+-- DisputeError     a party, a transcript or a verdict file that cannot be used
+-- ChainError        a node, a contract or a key that cannot do what was asked
+-- EnvironmentError_ this machine or its settings cannot do what was asked
"""

from __future__ import annotations


class ReeError(Exception):
    """Base of all errors a user can cause; `hint`, if any, says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class CaptureError(ReeError):
    """The model cannot be captured as one graph."""


class UnsupportedError(CaptureError):
    """The model needs operators or dtypes that the registry lacks; `items` lists them all."""

    def __init__(self, message: str, items: tuple[str, ...], hint: str = "") -> None:
        super().__init__(message, hint)
        self.items = items


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


class EnvironmentError_(ReeError):
    """This machine, or a setting, cannot do what was asked."""
