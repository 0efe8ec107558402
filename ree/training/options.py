"""Checks of what training is asked for, before anything is compiled or written."""

from __future__ import annotations

import os
from typing import Any

from ree.errors import InputError


def check_options(
    steps: int, checkpoint_every: int, run: Any, resume: bool, keep_batches: bool = True,
    history: bool = True,
) -> None:  # fmt: skip
    """InputError for an option that is of no use."""
    check_count("steps", steps)
    check_count("checkpoint_every", checkpoint_every)
    for name, flag in (("resume", resume), ("keep_batches", keep_batches), ("history", history)):
        if not isinstance(flag, bool):
            raise InputError(f"{name}: expected True or False, got {str(flag)[:40]}")
    if resume and run is None:
        raise InputError("resume: expected a run directory")
    path_of("run", run)


def check_count(name: str, number: Any) -> None:
    """InputError unless a number is a whole one of at least 1."""
    if type(number) is not int or not 1 <= number < 2**40:
        raise InputError(f"{name}: expected at least 1, got {str(number)[:40]}")


def check_functions(
    loss: Any, batch: Any, progress: Any, validate: Any, every: Any, callbacks: Any
) -> None:
    """InputError for what should be a function and is none."""
    for name, f in (
        ("loss", loss),
        ("batch", batch),
        ("progress", progress),
        ("validate", validate),
    ):
        if not callable(f) and (f is not None or name in ("loss", "batch")):
            raise InputError(f"{name}: expected a function, got {type(f).__name__}")
    if not isinstance(callbacks, tuple | list) or not all(map(callable, callbacks)):
        raise InputError("callbacks: expected a list of functions")
    if every is not None:
        check_count("validate_every", every)
        if validate is None:
            raise InputError("validate_every: expected validate beside it")


def path_of(name: str, path: Any) -> Any:
    """A path, or None, as it was given; InputError for what is none."""
    if path is not None:
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
        if not isinstance(text, str) or not text or "\0" in text or not _is_encodable(text):
            raise InputError(f"{name}: expected a path, got {str(path)[:40]!r}")
    return path


def _is_encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def paths_of(data: Any) -> list[Any]:
    """A list of paths as it was given; InputError for what is none."""
    if not isinstance(data, tuple | list):
        raise InputError(f"data: expected a list of paths, got {type(data).__name__}")
    return [path_of("data", "" if p is None else p) for p in data]
