"""JSON from another party: UTF-8, no duplicate keys, no NaN, and no deeper than a limit."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any

MAX_DEPTH = 32

# A string, whole even if it does not end. Possessive: linear in the text whatever it is.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {**dict.fromkeys(b"[{", 1), **dict.fromkeys(b"]}", -1)}


class TooMany(ValueError):
    """There is more in a text than is taken."""


def strict_json(
    raw: bytes, max_depth: int = MAX_DEPTH, max_values: int | None = None, max_parts: int | None = None
) -> Any:  # fmt: skip
    """The value of UTF-8 JSON text; ValueError for anything else, or nested over max_depth,
    TooMany over the other bounds.

    max_values, max_parts: bounds on what stands in it, of its lists and objects; to the parser, which lets no
    other thread run meanwhile, a short text of many is more work than a long one of few.

    The depth is counted before parsing: Python's parser recurses in C, and its only guard is the
    interpreter's recursion limit, which some libraries raise above what the stack holds.
    """
    text = raw.decode("utf-8")
    if max_values is not None and raw.count(b'"') - raw.count(b'\\"') > max_values:
        raise TooMany(f"over {max_values} texts")  # each of which begins with such a sign
    bare = _STRING.sub(b"", raw)
    if max_values is not None and bare.count(b",") >= max_values:
        raise TooMany(f"over {max_values} values")
    brackets = bare.translate(None, _NO_BRACKET)
    if max_parts is not None and len(brackets) > 2 * max_parts:
        raise TooMany(f"over {max_parts} lists and objects")
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > max_depth:
        raise ValueError(f"nested over {max_depth} deep")
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("duplicate key")
    return out


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
