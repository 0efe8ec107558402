"""Reading artifacts without trust."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from ree.artifact.format import (
    BESIDE,
    CONSTANTS,
    EXAMPLES,
    FILES,
    GRAPH,
    MANIFEST,
    MAX_BYTES,
    MAX_DEPTH,
    ORIGINS,
    STATES,
    WEIGHTS,
    manifest_problem,
)
from ree.compiler import legal
from ree.compiler.frontend.structure import Structure
from ree.compiler.ir import Graph, Node, Origin
from ree.compiler.text import GraphError, parse_graph
from ree.errors import ArtifactError
from ree.files.atomic import opened_together
from ree.files.safetensors import array_type, parse_tensors
from ree.kernels.canonical import is_canonical
from ree.kernels.opdef import Array
from ree.kernels.types import TensorType
from ree.result import Names
from ree.runtime.hashing import hash_array
from ree.traces.strict_json import strict_json

OPTIONAL = (STATES, *BESIDE)


@dataclass(frozen=True)
class ArtifactContents:
    """What an artifact holds, checked but for the weights root, which whoever makes a program of it compares
    (`check_weights`)."""

    where: str
    graph: Graph
    names: Names
    weights: Sequence[Array]
    examples: Mapping[str, Array]
    initial: Sequence[Array]
    files: Mapping[str, bytes]  # beside the program, by name
    weights_root: str  # that the manifest gives

    def check_weights(self, root: bytes) -> None:
        """ArtifactError unless `root` is that of the weights as they were written."""
        _same(self.where, "weights root", self.weights_root, root.hex())


def read_directory(path: str | PathLike[str]) -> ArtifactContents:
    """What the artifact `path` holds; ArtifactError if anything about it is not as it must be."""
    if not isinstance(path, str | PathLike):
        raise ArtifactError(f"expected the path of an artifact, got {type(path).__name__}")
    d = Path(path)
    if not d.is_dir():
        raise ArtifactError(f"no artifact at '{d}'", "expected a directory written by ree compile")
    with opened_together(d, (MANIFEST, *FILES, *OPTIONAL), _has_all) as files:
        # asked of the directory that was opened: its name may lead to another one by now
        if MANIFEST not in files and not os.path.lexists(d / MANIFEST):
            raise ArtifactError(f"'{d}' is not an artifact: it has no {MANIFEST}",
                                "expected a directory written by ree compile")  # fmt: skip

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


def _has_all(files: Mapping[str, BinaryIO]) -> bool:
    """Whether all files are there that the manifest names."""
    if any(name not in files for name in (MANIFEST, *FILES)):
        return False
    text = files[MANIFEST].read(MAX_BYTES[MANIFEST])
    files[MANIFEST].seek(0)
    return all(name in files or f'"{name}"'.encode() not in text for name in OPTIONAL)


def read_files(files: Mapping[str, bytes]) -> ArtifactContents:
    """As `read_directory`, of files by name."""
    where = "in memory"

    def read(name: str, limit: int) -> bytes:
        data = files.get(name) if isinstance(files, Mapping) else None
        if not isinstance(data, bytes) or len(data) > limit:
            raise ArtifactError(f"artifact {where}: {name}: expected at most {limit} bytes")
        return data

    return _read(where, read)


def _read(d: str, read: Callable[[str, int], bytes]) -> ArtifactContents:
    """What is in files that `read` gives, up to so many bytes of each."""
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
    _same(d, "contract", manifest["contract"], g.contract)
    _same(d, "program hash", manifest["program"], g.program_hash().hex())
    beside = {f: data[f] for f in BESIDE if f in data}
    return ArtifactContents(
        d, g, names, weights, examples, initial, beside, manifest["weights_root"]
    )


def _manifest(d: str, raw: bytes) -> dict[str, Any]:
    """The manifest, schema-checked; ArtifactError otherwise."""
    try:
        manifest = strict_json(raw, MAX_DEPTH)
    except ValueError as e:
        raise ArtifactError(f"artifact '{d}': manifest is not JSON") from e
    problem = manifest_problem(manifest)
    if problem:
        raise ArtifactError(f"artifact '{d}': {problem}")
    return dict(manifest)


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
