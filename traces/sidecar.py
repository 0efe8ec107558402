"""The JSON that travels beside a trace: names, source lines, times. Nothing in it is proven, so a
reader bounds every part of it and lets no control character through to a terminal."""

from __future__ import annotations

import json
import math
from typing import Any

from ree.traces.strict_json import strict_json
from ree.traces.trace import Sidecar, ValueInfo

MAX_BYTES = 16 << 20
MAX_TEXT = 2000  # characters of one string
MAX_ENVIRONMENT = 100
_TEXT_FIELDS = ("op", "type", "name", "location", "code", "module")


class SidecarError(ValueError):
    """A sidecar that does not fit the schema."""


def encode_sidecar(s: Sidecar) -> bytes:
    """JSON of a sidecar, b"" for an empty one; SidecarError if it is too large.

    Text is cut to MAX_TEXT characters and unprintable characters become spaces.
    """
    if s == Sidecar():
        return b""
    values = []
    for v in s.values:
        entry: dict[str, Any] = {k: clean(getattr(v, k)) for k in _TEXT_FIELDS if getattr(v, k)}
        if v.seconds is not None:
            entry["seconds"] = float(v.seconds)
        values.append(entry)
    document = {
        "values": values,
        "inputs": [clean(x) for x in s.inputs],
        "outputs": [clean(x) for x in s.outputs],
        "environment": {clean(k): clean(v) for k, v in s.environment},
    }
    raw = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    if len(raw) > MAX_BYTES:
        raise SidecarError(f"sidecar: expected at most {MAX_BYTES} bytes, got {len(raw)}")
    return raw


def decode_sidecar(raw: bytes, inputs: int, outputs: int, values: int) -> Sidecar:
    """Sidecar of a trace with these numbers of tensors; SidecarError if malformed."""
    if not raw:
        return Sidecar()
    if len(raw) > MAX_BYTES:
        raise SidecarError(f"sidecar: expected at most {MAX_BYTES} bytes, got {len(raw)}")
    try:
        document = strict_json(raw)
    except ValueError as e:
        raise SidecarError(f"sidecar: expected JSON, got {type(e).__name__}") from e
    keys = {"values", "inputs", "outputs", "environment"}
    if not isinstance(document, dict) or set(document) != keys:
        raise SidecarError(f"sidecar: expected an object with {', '.join(sorted(keys))}")
    infos = _list(document["values"], "values", values)
    environment = document["environment"]
    if not isinstance(environment, dict) or len(environment) > MAX_ENVIRONMENT:
        raise SidecarError(f"environment: expected an object of at most {MAX_ENVIRONMENT} entries")
    return Sidecar(
        tuple(_value_info(v, i) for i, v in enumerate(infos)),
        tuple(_text(x, "inputs") for x in _list(document["inputs"], "inputs", inputs)),
        tuple(_text(x, "outputs") for x in _list(document["outputs"], "outputs", outputs)),
        tuple((_text(k, "environment"), _text(v, "environment")) for k, v in environment.items()),
    )


def clean(text: str) -> str:
    """One printable line of at most MAX_TEXT characters."""
    return "".join(c if c.isprintable() else " " for c in text[:MAX_TEXT])


def _value_info(entry: object, index: int) -> ValueInfo:
    where = f"values[{index}]"
    if not isinstance(entry, dict) or not set(entry) <= {*_TEXT_FIELDS, "seconds"}:
        raise SidecarError(f"{where}: expected an object with {', '.join(_TEXT_FIELDS)}, seconds")
    seconds = entry.get("seconds")
    if seconds is not None and not (
        isinstance(seconds, float) and math.isfinite(seconds) and seconds >= 0
    ):
        raise SidecarError(f"{where}: expected seconds to be a non-negative number")
    return ValueInfo(**{k: _text(entry.get(k, ""), where) for k in _TEXT_FIELDS}, seconds=seconds)


def _list(x: object, where: str, count: int) -> list[object]:
    if not isinstance(x, list) or len(x) not in (0, count):
        got = f"{len(x)} entries" if isinstance(x, list) else type(x).__name__
        raise SidecarError(f"{where}: expected a list of 0 or {count}, got {got}")
    return x


def _text(x: object, where: str) -> str:
    if not isinstance(x, str) or len(x) > MAX_TEXT or not x.isprintable():
        raise SidecarError(f"{where}: expected printable text of at most {MAX_TEXT} characters")
    return x
