"""JSON from another party: UTF-8, no duplicate keys, no NaN, and no deeper than a limit."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 32

# A string, whole even if it does not end, or a bracket. Possessive: linear in the text whatever it is.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{\]}]', re.DOTALL)


def strict_json(raw: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """The value of UTF-8 JSON text; ValueError for anything else, or nested over max_depth.

    The depth is counted before parsing: Python's parser recurses in C, and its only guard is the
    interpreter's recursion limit, which some libraries raise above what the stack holds.
    """
    text = raw.decode("utf-8")
    depth = 0
    for token in _TOKEN.finditer(text):
        c = token[0][0]
        depth += (c in "[{") - (c in "]}")
        if depth > max_depth:
            raise ValueError(f"nested over {max_depth} deep")
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("duplicate key")
    return out


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
