"""Artifacts: a program on disk.

    X.ree/manifest.json          versions, names, digests of the other files
    X.ree/graph.txt              the canonical graph; its SHA-256 is the program's identity
    X.ree/weights.safetensors    weights by name
    X.ree/constants.safetensors  large constants by number
    X.ree/examples.safetensors   example inputs
    X.ree/states.safetensors     what the states are at first, if the program has states that begin as something
    X.ree/origins.json           per node: source line and module (beside the identity)

Nothing in an artifact is executed, and what else lies in the directory is not read. Loading checks, in this
order: the manifest's schema; that the files it lists are there, of the stated sizes; their digests; the graph's
grammar and legality; that weights and states have the graph's types; the program hash and the weights root.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, cast

from ree.compiler import legal
from ree.compiler.float_mode import clean_floats
from ree.compiler.ir import Graph, Node, Origin
from ree.compiler.structure import Structure
from ree.compiler.text import MAX_INLINE, MAX_TEXT, GraphError, parse_graph, print_graph
from ree.errors import ArtifactError, ReeError, public
from ree.files import atomic_directory, opened_together
from ree.kernels.canonical import is_canonical
from ree.kernels.opdef import Array
from ree.kernels.types import TensorType
from ree.program import Names, Program
from ree.runtime.hashing import hash_array
from ree.tensor_file import MAX_NAME, METADATA, array_type, parse_tensors, write_tensors_to
from ree.traces.strict_json import strict_json

MAGIC = "ree.artifact"
VERSION = 2
MANIFEST = "manifest.json"
GRAPH, WEIGHTS, CONSTANTS, EXAMPLES, ORIGINS = (
    "graph.txt", "weights.safetensors", "constants.safetensors", "examples.safetensors", "origins.json",
)  # fmt: skip
FILES = (GRAPH, WEIGHTS, CONSTANTS, EXAMPLES, ORIGINS)
STATES = "states.safetensors"  # what the states are at first, where the program says it
MAX_BYTES = {MANIFEST: 64 << 20, GRAPH: MAX_TEXT, WEIGHTS: 1 << 40, CONSTANTS: 1 << 40,
             EXAMPLES: 1 << 34, ORIGINS: 256 << 20, STATES: 1 << 40}  # fmt: skip
MAX_ORIGIN = 1000
MAX_DEPTH = 64  # of the manifest's JSON, for nested structures


@public
def save(program: Program, path: str | PathLike[str]) -> None:
    """Write the artifact; an artifact at `path` is replaced, at once, when all is written. ReeError."""
    with atomic_directory(Path(path), is_artifact) as d:
        _write(program, lambda name: open(d / name, "wb"))  # noqa: SIM115 (entered there)


def to_files(program: Program) -> dict[str, bytes]:
    """The artifact's files by name."""
    made: dict[str, io.BytesIO] = {}

    @contextmanager
    def keep(name: str) -> Iterator[BinaryIO]:
        yield made.setdefault(name, io.BytesIO())

    _write(program, keep)
    return {name: f.getvalue() for name, f in made.items()}


def _write(program: Program, create: Callable[[str], AbstractContextManager[BinaryIO]]) -> None:
    """Write the files, the manifest last. ReeError for what could not be read again."""
    g, names = program.graph, program.names
    large = {str(i): c.array() for i, c in enumerate(g.consts) if len(c.data) > MAX_INLINE}
    origins = [[x[:MAX_ORIGIN] for x in (o.name, o.target, o.location, o.code, o.module)]
               for o in (n.origin for n in g.nodes)]  # fmt: skip
    initial = [STATES] if program.initial else []
    manifest: dict[str, Any] = {
        "magic": MAGIC,
        "version": VERSION,
        "contract": g.contract,
        "program": program.program_hash.hex(),
        "weights_root": program.weights_root.hex(),
        "inputs": list(names.inputs),
        "outputs": list(names.outputs),
        "weights": list(names.weights),
        **({"states": list(names.states)} if g.states else {}),
        **({"structure": names.structure.encode()} if names.structure else {}),
        "files": {f: {"bytes": 0, "sha256": "0" * 64} for f in (*FILES, *initial)},
    }
    problem = _manifest_problem(manifest)
    if problem:
        raise ReeError(
            f"the program cannot be saved: {problem}", "give it a shorter or another name"
        )
    contents: dict[str, Callable[[BinaryIO], object]] = {
        GRAPH: lambda f: f.write(print_graph(g).encode()),
        WEIGHTS: lambda f: write_tensors_to(
            f, dict(zip(names.weights, program.weights, strict=True))
        ),
        CONSTANTS: lambda f: write_tensors_to(f, large),
        EXAMPLES: lambda f: write_tensors_to(f, program.examples),
        ORIGINS: lambda f: f.write(json.dumps(origins).encode()),
    }
    if initial:
        contents[STATES] = lambda f: write_tensors_to(
            f, dict(zip(names.states, program.initial, strict=True))
        )
    for name, write in contents.items():
        with create(name) as f:
            counted = _Hashing(f)
            write(cast(BinaryIO, counted))
        if counted.bytes > MAX_BYTES[name]:
            raise ReeError(f"the program cannot be saved: {name} has over {MAX_BYTES[name]} bytes")
        manifest["files"][name] = {"bytes": counted.bytes, "sha256": counted.digest.hexdigest()}
    with create(MANIFEST) as f:
        f.write((json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())


class _Hashing:
    """A stream that counts and hashes what goes through it."""

    def __init__(self, f: BinaryIO) -> None:
        self.f, self.bytes, self.digest = f, 0, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self.f.write(data)


def is_artifact(path: Path) -> bool:
    """Whether a directory holds an artifact and nothing else, so that replacing it loses nothing."""
    try:
        if path.is_symlink() or {p.name for p in path.iterdir()} - {MANIFEST, *FILES, STATES}:
            return False
        return f'"{MAGIC}"' in (path / MANIFEST).read_text("utf-8", "replace")
    except OSError:
        return False


@public
@clean_floats
def load(path: str | PathLike[str]) -> Program:
    """The program of an artifact; ArtifactError if anything about it is not as it must be."""
    if not isinstance(path, str | PathLike):
        raise ArtifactError(f"expected the path of an artifact, got {type(path).__name__}")
    d = Path(path)
    if not d.is_dir():
        raise ArtifactError(f"no artifact at '{d}'", "expected a directory written by ree compile")
    if not os.path.lexists(d / MANIFEST):
        raise ArtifactError(f"'{d}' is not an artifact: it has no {MANIFEST}",
                            "expected a directory written by ree compile")  # fmt: skip
    with opened_together(d, (MANIFEST, *FILES, STATES), _has_no_states) as files:

        def read(name: str, limit: int) -> bytes:
            if name not in files:
                raise ArtifactError(f"'{d / name}': expected a regular file")
            size = os.fstat(files[name].fileno()).st_size
            if size > limit:
                raise ArtifactError(f"'{d / name}': expected {limit} bytes at most, got {size}",
                                    "the file was replaced")  # fmt: skip
            try:
                return files[name].read(size + 1)  # as much as is there, whatever a manifest says
            except OSError as e:
                raise ArtifactError(f"cannot read '{d / name}': {e.strerror}") from e

        return _read(str(d), read)


def _has_no_states(files: Mapping[str, BinaryIO]) -> bool:
    """Whether the other files are there and the manifest names no file of states."""
    if any(name not in files for name in (MANIFEST, *FILES)):
        return False
    text = files[MANIFEST].read(MAX_BYTES[MANIFEST])
    files[MANIFEST].seek(0)
    return f'"{STATES}"'.encode() not in text


def from_files(files: Mapping[str, bytes]) -> Program:
    """The program of an artifact's files by name, checked as `load` does; ArtifactError."""
    where = "in memory"

    def read(name: str, limit: int) -> bytes:
        data = files.get(name) if isinstance(files, Mapping) else None
        if not isinstance(data, bytes) or len(data) > limit:
            raise ArtifactError(f"artifact {where}: {name}: expected at most {limit} bytes")
        return data

    return _read(where, read)


def _read(d: str, read: Callable[[str, int], bytes]) -> Program:
    """The program of files that `read` gives, up to so many bytes of each."""
    manifest = _manifest(d, read(MANIFEST, MAX_BYTES[MANIFEST]))
    data = {}
    for f, entry in manifest["files"].items():
        data[f] = read(f, entry["bytes"])
        if len(data[f]) != entry["bytes"]:
            raise ArtifactError(f"artifact '{d}': {f}: expected {entry['bytes']} bytes, got "
                                f"{len(data[f])}", "the file is truncated or was replaced")  # fmt: skip
        _same(d, f"sha256 of {f}", entry["sha256"], hashlib.sha256(data[f]).hexdigest())
    large = _tensors(data.pop(CONSTANTS), CONSTANTS)
    asked: set[str] = set()

    def constant(index: int, t: TensorType, digest: str) -> bytes:
        asked.add(str(index))
        x = large.get(str(index))
        if x is None or array_type(x) != t:
            raise GraphError(f"constant @c{index} is missing or not {t}")
        if hash_array(x).hex() != digest:
            raise GraphError(f"constant @c{index} does not have its digest")
        return x.tobytes()

    try:
        g = parse_graph(data[GRAPH].decode("ascii"), constant)
        legal.check(g)
    except (UnicodeDecodeError, ValueError) as e:
        raise ArtifactError(f"artifact '{d}': {e}") from e
    g = _with_origins(g, data[ORIGINS], d)
    inputs, outputs, named, states = (tuple(manifest.get(k, ()))
                                      for k in ("inputs", "outputs", "weights", "states"))  # fmt: skip
    names = Names(inputs, outputs, named, states)
    weights = _named(d, "weight", names.weights, g.weights, _tensors(data.pop(WEIGHTS), WEIGHTS))
    initial = []
    if STATES in data:
        initial = _named(d, "state", names.states, g.states, _tensors(data.pop(STATES), STATES))
    for what, have, want in (("inputs", len(names.inputs), len(g.inputs)),
                             ("outputs", len(names.outputs), len(g.outputs)),
                             ("states", len(names.states), len(g.states))):  # fmt: skip
        if have != want:
            raise ArtifactError(f"artifact '{d}': expected {want} {what} names, got {have}")
    if list(names.states) != sorted(names.states):
        raise ArtifactError(f"artifact '{d}': expected states in the order of their names")
    if "structure" in manifest:
        try:
            names.structure = Structure.decode(
                manifest["structure"], len(g.inputs), len(g.outputs) - len(g.states)
            )
        except ValueError as e:
            raise ArtifactError(f"artifact '{d}': structure: {e}") from e
    examples = _tensors(data[EXAMPLES], EXAMPLES)
    _no_more(d, EXAMPLES, examples, names.inputs)
    _no_more(d, CONSTANTS, large, asked)
    program = Program(g, names, weights, examples, initial)
    _same(d, "contract", manifest["contract"], g.contract)
    _same(d, "program hash", manifest["program"], program.program_hash.hex())
    _same(d, "weights root", manifest["weights_root"], program.weights_root.hex())
    return program


def _manifest(d: str, raw: bytes) -> dict[str, Any]:
    """The manifest, schema-checked; ArtifactError otherwise."""
    try:
        manifest = strict_json(raw, MAX_DEPTH)
    except ValueError as e:
        raise ArtifactError(f"artifact '{d}': manifest is not JSON") from e
    problem = _manifest_problem(manifest)
    if problem:
        raise ArtifactError(f"artifact '{d}': {problem}")
    return dict(manifest)


def _manifest_problem(m: Any) -> str:
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
    optional = {STATES} if m.get("states") else set()
    if not isinstance(files, dict) or set(files) - optional != set(FILES):
        return f"files: expected {', '.join(FILES)}"
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


def _same(d: str, what: str, want: str, got: str) -> None:
    if want != got:
        raise ArtifactError(
            f"artifact '{d}': {what}: expected {want[:16]}..., got {got[:16]}...",
            "the artifact was altered after it was written",
        )


def _tensors(data: bytes, name: str) -> dict[str, Array]:
    try:
        return parse_tensors(data)
    except ValueError as e:
        raise ArtifactError(f"{name}: {str(e)[:200]}") from e


def _no_more(d: str, name: str, tensors: Mapping[str, Array], wanted: Iterable[str]) -> None:
    odd = set(tensors) - set(wanted)
    if odd:
        raise ArtifactError(f"artifact '{d}': {name}: tensor {min(odd)[:200]!r} is of nothing")


def _named(
    d: str,
    what: str,
    names: Sequence[str],
    types: Sequence[TensorType],
    tensors: Mapping[str, Array],
) -> list[Array]:
    """Weights or initial states by name, in order."""
    if list(names) != sorted(names) or len(names) != len(types):
        raise ArtifactError(f"artifact '{d}': {what}s do not match the graph")
    _no_more(d, WEIGHTS if what == "weight" else STATES, tensors, names)
    out = []
    for name, t in zip(names, types, strict=True):
        x = tensors.get(name)
        if x is None:
            raise ArtifactError(f"artifact '{d}': {what} '{name}' is missing")
        have = f"{x.dtype}{list(x.shape)}"
        if x.dtype != t.dtype.numpy or x.shape != t.shape:
            raise ArtifactError(f"artifact '{d}': {what} '{name}': expected {t}, got {have}")
        if not is_canonical(x):
            raise ArtifactError(f"artifact '{d}': {what} '{name}': its bits are not canonical")
        out.append(x)
    return out


def _with_origins(g: Graph, data: bytes, d: str) -> Graph:
    """Origins are shown to people, never trusted: wrong ones cannot change a result."""
    try:
        rows = strict_json(data)
        ok = isinstance(rows, list) and len(rows) == len(g.nodes) and all(
            isinstance(r, list) and len(r) == 5 and all(isinstance(x, str) and len(x) <= 1000
                                                        for x in r) for r in rows
        )  # fmt: skip
    except ValueError:
        ok = False
    if not ok:
        raise ArtifactError(f"artifact '{d}': {ORIGINS} does not fit the graph")
    nodes = tuple(
        Node(n.op, n.sources, n.attrs, n.results, n.first, Origin(*row))
        for n, row in zip(g.nodes, rows, strict=True)
    )
    return Graph(g.symbols, g.inputs, g.weights, g.consts, nodes, g.outputs, g.contract, g.states)
