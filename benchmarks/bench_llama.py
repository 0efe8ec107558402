"""Generation against llama.cpp with the same weights: interleaved in one run.

    python benchmarks/bench_llama.py LIBRARIES MODEL.gguf [--weights TYPE] [--work DIR] [--threads 2]

LIBRARIES: the folder of llama.cpp's shared libraries. Its quantiser writes the GGUF file with weights of one
type (f32, f16, bf16, q8_0; into DIR, where it is found again), `ree compile` the artifact of that; w8a8 is ours
by `ree quantise` beside theirs as q8_0. First llama.cpp's best settings are looked for, then the sides take
turns: decoding one text behind 256 and 2,048 positions; reading 256 tokens, ours with the logits of all (read)
or of a chunk's last one (read_last), theirs with those of the last. The last logits must agree. Writes
benchmarks/results/llama.json, or llama_TYPE.json (--quick: prints alone). Exit 2 where something is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import WEIGHT_TYPES, Missing, Setting, Side, write_gguf
from run import cpu_name

import ree
from ree import _core
from ree.generation.engine import Engine
from ree.generation.layout import CHUNK
from ree.generation.model import LanguageModel, compile_model
from ree.quantisation import quantise

RESULTS = Path(__file__).parent / "results"
CONTEXTS = (256, 2048)
PROMPT = 256
TOKENS = 16  # of a turn
PAUSE = 0.2  # seconds between turns: the threads of either side come to rest
AGREE = {
    "f32": 2e-2,
    "f16": 3e-2,
    "bf16": 3e-2,
    "q8_0": 0.15,
    "w8a8": 0.3,
}  # of the greatest logit: theirs round activations
W8A8 = "w8a8"  # ours with activations in bytes too, beside theirs as q8_0, which rounds them by 32
VARIANTS = ("skylakex", "haswell")  # beside the one that llama.cpp takes


class Ours:
    """REE as a side: one slot."""

    def __init__(self, path: Path, threads: int) -> None:
        self.model = LanguageModel.load(path)
        forward = self.model.forward
        self.vocabulary = forward.vocabulary
        self.engine = Engine(forward, positions=CONTEXTS[-1] + TOKENS, threads=threads)
        self.short = Engine(forward, positions=PROMPT, threads=threads)

    def fill(self, tokens: list[int]) -> Any:
        return self.engine.read(0, tokens, 0)

    def decode(self, position: int, tokens: list[int]) -> float:
        """Seconds a token."""
        begin = time.perf_counter()
        for i, t in enumerate(tokens):
            self.engine.read(0, [t], position + i)
        return (time.perf_counter() - begin) / len(tokens)

    def memory(self) -> dict[str, int]:
        """Megabytes: resident, and of that what cannot be less: weights once, caches at their capacity."""
        lines = Path("/proc/self/status").read_text().splitlines()
        resident = next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmRSS"))
        weights = sum(math.prod(t.dims) * t.dtype.size for t in self.model.program.graph.weights)
        caches = sum(c.nbytes for e in (self.engine, self.short) for c in e.caches)
        return {
            k: x >> 20
            for k, x in (("resident", resident), ("weights", weights), ("caches", caches))
        }

    def read(self, tokens: list[int], all_logits: bool) -> float:
        """Seconds to take in tokens, with the logits of every one or of the last of a chunk."""
        begin = time.perf_counter()
        for start in range(0, len(tokens), CHUNK):
            at = np.arange(start, start + CHUNK, dtype=np.int64)[None]
            given = np.array([tokens[start : start + CHUNK]], np.int64)
            rows = (at if all_logits else at[:, -1:]) - start
            self.short.call(0, given, at, rows, np.array([start + CHUNK], np.int64))
        return time.perf_counter() - begin


def candidates(threads: int, quick: bool) -> Iterator[Setting]:
    for flash in (True, False):
        for cache in ("f16", "f32"):
            if not quick or cache == "f16":
                yield Setting(threads, flash, cache)
    if quick:
        return
    if threads > 1:
        yield Setting(1, True)
    yield Setting(threads, True, whole_window=True)
    for variant in VARIANTS:
        yield Setting(threads, True, variant=variant)


def tried(
    folder: Path, path: Path, setting: Setting, texts: dict[int, list[int]]
) -> dict[str, float]:
    """Seconds of each figure with a setting: the best of two."""
    side = Side(folder, path, setting)
    out = {"read": min(side.ask("read", texts[PROMPT]) for _ in range(2))}
    for n in CONTEXTS:
        side.ask("fill", texts[n])
        out[f"decode_{n}"] = min(side.ask("decode", n, texts[n][:TOKENS]) for _ in range(2))
    side.close()
    return out


def in_turns(turns: int, sides: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns + 1):  # the first one warms up
        for name, call in sides.items():
            time.sleep(PAUSE)
            t = call()
            if turn:
                times[name].append(t)
    return times


def figures(times: dict[str, list[float]], tokens: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, ts in times.items():
        out[name] = {"best_tokens_per_s": round(tokens / min(ts), 2),
                     "median_tokens_per_s": round(tokens / statistics.median(ts), 2)}  # fmt: skip
    out["ours_over_theirs"] = {
        k: round(out["ours"][f"{k}_tokens_per_s"] / out["theirs"][f"{k}_tokens_per_s"], 3)
        for k in ("best", "median")
    }
    return out


def agreement(ours: Any, theirs: Any, most: float) -> float:
    """The greatest difference of two rows of logits, by the greatest logit; Missing for another model's."""
    difference = float(np.abs(ours - theirs).max() / np.abs(ours).max())
    if not difference <= most:
        raise Missing(f"the logits differ by {difference:.3g}: not the same model")
    return difference


def compare(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    theirs = "q8_0" if args.weights == W8A8 else args.weights
    file = work / f"{args.gguf.stem}.{theirs}.gguf"
    if not file.exists():
        write_gguf(args.libraries, args.gguf, file, theirs)
    artifact = work / f"{args.gguf.stem}.{args.weights}.ree"
    if not artifact.exists():
        program = compile_model(file)
        (quantise(program).program if args.weights == W8A8 else program).save(artifact)
    ours = Ours(artifact, args.threads)
    rng = np.random.default_rng(0)
    texts = {n: rng.integers(0, ours.vocabulary, n).tolist() for n in CONTEXTS}
    settings = []
    for s in candidates(args.threads, args.quick):
        settings.append((s, tried(args.libraries, file, s, texts)))
        say(f"{s}: {', '.join(f'{k} {1e3 * t:.1f} ms' for k, t in settings[-1][1].items())}")
    with args.gguf.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    ours.fill(texts[CONTEXTS[-1]])
    out: dict[str, Any] = {
        "model": args.gguf.name, "sha256": digest, "weights": args.weights, "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "isa": _core.isa_names()[0], "threads": args.threads, "ree": ree.__version__,
        "ours_memory_mb": ours.memory(),
        "settings": [{"setting": str(s), **{f"{k}_ms": round(1e3 * t, 2) for k, t in ts.items()}}
                     for s, ts in settings],
    }  # fmt: skip
    for figure in ("read", "read_last", *(f"decode_{n}" for n in CONTEXTS)):
        theirs = figure.removesuffix("_last")
        best = min(settings, key=lambda st: st[1][theirs])[0]
        side = Side(args.libraries, file, best)
        out["llama_cpp"], out["llama_cpp_system"] = side.version, side.system
        n = PROMPT if theirs == "read" else int(figure.removeprefix("decode_"))
        text, more = texts[n], texts[n][:TOKENS]
        apart = agreement(ours.fill(text), side.ask("fill", text), AGREE[args.weights])
        mine = partial(ours.decode, n, more)
        if theirs == "read":
            mine = partial(ours.read, text, figure == "read")
        asked = ("read", text) if theirs == "read" else ("decode", n, more)
        sides = {"ours": mine, "theirs": partial(side.ask, *asked)}
        found = figures(in_turns(args.turns, sides), PROMPT if theirs == "read" else 1)
        out[figure] = found | {"their_setting": str(best), "logits_differ": float(f"{apart:.2g}")}
        say(f"{figure}: {out[figure]}")
        side.close()
    return out


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", type=Path)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--weights", choices=(*WEIGHT_TYPES, W8A8), default="f32")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    try:
        if not args.gguf.is_file():
            raise Missing(f"no file '{args.gguf}'")
        if args.work is not None:
            args.work.mkdir(parents=True, exist_ok=True)
            out = compare(args, args.work)
        else:
            with tempfile.TemporaryDirectory(prefix="ree-llama-") as d:
                out = compare(args, Path(d))
    except Missing as e:
        say(f"error: {e}")
        return 2
    if not args.quick:
        name = "llama" if args.weights == "f32" else f"llama_{args.weights}"
        (RESULTS / f"{name}.json").write_text(json.dumps(out, indent=1) + "\n")
    print(json.dumps(out, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
