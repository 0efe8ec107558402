"""The files of an artifact: names, limits, and the manifest's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ree.compiler.ir import Graph
from ree.compiler.text import MAX_TEXT
from ree.files.safetensors import MAX_NAME, METADATA
from ree.kernels.opdef import Array
from ree.result import Names

MAGIC = "ree.artifact"
VERSION = 2
MANIFEST = "manifest.json"
GRAPH, WEIGHTS, CONSTANTS, EXAMPLES, ORIGINS = (
    "graph.txt", "weights.safetensors", "constants.safetensors", "examples.safetensors", "origins.json",
)  # fmt: skip
FILES = (GRAPH, WEIGHTS, CONSTANTS, EXAMPLES, ORIGINS)
STATES = "states.safetensors"  # what the states are at first, where the program says it
# what a model of text has beside its program: one that generates its settings, one that embeds others
BESIDE = (SETTINGS, TOKENIZER, TEMPLATE, EMBEDDING) = (
    "generation.json", "tokenizer.json", "chat_template.jinja", "embedding.json",
)  # fmt: skip
TOGETHER: tuple[set[str], ...] = (
    set(),
    {SETTINGS, TOKENIZER},
    {SETTINGS, TOKENIZER, TEMPLATE},
    {EMBEDDING, TOKENIZER},
)
MAX_BYTES = {MANIFEST: 64 << 20, GRAPH: MAX_TEXT, WEIGHTS: 1 << 40, CONSTANTS: 1 << 40,
             EXAMPLES: 1 << 34, ORIGINS: 256 << 20, STATES: 1 << 40,
             SETTINGS: 1 << 20, TOKENIZER: 64 << 20, TEMPLATE: 1 << 20,
             EMBEDDING: 1 << 20}  # fmt: skip
MAX_ORIGIN = 1000
MAX_DEPTH = 64  # of the manifest's JSON, for nested structures


class Contents(Protocol):
    """What an artifact keeps of a program."""

    @property
    def graph(self) -> Graph: ...
    @property
    def names(self) -> Names: ...
    @property
    def weights(self) -> Sequence[Array]: ...
    @property
    def examples(self) -> Mapping[str, Array]: ...
    @property
    def initial(self) -> Sequence[Array]: ...
    @property
    def files(self) -> Mapping[str, bytes]: ...
    @property
    def program_hash(self) -> bytes: ...
    @property
    def weights_root(self) -> bytes: ...


def manifest_problem(m: Any) -> str:
    """What is wrong with a manifest, or nothing."""
    if not isinstance(m, dict) or m.get("magic") != MAGIC:
        return "not a REE artifact"
    if m.get("version") != VERSION:
        return f"version: expected {VERSION}, got {str(m.get('version'))[:20]}; compile it again"
    keys = {"magic", "version", "contract", "program", "weights_root", "inputs", "outputs",
            "weights", "files"}  # fmt: skip
    if set(m) - {"states", "structure"} != keys:
        return f"manifest keys: expected {sorted(keys)}"
    for k in ("program", "weights_root"):
        if not _is_digest(m[k]):
            return f"{k}: expected 64 hexadecimal digits"
    for k in ("inputs", "outputs", "weights", "states"):
        names = m.get(k, [])
        if not isinstance(names, list) or not all(
            isinstance(n, str) and 0 < len(n) <= MAX_NAME and n != METADATA for n in names
        ):
            return f"{k}: expected names of 1 to {MAX_NAME} characters, none of them {METADATA}"
        if len(set(names)) != len(names):
            return f"{k}: a name stands twice"
    files = m["files"]
    optional = ({STATES} if m.get("states") else set()) | set(BESIDE)
    if not isinstance(files, dict) or set(files) - optional != set(FILES):
        return f"files: expected {', '.join(FILES)}"
    if set(files) & set(BESIDE) not in TOGETHER:
        return f"files: expected {SETTINGS} or {EMBEDDING} with {TOKENIZER}, or neither"
    for name, entry in files.items():
        if not isinstance(entry, dict) or set(entry) != {"bytes", "sha256"}:
            return f"{name}: expected bytes and sha256"
        size = entry["bytes"]
        if type(size) is not int or not 0 <= size <= MAX_BYTES[name]:
            return f"{name}: expected 0 to {MAX_BYTES[name]} bytes"
        if not _is_digest(entry["sha256"]):
            return f"{name}: sha256: expected 64 hexadecimal digits"
    return ""


def _is_digest(v: Any) -> bool:
    return isinstance(v, str) and len(v) == 64 and all(c in "0123456789abcdef" for c in v)
