"""Speed of tensor hashing: the csrc kernels per instruction set and thread count, beside hashlib.

    python benchmarks/bench_hash.py [--repeat 9] [--threads 1 2]

Prints JSON. Rates are GB/s of tensor data (medians; all contenders take turns in every round);
hashlib is plain SHA-256 of the same bytes, which hashes 8 blocks where a tree hashes 11.
"""

import argparse
import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable

import numpy as np

from ree import _core
from ree.kernels.abi import call

SIZES = {"64 MiB": 64 << 20, "1 MiB": 1 << 20, "64 KiB": 64 << 10, "3 KiB": 3 << 10}
MANY, SMALL = 256, 3 << 10  # many small tensors in one call


def kernel(
    isa: str, pool: _core.Pool, name: str, arrays: list[np.ndarray], **arguments: object
) -> Callable[[], None]:
    plan = _core.Plan(isa)
    plan.add(*call(name, **arguments))
    table = [a.ctypes.data for a in arrays]
    return lambda: plan.run(pool, table)


def rates(work: dict[str, Callable[[], object]], nbytes: int, repeat: int) -> dict[str, float]:
    """Median GB/s of each function, which handles `nbytes`."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    inner = max(1, (1 << 20) // nbytes)
    for _ in range(repeat + 1):  # the first round warms up
        for name, fn in work.items():
            start = time.perf_counter()
            for _ in range(inner):
                fn()
            seconds[name].append((time.perf_counter() - start) / inner)
    return {k: round(nbytes / statistics.median(v[1:]) / 1e9, 3) for k, v in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    args = parser.parse_args()
    data = np.random.default_rng(0).integers(0, 256, max(SIZES.values()), dtype=np.uint8)
    out = np.zeros((MANY, 32), np.uint8)
    pools = {t: _core.Pool(t) for t in sorted(set(args.threads))}
    runs = [(isa, t, p) for isa in _core.isa_names() for t, p in pools.items()]
    result: dict[str, dict[str, float]] = {}
    for label, n in SIZES.items():
        work: dict[str, Callable[[], object]] = {
            f"{isa}, {t} threads": kernel(isa, p, "tree_hash", [data, out], data=0, root=1, bytes=n)
            for isa, t, p in runs
        }
        work["hashlib"] = lambda n=n: hashlib.sha256(memoryview(data)[:n])
        result[label] = rates(work, n, args.repeat)
    parts = [data[i * SMALL : (i + 1) * SMALL] for i in range(MANY)]
    work = {
        f"{isa}, {t} threads": kernel(
            isa,
            p,
            "tree_hash_many",
            [*parts, out],
            data=range(MANY),
            roots=MANY,
            count=MANY,
            bytes=[SMALL] * MANY,
        )
        for isa, t, p in runs
    }
    work["hashlib"] = lambda: [hashlib.sha256(x) for x in parts]
    result[f"{MANY} x {SMALL >> 10} KiB"] = rates(work, MANY * SMALL, args.repeat)
    print(json.dumps({"unit": "GB/s", "tree_hash": result}, indent=2))


if __name__ == "__main__":
    main()
