"""Artifacts: a program on disk.

    X.ree/manifest.json          versions, names, digests of the other files
    X.ree/graph.txt              the canonical graph; its SHA-256 is the program's identity
    X.ree/weights.safetensors    weights by name, and large constants
    X.ree/examples.safetensors   example inputs
    X.ree/origins.json           per node: source line and module (beside the identity)

Nothing in an artifact is executed. Loading checks, in this order: the manifest's schema; that the
files are exactly those listed, of the stated sizes; their digests; the graph's grammar and legality;
that weights have the graph's types; the program hash and the weights root.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save_file

from ree.compiler import legal
from ree.compiler.ir import Graph, Node, Origin
from ree.compiler.text import MAX_INLINE, MAX_TEXT, GraphError, parse_graph, print_graph
from ree.errors import ArtifactError
from ree.files import atomic_directory
from ree.kernels.opdef import Array
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program, hash_array
from ree.traces.strict_json import strict_json

MAGIC = "ree.artifact"
VERSION = 1
MANIFEST = "manifest.json"
GRAPH, WEIGHTS, EXAMPLES, ORIGINS = (
    "graph.txt", "weights.safetensors", "examples.safetensors", "origins.json",
)  # fmt: skip
FILES = (GRAPH, WEIGHTS, EXAMPLES, ORIGINS)
MAX_BYTES = {MANIFEST: 16 << 20, GRAPH: MAX_TEXT, WEIGHTS: 1 << 40, EXAMPLES: 1 << 34,
             ORIGINS: 256 << 20}  # fmt: skip
MAX_NAME = 500
CONST_PREFIX = "const."


def save(program: Program, path: str | Path) -> None:
    """Write the artifact; an existing artifact at `path` is replaced only when all is written."""
    path = Path(path)
    g = program.graph
    tensors = dict(zip(program.names.weights, program.weights, strict=True))
    for i, c in enumerate(g.consts):
        if len(c.data) > MAX_INLINE:
            tensors[f"{CONST_PREFIX}{i}"] = c.array()
    origins = [[n.origin.name, n.origin.target, n.origin.location, n.origin.code, n.origin.module]
               for n in g.nodes]  # fmt: skip
    with atomic_directory(path) as d:
        (d / GRAPH).write_text(print_graph(g))
        # safetensors cannot write to a full disk without an error of its own
        try:
            save_file(tensors or {"_": np.zeros(0, np.float32)}, d / WEIGHTS)
            save_file(dict(program.examples) or {"_": np.zeros(0, np.float32)}, d / EXAMPLES)
        except SafetensorError as e:
            raise OSError(0, str(e)) from e
        (d / ORIGINS).write_text(json.dumps(origins))
        manifest = {
            "magic": MAGIC,
            "version": VERSION,
            "contract": g.contract,
            "program": program.program_hash.hex(),
            "weights_root": program.weights_root.hex(),
            "inputs": list(program.names.inputs),
            "outputs": list(program.names.outputs),
            "weights": list(program.names.weights),
            **({"states": list(program.names.states)} if g.states else {}),
            "files": {f: {"bytes": (d / f).stat().st_size, "sha256": _digest(d / f)}
                      for f in FILES},
        }  # fmt: skip
        (d / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def load(path: str | Path) -> Program:
    """The program of an artifact; ArtifactError if anything about it is not as it must be."""
    d = Path(path)
    manifest = read_manifest(d)
    data = {f: _read(d, f, manifest["files"][f]) for f in FILES}
    tensors = _tensors(data[WEIGHTS], WEIGHTS)

    def constant(index: int, t: TensorType, digest: str) -> bytes:
        x = tensors.get(f"{CONST_PREFIX}{index}")
        if x is None or TensorType(DType.of(x.dtype), x.shape) != t:
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
    names = Names(*(tuple(manifest.get(k, ())) for k in ("inputs", "outputs", "weights", "states")))
    weights = _weights(g, names, tensors, d)
    for what, have, want in (("inputs", len(names.inputs), len(g.inputs)),
                             ("outputs", len(names.outputs), len(g.outputs)),
                             ("states", len(names.states), len(g.states))):  # fmt: skip
        if have != want:
            raise ArtifactError(f"artifact '{d}': expected {want} {what} names, got {have}")
    examples = {k: v for k, v in _tensors(data[EXAMPLES], EXAMPLES).items() if k in names.inputs}
    program = Program(g, names, weights, examples)
    _same(d, "program hash", manifest["program"], program.program_hash.hex())
    _same(d, "weights root", manifest["weights_root"], program.weights_root.hex())
    return program


def read_manifest(d: Path) -> dict[str, Any]:
    """The manifest, schema-checked; ArtifactError otherwise."""
    if not d.is_dir():
        raise ArtifactError(f"no artifact at '{d}'", "expected a directory written by ree compile")
    try:
        raw = _bounded(d / MANIFEST, MAX_BYTES[MANIFEST])
        manifest = strict_json(raw)
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
        return f"version: expected {VERSION}, got {str(m.get('version'))[:20]}"
    keys = {"magic", "version", "contract", "program", "weights_root", "inputs", "outputs",
            "weights", "files"}  # fmt: skip
    if set(m) - {"states"} != keys:
        return f"manifest keys: expected {sorted(keys)}"
    for k in ("program", "weights_root"):
        if not _is_digest(m[k]):
            return f"{k}: expected 64 hexadecimal digits"
    for k in ("inputs", "outputs", "weights", "states"):
        names = m.get(k, [])
        if not isinstance(names, list) or not all(
            isinstance(n, str) and 0 < len(n) <= MAX_NAME for n in names
        ):
            return f"{k}: expected a list of names"
        if len(set(names)) != len(names):
            return f"{k}: a name stands twice"
    files = m["files"]
    if not isinstance(files, dict) or set(files) != set(FILES):
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


def _bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file no larger than limit; a link is refused, since it can lead out
    of the artifact."""
    if path.is_symlink() or not path.is_file():
        raise ArtifactError(f"'{path}': expected a regular file")
    try:
        size = path.stat().st_size
        if size > limit:
            raise ArtifactError(f"'{path}': expected at most {limit} bytes, got {size}")
        return path.read_bytes()
    except OSError as e:
        raise ArtifactError(f"cannot read '{path}': {e.strerror}") from e


def _read(d: Path, name: str, entry: dict[str, Any]) -> bytes:
    path = d / name
    if not path.is_symlink() and path.is_file() and path.stat().st_size != entry["bytes"]:
        raise ArtifactError(
            f"'{path}': expected {entry['bytes']} bytes, got {path.stat().st_size}",
            "the file is truncated or was replaced",
        )
    data = _bounded(path, entry["bytes"])
    _same(d, f"sha256 of {name}", entry["sha256"], hashlib.sha256(data).hexdigest())
    return data


def _same(d: Path, what: str, want: str, got: str) -> None:
    if want != got:
        raise ArtifactError(
            f"artifact '{d}': {what}: expected {want[:16]}..., got {got[:16]}...",
            "the artifact was altered after it was written",
        )


def _digest(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _tensors(data: bytes, name: str) -> dict[str, Array]:
    try:
        return dict(load_safetensors(data))
    except (SafetensorError, ValueError, KeyError, TypeError) as e:
        raise ArtifactError(f"{name}: {str(e)[:200]}") from e


def _weights(g: Graph, names: Names, tensors: dict[str, Array], d: Path) -> list[Array]:
    if list(names.weights) != sorted(names.weights) or len(names.weights) != len(g.weights):
        raise ArtifactError(f"artifact '{d}': weights do not match the graph")
    out = []
    for name, t in zip(names.weights, g.weights, strict=True):
        x = tensors.get(name)
        if x is None:
            raise ArtifactError(f"artifact '{d}': weight '{name}' is missing")
        have = f"{x.dtype}{list(x.shape)}"
        if x.dtype != t.dtype.numpy or x.shape != t.shape:
            raise ArtifactError(f"artifact '{d}': weight '{name}': expected {t}, got {have}")
        if t.dtype is DType.F32:
            bits = x.view(np.uint32)
            if ((bits & 0x7FFFFFFF) > 0x7F800000).any() and (
                bits[(bits & 0x7FFFFFFF) > 0x7F800000] != 0x7FC00000
            ).any():
                raise ArtifactError(f"artifact '{d}': weight '{name}': NaN is not canonical")
        out.append(x)
    return out


def _with_origins(g: Graph, data: bytes, d: Path) -> Graph:
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
