"""The float mode of the calling thread while numbers are made in Python."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

from ree import _core

F = TypeVar("F", bound=Callable[..., object])


def clean_floats(f: F) -> F:
    """f, run rounding to nearest even with subnormals kept, whatever a library has set in this thread."""

    @functools.wraps(f)
    def clean(*args: object, **kwargs: object) -> object:
        if _core.float_mode_is_clean():
            return f(*args, **kwargs)
        with _core.CleanFloatMode():
            return f(*args, **kwargs)

    return clean  # type: ignore[return-value]
