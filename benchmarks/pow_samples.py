"""pow on 10^9 pairs of four kinds against an 80-bit reference: largest error, special values.

python benchmarks/pow_samples.py [--samples 1000000000]

Kinds: bases of any size with results that are finite; bases near 1 with large exponents; small integer
exponents, bases of both signs; pairs of random bits. Results go to benchmarks/results/pow.json.
"""

import argparse
import ctypes
import json
import sys
import tempfile
import time

import numpy as np
from exhaustive_scalar import RESULTS, Stats, reference

from ree import _core
from ree.compiler.ir import Builder
from ree.kernels.numerics import CONTRACT
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program

CHUNK = 1 << 22
BOUND = 1.0


def program():
    b = Builder()
    t = TensorType(DType.F32, (CHUNK,))
    refs = b.input(t), b.input(t)
    return Program(b.finish((b.add("pow", *refs),)), Names(("x", "b"), ("y",), ()), ())


def pairs(kind, rng):
    """Bases and exponents, float32 [CHUNK]."""
    if kind == 3:
        x, b = (rng.integers(0, 1 << 32, CHUNK, np.uint32).view(np.float32) for _ in range(2))
        return x, b
    if kind == 2:
        x = np.exp2(rng.uniform(-20, 20, CHUNK)) * rng.choice([-1, 1], CHUNK)
        return x.astype(np.float32), rng.integers(-12, 13, CHUNK).astype(np.float32)
    log = rng.uniform(-126, 127, CHUNK)
    if kind == 1:
        log = rng.uniform(-1, 1, CHUNK) * 2.0 ** -rng.integers(0, 20, CHUNK)
    x = np.exp2(log).astype(np.float32)
    with np.errstate(all="ignore"):
        b = (rng.uniform(-149, 128, CHUNK) / np.log2(x.astype(np.float64))).astype(np.float32)
    return x, np.where(np.isfinite(b), b, np.float32(1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=10**9)
    args = parser.parse_args()
    p, rng, start = program(), np.random.default_rng(2026), time.monotonic()
    pointer = ctypes.POINTER(ctypes.c_float)
    worst, rows = {}, [Stats() for _ in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        lib = reference(folder)
        for i in range(-(-args.samples // CHUNK)):
            x, b = pairs(i % 4, rng)
            y = p.run(x, b).outputs[0]
            stats, before = rows[i % 4], rows[i % 4].max_ulp
            lib.compare_pow(*(v.ctypes.data_as(pointer) for v in (x, b, y)), ctypes.c_int64(CHUNK),
                            ctypes.byref(stats))  # fmt: skip
            if stats.max_ulp > before:
                k = stats.worst_input
                worst[i % 4] = [float(v[k]).hex() for v in (x, b, y)]
            if i % 16 == 0:
                print(f"{i * CHUNK:>12} {time.monotonic() - start:6.0f} s", file=sys.stderr)
    kinds = ["finite results", "bases near 1", "integer exponents", "random bits"]
    table = {}
    for i, (kind, s) in enumerate(zip(kinds, rows, strict=True)):
        table[kind] = {"max_ulp": round(s.max_ulp, 4), "worst": worst.get(i), "finite": s.finite,
                       "mismatches": s.mismatches}  # fmt: skip
    report = {"contract": CONTRACT, "isa": _core.isa_names()[0], "samples": -(-args.samples // CHUNK) * CHUNK,
              "kinds": table}  # fmt: skip
    (RESULTS.parent / "pow.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return int(any(s.max_ulp > BOUND or s.mismatches for s in rows))


if __name__ == "__main__":
    sys.exit(main())
