"""Every float32 input of each measured function: largest error, special values, digest.

    python benchmarks/exhaustive_scalar.py [names ...] [--isa avx512] [--threads 2]

Needs a C++ compiler for the reference (exhaustive_scalar.cpp). Results are merged into
benchmarks/results/scalar_bounds.json; the exit status is 1 if a bound is exceeded, a special value
is wrong or the portable kernels differ on every 257th input.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ree import _core
from ree.kernels.abi import call
from ree.kernels.numerics import CONTRACT
from ree.kernels.scalar.functions import BOUNDS, FUNCTIONS
from ree.kernels.scalar.microcode import microcode_bytes

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "scalar_bounds.json"
CHUNK = 1 << 24
STRIDE = 257  # of the sample on which instruction sets are compared


class Stats(ctypes.Structure):
    _fields_ = [
        ("max_ulp", ctypes.c_double),
        ("worst_input", ctypes.c_uint32),
        ("worst_output", ctypes.c_uint32),
        ("finite", ctypes.c_int64),
        ("mismatches", ctypes.c_int64),
        ("mismatch_input", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
    ]


def reference(folder: str) -> Any:
    """The compiled reference as a ctypes library."""
    library, batch = Path(folder) / "reference.so", Path(folder) / "batch.o"
    common = ["g++", "-std=c++17", "-fno-math-errno", "-fPIC"]
    # fast only where it is compiled: linking with it would flush subnormals in this process
    fast = ["-O3", "-march=native", "-ffast-math", "-c", str(HERE / "exhaustive_batch.cpp")]
    subprocess.run([*common, *fast, "-o", str(batch)], check=True)
    source = [str(HERE / "exhaustive_scalar.cpp"), str(batch)]
    subprocess.run([*common, "-O2", "-shared", *source, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def kernel(name: str, isa: str, bits: np.ndarray[Any, np.dtype[np.uint32]]) -> Any:
    """Results of the csrc kernel for inputs with these bits; float32, same shape."""
    y = np.empty(bits.shape, np.float32)
    plan = _core.Plan(isa)
    plan.add(*call(f"unary_{name}", x=0, y=1, n=bits.size))
    plan.run(_core.Pool(1), [bits.ctypes.data, y.ctypes.data])
    return y


def measure(lib: Any, name: str, isa: str, threads: int) -> dict[str, Any]:
    """Run all 2^32 inputs in chunks of 2^24; the digest is SHA-256 over the chunks' SHA-256."""
    start = time.monotonic()
    best = [0.0]  # a chunk looks closely only at what may exceed this

    def chunk(i: int) -> tuple[Stats, bytes]:
        bits = np.arange(i * CHUNK, (i + 1) * CHUNK, dtype=np.uint32)
        y = kernel(name, isa, bits)
        stats = Stats(max_ulp=best[0], worst_input=2**32 - 1)
        if lib.compare(name.encode(), i * CHUNK, ctypes.c_int64(CHUNK), y.ctypes.data_as(
            ctypes.c_void_p), ctypes.byref(stats)):  # fmt: skip
            raise KeyError(f"no reference for '{name}'")
        best[0] = max(best[0], stats.max_ulp)
        return stats, hashlib.sha256(y).digest()

    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(chunk, range(2**32 // CHUNK)))
    wrong = [f"0x{s.mismatch_input:08x}" for s, _ in done if s.mismatches]
    worst = max((s for s, _ in done), key=lambda s: (s.max_ulp, -s.worst_input))
    sample = np.arange(0, 2**32, STRIDE, dtype=np.uint32)
    same = {
        other: bool((kernel(name, other, sample).view(np.uint32)
                     == kernel(name, isa, sample).view(np.uint32)).all())
        for other in _core.isa_names() if other != isa
    }  # fmt: skip
    return {
        "bound_ulp": BOUNDS[name],
        "max_ulp": worst.max_ulp,
        "worst_input": f"0x{worst.worst_input:08x}",
        "worst_output": f"0x{worst.worst_output:08x}",
        "inputs": 2**32,
        "compared_in_ulps": sum(s.finite for s, _ in done),
        "special_value_mismatches": sum(s.mismatches for s, _ in done),
        "first_mismatch": wrong[0] if wrong else None,
        "sha256": hashlib.sha256(b"".join(d for _, d in done)).hexdigest(),
        "microcode": hashlib.sha256(microcode_bytes(FUNCTIONS[name])).hexdigest(),
        "isa": isa,
        "same_on_every_257th_input": same,
        "seconds": round(time.monotonic() - start, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", default=list(BOUNDS))
    parser.add_argument("--isa", default=_core.isa_names()[0])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    functions = results.get("functions", {}) if results.get("contract") == CONTRACT else {}
    ok = True
    with tempfile.TemporaryDirectory() as folder:
        lib = reference(folder)
        for name in args.names:
            r = functions[name] = measure(lib, name, args.isa, args.threads)
            good = r["max_ulp"] <= r["bound_ulp"] and not r["special_value_mismatches"]
            good = good and all(r["same_on_every_257th_input"].values())
            ok = ok and good
            print(f"{name:8} {r['max_ulp']:.4f} ulp at {r['worst_input']}, "
                  f"{r['special_value_mismatches']} mismatches, {r['seconds']} s, "
                  f"{'ok' if good else 'FAILED'}", flush=True)  # fmt: skip
            text = json.dumps({"contract": CONTRACT, "functions": functions}, indent=1)
            RESULTS.write_text(text + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
