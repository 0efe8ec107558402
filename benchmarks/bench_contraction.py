"""Contraction kernels against torch.mm: ratios interleaved in one run, medians over turns.

    python benchmarks/bench_contraction.py [--threads 1 2] [--seconds 6] [--shape MxKxN ...]

Weights are packed beforehand, as a program's are; the ratio is torch's time over ours. One thread
may be timed by the CPU time of the thread (--cpu-time), where other programs take turns with it.
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

from ree import _core
from ree.kernels.abi import FLOAT32, NO_TILE, call

# M x K x N and the ratio wanted
SHAPES = {
    "1536x1536x1536": 0.95,
    "512x2048x640": 1.0,
    "128x384x1536": 1.3,
    "128x1536x384": 1.3,
    "128x384x384": 1.3,
    "4096x384x1536": 1.1,
    "4096x1536x384": 1.1,
    "4096x384x384": 1.1,
    "1x2048x2048": 1.0,
    "4x2048x2048": 2.0,
    "8x2048x2048": 1.0,
    "16x2048x2048": 1.0,
    "1024x1024x33": 1.0,
    "33x4096x1024": 1.0,
}


def aligned(*shape: int) -> np.ndarray:
    """An uninitialised float32 array on a 64-byte boundary."""
    raw = np.empty(int(np.prod(shape)) * 4 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + raw.size - 64].view(np.float32).reshape(shape)


def ours(isa: str, pool: _core.Pool, a: np.ndarray, b: np.ndarray) -> Callable[[], None]:
    (m, k), n = a.shape, b.shape[1]
    panel = _core.panel(isa)
    packed, c = aligned(-(-n // panel), k, panel), aligned(m, n)
    pack = _core.Plan(isa)
    pack.add(*call("pack", b=0, packed=1, k=k, n=n, stride_k=n, stride_n=1, batch=1, b_batch=0,
                   element_bytes=4))  # fmt: skip
    pack.run(pool, [b.ctypes.data, packed.ctypes.data])
    plan = _core.Plan(isa)
    plan.add(*call("gemm", a=0, packed=1, c=2, batch=1, m=m, n=n, k=k, a_batch=0, a_row=k, b_batch=0,
                   c_batch=0, c_row=n, tile=NO_TILE, **FLOAT32))  # fmt: skip
    table = [x.ctypes.data for x in (a, packed, c)]

    def run() -> None:
        plan.run(pool, table)

    run()
    expected = torch.mm(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(c, expected, rtol=0, atol=1e-4 * k)
    run.keep = (packed, c)  # type: ignore[attr-defined]
    return run


def measure(
    shape: str, threads: int, seconds: float, isa: str, cpu_time: bool
) -> dict[str, object]:
    m, k, n = map(int, shape.split("x"))
    rng = np.random.default_rng(0)
    a, b = aligned(m, k), aligned(k, n)
    a[:], b[:] = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    torch.set_num_threads(threads)
    x, w, out = torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(aligned(m, n))
    contraction = ours(isa, _core.Pool(threads), a, b)

    def reference() -> object:
        return torch.mm(x, w, out=out)

    flops = 2 * m * n * k
    clock = time.thread_time if cpu_time and threads == 1 else time.perf_counter
    times = interleaved({"torch": reference, "ree": contraction}, seconds, clock)
    mine, theirs = (statistics.median(times[k]) for k in ("ree", "torch"))
    return {
        "shape": shape,
        "threads": threads,
        "ratio": ratio(times["torch"], times["ree"]),
        "wanted": SHAPES.get(shape),
        "gflops": round(flops / mine / 1e9, 1),
        "torch_gflops": round(flops / theirs / 1e9, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=6, help="per case")
    parser.add_argument("--shape", nargs="+", default=list(SHAPES))
    parser.add_argument("--isa", default=_core.isa_names()[0])
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    print(f"{'M x K x N':>16} threads  ratio  wanted   GF/s  torch GF/s   ({args.isa})")
    for threads in args.threads:
        for shape in args.shape:
            r = measure(shape, threads, args.seconds, args.isa, args.cpu_time)
            rows.append(r)
            print(f"{shape:>16} {threads:7d} {r['ratio']:6} {r['wanted'] or '':>7} "
                  f"{r['gflops']:6} {r['torch_gflops']:11}", flush=True)  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
