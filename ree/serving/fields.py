"""The fields of a request's JSON object, each taken once and checked as it is taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ree.printable import short
from ree.serving.errors import ApiError
from ree.traces.strict_json import TooMany, strict_json

MAX_DEPTH = 64
MAX_VALUES = 1 << 20  # of a body, of any kind
MAX_PARTS = 1 << 16  # lists and objects of a body
T = TypeVar("T")


def read_object(raw: bytes) -> dict[str, Any]:
    """The JSON object of a request's body; ApiError for anything else, NaN and duplicate keys too."""
    try:
        value = strict_json(raw, MAX_DEPTH, MAX_VALUES, MAX_PARTS)
    except TooMany as e:
        raise ApiError(f"the body has {e}", status=413) from e
    except (ValueError, RecursionError) as e:
        raise ApiError(f"the body is not JSON: {str(e)[:200]}", code="invalid_json") from e
    if not isinstance(value, dict):
        raise ApiError(f"the body is {shown(value)}, expected a JSON object")
    return value


def shown(value: object) -> str:
    """A value for a message, not too long."""
    return short(value)


class Fields:
    """A JSON object whose fields are taken by name; null is as good as left out."""

    def __init__(self, value: dict[str, Any], where: str = "") -> None:
        self._value, self._where = value, where
        self._taken: set[str] = set()

    def name(self, key: str) -> str:
        """A field as messages call it."""
        return f"{self._where}.{key}" if self._where else key

    def raw(self, key: str) -> Any:
        """The value of a field, unchecked, or None."""
        self._taken.add(key)
        return self._value.get(key)

    def wrong(self, key: str, expected: str) -> ApiError:
        """The refusal of a field's value."""
        name = self.name(key)
        return ApiError(f"{name} is {shown(self._value.get(key))}, expected {expected}", name)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.raw(key)
        if not isinstance(value, bool | None):
            raise self.wrong(key, "true or false")
        return default if value is None else value

    def integer(self, key: str, low: int, high: int, default: T) -> int | T:
        value = self.raw(key)
        if value is None:
            return default
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(key, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, low: float, high: float, default: float) -> float:
        value = self.raw(key)
        if value is None:
            return default
        if not is_number(value) or not low <= value <= high:
            raise self.wrong(key, f"a number from {low:g} to {high:g}")
        return float(value)

    def text(self, key: str, default: T) -> str | T:
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, str) or not is_unicode(value):
            raise self.wrong(key, "a text")
        return value

    def list_of(
        self, key: str, most: int, good: Callable[[Any], bool], what: str
    ) -> tuple[Any, ...]:
        """A list of at most `most` values that are `good`; () if it is left out."""
        value = self.raw(key)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > most or not all(map(good, value)):
            raise self.wrong(key, f"a list of at most {most} {what}")
        return tuple(value)

    def object(self, key: str) -> Fields | None:
        """The fields of a field that is itself an object, or None."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return Fields(value, self.name(key))

    def only(self, key: str, allowed: Sequence[Any], why: str) -> None:
        """A field that has no effect as long as its value is one of these; ApiError for another."""
        value = self.raw(key)
        if value is not None and not any(same(value, x) for x in allowed):
            name = self.name(key)
            raise ApiError(f"{name} is {shown(value)}: {why}", name, code="unsupported_value")

    def rest(self) -> tuple[str, ...]:
        """Names of fields that nobody has taken, in order."""
        return tuple(self.name(k) for k in sorted(self._value.keys() - self._taken))


def same(a: Any, b: Any) -> bool:
    """Equal as JSON: 0 and 0.0 are, 0 and false are not."""
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def is_number(x: Any) -> bool:
    return type(x) in (int, float) and abs(x) < 1e300 and math.isfinite(x)


def is_token(x: Any) -> bool:
    return type(x) is int and 0 <= x < 1 << 22


def is_unicode(x: str) -> bool:
    try:
        x.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_text(x: Any) -> bool:
    """Not empty, and not half a surrogate pair."""
    return isinstance(x, str) and x != "" and is_unicode(x)
