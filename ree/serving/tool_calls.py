"""Calls of tools in what a model says, as Hermes and Qwen do: <tool_call>{"name", "arguments"}</tool_call>.

Other models have other forms; what they say stays text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ree.generation.streams import StopStrings
from ree.serving.fields import MAX_DEPTH
from ree.traces.strict_json import strict_json

OPEN, CLOSE = "<tool_call>", "</tool_call>"
MAX_CALLS = 128
_BLOCK = re.compile(rf"\s*{OPEN}((?:(?!{CLOSE}).)*){CLOSE}\s*", re.DOTALL)


@dataclass(frozen=True)
class ToolCall:
    """A call; `arguments` is the text of a JSON object."""

    name: str
    arguments: str


def find_calls(text: str, tools: Collection[str]) -> tuple[str, list[ToolCall]]:
    """(what stands before the first call, the calls); the whole text and none unless all from the first call on
    are whole calls of these tools."""
    at = text.find(OPEN)
    calls: list[ToolCall] = []
    place = at
    while 0 <= place < len(text):
        block = _BLOCK.match(text, place)
        call = _call(block[1], tools) if block else None
        if block is None or call is None or len(calls) == MAX_CALLS:
            return text, []
        calls.append(call)
        place = block.end()
    return (text[:at], calls) if calls else (text, [])


def _call(raw: str, tools: Collection[str]) -> ToolCall | None:
    try:
        value = strict_json(raw.encode(), MAX_DEPTH)
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(value, dict)
        or value.keys() != {"name", "arguments"}
        or value["name"] not in list(tools)
    ):
        return None
    if not isinstance(value["arguments"], dict):
        return None
    return ToolCall(value["name"], json.dumps(value["arguments"], ensure_ascii=False))


def as_json(calls: list[ToolCall], receipt: str) -> list[dict[str, Any]]:
    """Calls in the form of OpenAI's API; their ids follow from the receipt of the answer."""
    return [
        {
            "id": f"call_{hashlib.sha256(f'{receipt}/{i}'.encode()).hexdigest()[:24]}",
            "type": "function",
            "function": {"name": c.name, "arguments": c.arguments},
        }
        for i, c in enumerate(calls)
    ]


class BeforeCalls:
    """Of a text that comes in pieces, what stands before the first call; the rest is told once it is whole."""

    def __init__(self) -> None:
        self._stops = StopStrings([OPEN])
        self.told = 0  # characters given out

    def push(self, text: str) -> str:
        out, _ = self._stops.push(text)
        self.told += len(out)
        return out
