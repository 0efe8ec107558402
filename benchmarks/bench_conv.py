"""Convolution against torch, interleaved in one run: medians of the ratio torch's time / ours.

python benchmarks/bench_conv.py [--threads 2] [--seconds 6] [--json benchmarks/results/cpu_conv.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from turns import interleaved, ratio

import ree

# name: (batch, channels in, channels out, window, size, stride, groups)
CASES = {
    "3x3 64 at 56, batch 1": (1, 64, 64, 3, 56, 1, 1),
    "3x3 64 at 56, batch 8": (8, 64, 64, 3, 56, 1, 1),
    "7x7/2 3-64 at 224": (1, 3, 64, 7, 224, 2, 1),
    "3x3/2 64-128 at 56": (1, 64, 128, 3, 56, 2, 1),
    "3x3 256 at 14": (1, 256, 256, 3, 14, 1, 1),
    "3x3 512 at 7, batch 8": (8, 512, 512, 3, 7, 1, 1),
    "1x1 256-64 at 56": (1, 256, 64, 1, 56, 1, 1),
    "1x1/2 64-128 at 56": (1, 64, 128, 1, 56, 2, 1),
    "3x3 depthwise 144 at 56": (1, 144, 144, 3, 56, 1, 144),
    "3x3 32 groups of 4 at 56": (1, 128, 128, 3, 56, 1, 32),
}


def measure(
    name: str, threads: int, seconds: float, clock: Callable[[], float]
) -> dict[str, object]:
    n, c, co, k, size, stride, groups = CASES[name]
    torch.manual_seed(0)
    model = torch.nn.Conv2d(c, co, k, stride, k // 2, groups=groups).eval()
    x = torch.randn(n, c, size, size)
    program = ree.compile(model, (x,))
    torch.set_num_threads(threads)

    def ours() -> object:
        return program.run(x, threads=threads).outputs[0]

    with torch.inference_mode():
        want = model(x)
        np.testing.assert_allclose(np.asarray(ours()), want.numpy(), atol=1e-3)
        times = interleaved({"torch": lambda: model(x), "ree": ours}, seconds, clock)
    flops = 2 * want.numel() * (c // groups) * k * k
    mine, theirs = (statistics.median(times[k]) for k in ("ree", "torch"))
    return {
        "case": name,
        "threads": threads,
        "clock": clock.__name__,
        "ratio": ratio(times["torch"], times["ree"]),
        "milliseconds": round(mine * 1e3, 3),
        "torch_milliseconds": round(theirs * 1e3, 3),
        "gflops": round(flops / mine / 1e9, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--seconds", type=float, default=6, help="per case")
    parser.add_argument("--case", nargs="+", default=list(CASES))
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    print(f"{'case':>28} threads  ratio      ms  torch ms   GF/s")
    for threads in args.threads:
        clock = time.thread_time if args.cpu_time and threads == 1 else time.perf_counter
        for name in args.case:
            r = measure(name, threads, args.seconds, clock)
            rows.append(r)
            print(f"{name:>28} {threads:7d} {r['ratio']:6} {r['milliseconds']:7} "
                  f"{r['torch_milliseconds']:9} {r['gflops']:6}", flush=True)  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
