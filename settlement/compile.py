"""Compiling the contracts of this package; needs the extra `settlement`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

CONTRACTS = Path(__file__).resolve().parent / "contracts"
Edit = tuple[str, str]


@dataclass(frozen=True)
class Compiled:
    """A contract ready to deploy: its interface and its creation and runtime code."""

    abi: tuple[Mapping[str, Any], ...]
    creation: bytes
    runtime: bytes


def compile_contract(path: str, *, venom: bool = False) -> Compiled:
    """The contract at `path` under settlement/contracts, compiled once a process.

    venom: by Vyper's other code generator. ImportError without Vyper.
    """
    return _compiled(path, venom)


@lru_cache(maxsize=32)
def _compiled(path: str, venom: bool) -> Compiled:
    return _compile(CONTRACTS, path, venom)


def compile_edited(path: str, file: str, edit: Edit) -> Compiled:
    """As `compile_contract`, with one text of `file` replaced: a planted fault.

    ValueError unless the text stands there exactly once.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "contracts"
        shutil.copytree(CONTRACTS, root)
        text = (root / file).read_text()
        if text.count(edit[0]) != 1:
            raise ValueError(f"{file}: expected '{edit[0]}' once, got {text.count(edit[0])}")
        (root / file).write_text(text.replace(*edit))
        return _compile(root, path, venom=False)


def _compile(root: Path, path: str, venom: bool) -> Compiled:
    from vyper.cli.vyper_compile import compile_files
    from vyper.compiler.settings import Settings

    formats = ["abi", "bytecode", "bytecode_runtime"]
    settings = Settings(experimental_codegen=venom)
    (out,) = compile_files([root / path], formats, paths=[str(root)], settings=settings).values()
    creation, runtime = (bytes.fromhex(out[f].removeprefix("0x")) for f in formats[1:])
    return Compiled(tuple(out["abi"]), creation, runtime)
