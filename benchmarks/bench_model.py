"""MiniLM, pointwise operators and start-up time against torch eager; JSON on stdout.

Both sides take turns in one process with the same number of threads; figures are medians of the
ratios of turns (time of REE / time of torch).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import torch
from turns import interleaved, ratio

import ree

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
import minilm

WANTED = {"run": 0.85, "io": "run * 1.03", "ops": 1.6}


def bench_minilm(threads: int, seconds: float) -> list[dict[str, Any]]:
    module = minilm.model()
    program = ree.compile(module, minilm.example_inputs(), minilm.dynamic_shapes())
    out = []
    for batch, tokens in ((1, 128), (32, 128)):
        ids = torch.randint(
            1000, 20000, (batch, tokens), generator=torch.Generator().manual_seed(0)
        )
        text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        torch.set_num_threads(threads)
        s = interleaved(
            {
                "torch": lambda t=text: module(**t),
                "run": lambda t=text: program.run(**t, threads=threads),
                "io": lambda t=text: program.run(**t, threads=threads, trace="io"),
                "ops": lambda t=text: program.run(**t, threads=threads, trace="ops"),
            },
            4 * seconds,
        )
        out.append({
            "case": f"MiniLM {batch}x{tokens}", "threads": threads,
            "torch_ms": round(1e3 * median(s["torch"]), 2),
            "ree_ms": round(1e3 * median(s["run"]), 2),
            **{k: ratio(s[k], s["torch"]) for k in ("run", "io", "ops")},
            "io_over_run": ratio(s["io"], s["run"]),
        })  # fmt: skip
    return out


def bench_pointwise(threads: int, seconds: float) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    out = []
    for name, f in (("exp", torch.exp), ("gelu", torch.nn.functional.gelu), ("tanh", torch.tanh)):

        class Module(torch.nn.Module):
            def forward(self, x: torch.Tensor, f: Any = f) -> torch.Tensor:
                return f(x)

        for shape in ((32, 128, 1536), (64, 1536)):
            x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            program = ree.compile(Module(), (x,))
            s = interleaved(
                {"torch": lambda x=x, f=f: f(x),
                 "ree": lambda x=x, p=program: p.run(x, threads=threads)}, seconds)  # fmt: skip
            out.append({"case": f"{name} {shape}", "threads": threads,
                        "time_ratio": ratio(s["ree"], s["torch"]),
                        "ree_us": round(1e6 * median(s["ree"]), 1)})  # fmt: skip
    return out


def bench_start(rounds: int = 3) -> dict[str, float]:
    """Seconds to compile, and to load an artifact and run it once, in this process."""
    begin = time.perf_counter()
    program = ree.compile(minilm.model(), minilm.example_inputs(), minilm.dynamic_shapes())
    compiled = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as d:
        program.save(f"{d}/m.ree")
        times = []
        for _ in range(rounds):
            begin = time.perf_counter()
            loaded = ree.load(f"{d}/m.ree")
            loaded.run(**loaded.examples)
            times.append(time.perf_counter() - begin)
    return {"load_model_and_compile_s": round(compiled, 2),
            "load_and_first_run_s": round(times[0], 2),
            "again_with_code_compiled_s": round(min(times[1:]), 2)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=4, help="per case")
    args = parser.parse_args()
    with torch.no_grad():
        data: dict[str, Any] = {
            "start": bench_start(),
            "wanted": WANTED,
            "minilm": [],
            "pointwise": [],
        }
        for t in args.threads:
            data["minilm"] += bench_minilm(t, args.seconds)
            data["pointwise"] += bench_pointwise(t, args.seconds)
    print(json.dumps(data, indent=1))


if __name__ == "__main__":
    main()
