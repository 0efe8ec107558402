"""Writing artifacts."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from os import W_OK, X_OK, PathLike, access
from pathlib import Path
from typing import Any, BinaryIO, cast

from ree.artifact.format import (
    BESIDE,
    CONSTANTS,
    EXAMPLES,
    FILES,
    GRAPH,
    MAGIC,
    MANIFEST,
    MAX_BYTES,
    MAX_ORIGIN,
    ORIGINS,
    STATES,
    VERSION,
    WEIGHTS,
    Contents,
    manifest_problem,
)
from ree.compiler.text import MAX_INLINE, print_graph
from ree.errors import ReeError, public
from ree.files.atomic import atomic_directory, check_replaceable
from ree.files.safetensors import write_tensors_to


def check_place(path: str | PathLike[str]) -> None:
    """ReeError if no artifact can be written at `path`, as far as that can be said before."""
    target = check_replaceable(Path(path), is_artifact, "an artifact")
    folder = next(p for p in target.absolute().parents if p.exists())
    if not folder.is_dir() or not access(folder, W_OK | X_OK):
        raise ReeError(f"cannot write '{path}': '{folder}' is not a folder that can be written to")


@public
def save(program: Contents, path: str | PathLike[str]) -> None:
    """Write the artifact; an artifact at `path` is replaced, at once, when all is written. ReeError."""
    with atomic_directory(Path(path), is_artifact) as d:
        _write(program, lambda name: open(d / name, "wb"))  # noqa: SIM115 (entered there)


def to_files(program: Contents) -> dict[str, bytes]:
    """The artifact's files by name."""
    made: dict[str, io.BytesIO] = {}

    @contextmanager
    def keep(name: str) -> Iterator[BinaryIO]:
        yield made.setdefault(name, io.BytesIO())

    _write(program, keep)
    return {name: f.getvalue() for name, f in made.items()}


def _write(program: Contents, create: Callable[[str], AbstractContextManager[BinaryIO]]) -> None:
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
        "files": {f: {"bytes": 0, "sha256": "0" * 64} for f in (*FILES, *initial, *program.files)},
    }
    problem = manifest_problem(manifest)
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
    for name, data in program.files.items():
        contents[name] = lambda f, data=data: f.write(data)  # type: ignore[misc]
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
        if path.is_symlink() or {p.name for p in path.iterdir()} - {
            MANIFEST,
            *FILES,
            STATES,
            *BESIDE,
        }:
            return False
        return f'"{MAGIC}"' in (path / MANIFEST).read_text("utf-8", "replace")
    except OSError:
        return False
