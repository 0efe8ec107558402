"""A model's text read in calls of 128 and token by token: the same bytes of logits and caches.

    python benchmarks/chunks.py [MODEL.gguf | ART.ree] [--tokens 700] [--work DIR]

By default Gemma-3-270M, of its packages. The logits of every position and all caches are compared by
SHA-256; exit 1 if they differ. Writes benchmarks/results/chunks.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from run import cpu_name

from ree import _core
from ree.generation.engine import Engine
from ree.generation.layout import CHUNK
from ree.generation.model import LanguageModel, compile_model
from ree.generation.models import gemma3_path

RESULTS = Path(__file__).parent / "results" / "chunks.json"


def read(model: LanguageModel, tokens: list[int], width: int, threads: int) -> tuple[str, str]:
    """SHA-256 of the logits of all positions and of the caches, read in calls of `width`."""
    engine, logits = Engine(model.forward, positions=len(tokens), threads=threads), hashlib.sha256()
    for start in range(0, len(tokens), width):
        n = min(width, len(tokens) - start)
        given = np.zeros((1, width), np.int64)
        given[0, :n] = tokens[start : start + n]
        at = np.arange(start, start + width, dtype=np.int64)[None]
        out = engine.call(0, given, at, at - start, np.array([start + n], np.int64))
        logits.update(np.ascontiguousarray(out[0, :n]))
        if start % CHUNK == 0:
            print(f"calls of {width}: {start} of {len(tokens)}", file=sys.stderr)
    caches = hashlib.sha256()
    for c in engine.caches:
        caches.update(np.ascontiguousarray(c[0, : len(tokens)]))
    return logits.hexdigest(), caches.hexdigest()


def compare(model: LanguageModel, n: int, threads: int) -> dict[str, Any]:
    tokens = np.random.default_rng(0).integers(0, model.forward.vocabulary, n).tolist()
    whole, alone = (read(model, tokens, width, threads) for width in (CHUNK, 1))
    return {"model": model.settings.name, "program": model.program.program_hash.hex(),
            "weights": model.program.weights_root.hex(), "cpu": cpu_name(), "isa": _core.isa_names()[0],
            "threads": threads, "tokens": n, "same": whole == alone,
            "calls_of_128": dict(zip(("logits", "caches"), whole, strict=True)),
            "token_by_token": dict(zip(("logits", "caches"), alone, strict=True))}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--tokens", type=int, default=700)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ree-chunks-") as d:
        path = args.model or gemma3_path(args.work or Path(d))
        model = LanguageModel.load(path) if path.is_dir() else LanguageModel(compile_model(path))
        out = compare(model, args.tokens, args.threads)
    RESULTS.write_text(json.dumps(out, indent=1) + "\n")
    print(json.dumps(out, indent=1))
    return 0 if out["same"] else 1


if __name__ == "__main__":
    sys.exit(main())
