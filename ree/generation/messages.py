"""Conversations: what messages may be, and the one form in which templates see them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from ree.errors import ReeError
from ree.printable import short
from ree.traces.strict_json import strict_json

ROLES = ("system", "user", "assistant", "tool")
MAX_MESSAGES = 4096
MAX_CONTENT = 4 << 20  # characters of all messages
MAX_TOOLS = 128
MAX_OBJECTS = 1 << 20  # characters of all tools, and of all calls in messages, as JSON
MAX_DEPTH = 64  # of what tools and calls hold
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# keys that come first, as models were trained to see them; the others follow by the alphabet
_FIRST = ("type", "function", "name", "description", "parameters", "properties", "required")
# what a message may have beside role and content, and of which type
_FIELDS: dict[str, dict[str, type]] = {
    "system": {"name": str},
    "user": {"name": str},
    "assistant": {"name": str, "tool_calls": list, "reasoning_content": str, "refusal": type(None)},
    "tool": {"name": str, "tool_call_id": str},
}


def check_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages in the form that templates read: role and content are texts, arguments of calls objects.

    `developer` is `system`; text parts are joined by a line end, a content of None beside calls is "".
    ReeError, one line with the message's place, for anything else than such a list, or an empty one.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise ReeError(f"messages are a {type(messages).__name__}, expected a list of objects")
    if not 0 < len(messages) <= MAX_MESSAGES:
        raise ReeError(f"{len(messages)} messages, expected 1 to {MAX_MESSAGES}")
    out = [_message(m, f"messages[{i}]") for i, m in enumerate(messages)]
    if (total := sum(len(m["content"]) for m in out)) > MAX_CONTENT:
        raise ReeError(f"messages have {total} characters, expected at most {MAX_CONTENT}")
    _check_size([m["tool_calls"] for m in out if "tool_calls" in m], "messages: calls")
    return out


def check_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Functions that a model may call, in the form of OpenAI's API, or None for none of them.

    ReeError, one line with the tool's place, for anything else.
    """
    if not tools:
        return None
    if (
        isinstance(tools, str | bytes | Mapping)
        or not isinstance(tools, Sequence)
        or len(tools) > MAX_TOOLS
    ):
        raise ReeError(f"tools are {short(tools)}, expected a list of at most {MAX_TOOLS}")
    out = [_tool(t, f"tools[{i}]") for i, t in enumerate(tools)]
    _check_size(out, "tools")
    return out


def _tool(tool: Any, where: str) -> dict[str, Any]:
    if (
        not isinstance(tool, Mapping)
        or tool.get("type") != "function"
        or not tool.keys() <= {"type", "function"}
    ):
        raise ReeError(
            f"{where} is {short(tool)}, expected an object with type 'function' and function"
        )
    function = tool.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ReeError(
            f"{where}.function.name is {short(name)}",
            "expected 1 to 64 letters, digits, dots, hyphens and underscores",
        )
    for name, value in function.items():
        wanted = {"name": str, "description": str, "parameters": Mapping, "strict": bool}.get(name)
        if wanted is None or not isinstance(value, wanted | type(None)):
            raise ReeError(f"{where}.function.{name} is {short(value)}, which is not supported")
    out = ordered(tool, where)
    assert isinstance(out, dict)
    return out


def ordered(value: Any, where: str, depth: int = 0) -> Any:
    """JSON with the keys of every object in one order: templates print objects, and the same request must
    give the same text after it was stored with its keys in another order.

    ReeError for what no receipt could hold: infinities, half a surrogate pair, what is no JSON, or nested over
    MAX_DEPTH.
    """
    if depth > MAX_DEPTH:
        raise ReeError(f"{where} is nested over {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        for k in value:
            if not isinstance(k, str):
                raise ReeError(f"{where} has the key {short(k)}, expected texts")
            _text(k, where)
        keys = sorted(value, key=lambda k: (_FIRST.index(k) if k in _FIRST else len(_FIRST), k))
        return {k: ordered(value[k], where, depth + 1) for k in keys}
    if isinstance(value, list | tuple):
        return [ordered(x, where, depth + 1) for x in value]
    if isinstance(value, str):
        return _text(value, where)
    if not isinstance(value, int | float | None) or (
        isinstance(value, float) and not isfinite(value)
    ):
        raise ReeError(f"{where} has {short(value)}, which is not JSON")
    return value


def _check_size(objects: Any, where: str) -> None:
    """Bounded, so that a receipt is too, and what a template has to print."""
    if (size := len(json.dumps(objects, ensure_ascii=False))) > MAX_OBJECTS:
        raise ReeError(f"{where} have {size} characters, expected at most {MAX_OBJECTS}")


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise ReeError(
            f"{where} is a {type(message).__name__}, expected an object with role and content"
        )
    role = message.get("role")
    role = "system" if role == "developer" else role
    if role not in ROLES:
        raise ReeError(
            f"{where}.role is {short(role)}", f"expected one of {', '.join(ROLES)}, developer"
        )
    fields = _FIELDS[role]
    out: dict[str, Any] = {"role": role}
    for name, value in message.items():
        if name in ("role", "content") or value is None:
            continue
        if name not in fields:
            raise ReeError(f"{where}.{name} is not supported in a message of role {role}")
        if not isinstance(value, fields[name]):
            raise ReeError(f"{where}.{name} is {short(value)}, expected {fields[name].__name__}")
        out[name] = _text(value, f"{where}.{name}") if isinstance(value, str) else value
    if "tool_calls" in out:
        out["tool_calls"] = [
            _call(c, f"{where}.tool_calls[{i}]") for i, c in enumerate(out["tool_calls"])
        ]
    content = message.get("content")
    out["content"] = (
        "" if content is None and out.get("tool_calls") else _content(content, f"{where}.content")
    )
    return {
        "role": role,
        "content": out.pop("content"),
        **{k: out[k] for k in sorted(out) if k != "role"},
    }


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return _text(content, where)
    if not isinstance(content, list) or not content:
        raise ReeError(f"{where} is {short(content)}, expected a text or a list of text parts")
    for i, part in enumerate(content):
        if (
            not isinstance(part, Mapping)
            or part.get("type") != "text"
            or not isinstance(part.get("text"), str)
        ):
            kind = part.get("type") if isinstance(part, Mapping) else part
            raise ReeError(f"{where}[{i}] is of type {short(kind)}, expected a part of type text")
    return "\n".join(_text(p["text"], f"{where}[{i}].text") for i, p in enumerate(content))


def _call(call: Any, where: str) -> dict[str, Any]:
    """A call of a function; its arguments, JSON in a text, become an object."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ReeError(
            f"{where} is {short(call)}, expected an object with function.name and function.arguments"
        )
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        if len(arguments) > MAX_OBJECTS:
            raise ReeError(f"{where}.function.arguments have {len(arguments)} characters, "
                           f"expected at most {MAX_OBJECTS}")  # fmt: skip
        try:
            arguments = strict_json((arguments or "{}").encode(), MAX_DEPTH)
        except (ValueError, RecursionError) as e:
            raise ReeError(f"{where}.function.arguments is not JSON: {e}") from e
    if not isinstance(arguments, Mapping):
        raise ReeError(f"{where}.function.arguments is {short(arguments)}, expected an object")
    whole = {**call, "type": "function", "function": {**function, "arguments": arguments}}
    out = ordered(whole, where)
    assert isinstance(out, dict)
    return out


def _text(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise ReeError(f"{where} is not valid Unicode: half a surrogate pair at {e.start}") from e
    return text
