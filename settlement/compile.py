"""Compiling the contracts of this package; needs the extra `settlement`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

CONTRACTS = Path(__file__).resolve().parent / "contracts"
Edit = tuple[str, str]
# what a dispute needs, the slowest to compile first
DEPLOYED = (
    "elements.vy",
    "operation_decoder.vy",
    "referee.vy",
    "proofs.vy",
    "court.vy",
    "arithmetic.vy",
    "testing/token.vy",
)


@dataclass(frozen=True)
class Compiled:
    """A contract ready to deploy: its interface and its creation and runtime code."""

    abi: tuple[Mapping[str, Any], ...]
    creation: bytes
    runtime: bytes


def source(path: str, root: Path = CONTRACTS) -> Path:
    """A file of the contracts: by its path below them, or by its name alone, which stands there once."""
    if (root / path).exists():
        return root / path
    (found,) = root.rglob(path)
    return found


def compile_contract(path: str, *, venom: bool = False) -> Compiled:
    """The contract that `source` finds, compiled once a process.

    venom: by Vyper's other code generator. ImportError without Vyper.
    """
    return _compiled(path, venom)


def compile_ahead(paths: Sequence[str] = DEPLOYED) -> None:
    """Bring contracts into the cache on disk, each in a process of its own, as many at once as there are
    processors. What fails here fails again, with its reason, when it is needed."""
    missing = [p for p in paths if not (_cache() / f"{_sources(p, False)}.json").exists()]
    if len(missing) < 2:
        return
    call = (sys.executable, "-P", "-m", "ree.settlement.compile")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda p: subprocess.run([*call, p], capture_output=True), missing))


@lru_cache(maxsize=32)
def _compiled(path: str, venom: bool) -> Compiled:
    """From the cache on disk, if these sources were compiled before: the large ones take seconds each."""
    cached = _cache() / f"{_sources(path, venom)}.json"
    try:
        kept = json.loads(cached.read_bytes())
        return Compiled(
            tuple(kept["abi"]), *(bytes.fromhex(kept[k]) for k in ("creation", "runtime"))
        )
    except (OSError, ValueError, KeyError, TypeError):
        made = _compile(CONTRACTS, path, venom)
    kept = {"abi": made.abi, "creation": made.creation.hex(), "runtime": made.runtime.hex()}
    with suppress(OSError):  # a cache that cannot be written is none
        cached.parent.mkdir(parents=True, exist_ok=True)
        part = cached.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(kept))
        part.replace(cached)
    return made


def _cache() -> Path:
    """Where compiled contracts are kept between processes."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ree" / "contracts"


def _sources(path: str, venom: bool) -> str:
    """What a compiled contract depends on, as one digest."""
    parts = [version("vyper").encode(), path.encode(), bytes([venom])]
    for file in sorted(CONTRACTS.rglob("*.vy*")):
        parts += [file.relative_to(CONTRACTS).as_posix().encode(), file.read_bytes()]
    framed = b"".join(len(p).to_bytes(8, "big") + p for p in parts)
    return hashlib.sha256(framed).hexdigest()


def compile_edited(path: str, file: str, edit: Edit) -> Compiled:
    """As `compile_contract`, with one text of `file` replaced: a planted fault.

    ValueError unless the text stands there exactly once.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "contracts"
        shutil.copytree(CONTRACTS, root)
        edited = source(file, root)
        text = edited.read_text()
        if text.count(edit[0]) != 1:
            raise ValueError(f"{file}: expected '{edit[0]}' once, got {text.count(edit[0])}")
        edited.write_text(text.replace(*edit))
        return _compile(root, path, venom=False)


def _compile(root: Path, path: str, venom: bool) -> Compiled:
    from vyper.cli.vyper_compile import compile_files
    from vyper.compiler.settings import Settings

    formats = ["abi", "bytecode", "bytecode_runtime"]
    settings = Settings(experimental_codegen=venom)
    (out,) = compile_files(
        [source(path, root)], formats, paths=[str(root)], settings=settings
    ).values()
    creation, runtime = (bytes.fromhex(out[f].removeprefix("0x")) for f in formats[1:])
    return Compiled(tuple(out["abi"]), creation, runtime)


if __name__ == "__main__":  # all of them, or those named
    for named in sys.argv[1:]:
        compile_contract(named)
    if not sys.argv[1:]:
        compile_ahead()
