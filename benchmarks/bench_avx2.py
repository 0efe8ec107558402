"""AVX2 contraction against MKL held to AVX2: ratios interleaved in one run, medians over rounds.

    python benchmarks/bench_avx2.py [--threads 1 2] [--rounds 11] [--shape MxKxN ...]

torch.mm runs in processes of its own, once as MKL comes with an AVX2 code path
(MKL_ENABLE_INSTRUCTIONS=AVX2) and once with MKL's reproducible mode as well (MKL_CBWR=AVX2,STRICT).
Ours is kernel `gemm` for avx2, weights packed beforehand, as a program's are. A ratio is torch's time
over ours; writes benchmarks/results/cpu_avx2.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from bench_contraction import aligned, ours
from run import cpu_name
from turns import TURN, ratio, timed

from ree import _core

SHAPES = ("1536x1536x1536", "128x384x1536", "128x1536x384", "4096x384x1536", "4096x384x384")
MODES = {
    "mkl_avx2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "mkl_avx2_strict": {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "MKL_CBWR": "AVX2,STRICT"},
}


def operands(shape: str) -> tuple[np.ndarray, np.ndarray]:
    m, k, n = map(int, shape.split("x"))
    rng = np.random.default_rng(0)
    a, b = aligned(m, k), aligned(k, n)
    a[:], b[:] = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    return a, b


def clock_for(threads: int) -> Callable[[], float]:
    """The time of the thread, if it is one: other programs may take turns with it."""
    return time.thread_time if threads == 1 else time.perf_counter


def serve() -> None:
    """Answer every line `shape threads repeat` with the seconds of one torch.mm."""
    known = {}
    for line in sys.stdin:
        shape, threads, repeat = line.split()
        torch.set_num_threads(int(threads))
        if shape not in known:
            a, b = operands(shape)
            out = aligned(a.shape[0], b.shape[1])
            known[shape] = [torch.from_numpy(x) for x in (a, b, out)]
        x, w, out_ = known[shape]
        print(timed(lambda x=x, w=w, o=out_: torch.mm(x, w, out=o), int(repeat),  # type: ignore[misc]
                      clock_for(int(threads))), flush=True)  # fmt: skip


class Reference:
    def __init__(self, settings: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, **settings},
        )  # fmt: skip

    def seconds(self, shape: str, threads: int, repeat: int) -> float:
        assert self.process.stdin
        assert self.process.stdout
        print(shape, threads, repeat, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def measure(
    shape: str, threads: int, rounds: int, references: dict[str, Reference]
) -> dict[str, object]:
    a, b = operands(shape)
    run = ours("avx2", _core.Pool(threads), a, b)
    clock = clock_for(threads)
    repeat = 1 + int(TURN / max(min(timed(run, 2, clock) for _ in range(3)), 1e-7))
    for reference in references.values():
        reference.seconds(shape, threads, 2)
    times: dict[str, list[float]] = {"ree": [], **{mode: [] for mode in references}}
    for _ in range(rounds):
        for mode, reference in references.items():
            times[mode].append(reference.seconds(shape, threads, repeat))
        times["ree"].append(timed(run, repeat, clock))
    flops = 2 * a.shape[0] * a.shape[1] * b.shape[1]
    row: dict[str, object] = {"shape": shape, "threads": threads}
    for mode in references:
        row[f"ratio_{mode}"] = ratio(times[mode], times["ree"])
    for mode, t in times.items():
        row[f"gflops_{mode}"] = round(flops / statistics.median(t) / 1e9, 1)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--shape", nargs="+", default=list(SHAPES))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return
    references = {mode: Reference(settings) for mode, settings in MODES.items()}
    rows = []
    for threads in args.threads:
        for shape in args.shape:
            rows.append(measure(shape, threads, args.rounds, references))
            print(rows[-1], file=sys.stderr)
    target = Path(__file__).parent / "results" / "cpu_avx2.json"
    data = {"cpu": cpu_name(), "torch": version("torch"), "rounds": args.rounds,
            "clock": "one thread: CPU time of the thread; more: wall time, on a machine shared with "
                     "other work", "environment": MODES, "contraction": rows}  # fmt: skip
    target.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
