"""Contractions of 8-bit integers and a quantised model, beside float32 and torch.

    python benchmarks/bench_int8.py [--seconds 6] [--json FILE]

`gemm_i8` at 1536^3 in turns with our float32 `gemm`, torch's quantised linear layer (oneDNN; it also rounds
its results to 8 bits) and torch._int_mm; MiniLM by `ree quantise` in turns with its float32 program, and
the cosine of their embeddings over sentences that were not used for evening out columns.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from turns import interleaved, ratio

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import minilm
from bench_contraction import aligned, ours

import ree
from ree import _core
from ree.kernels.abi import NO_TILE, call
from ree.quantisation import quantise

ROOT = Path(__file__).resolve().parent.parent
SIZE = 1536
THREADS = (1, 2)
WANTED = {"i8_over_f32": 0.333, "i8_over_torch": 1.111, "model_i8_over_f32": 0.45, "cosine": 0.999}
TEXTS, TOKENS = 8, 128  # of a timed call of the model
COMPARED = 64  # sentences


def byte_product(pool: _core.Pool, a: np.ndarray, b: np.ndarray) -> Callable[[], None]:
    """A [m, k] by B [n, k], packed beforehand; checked once."""
    isa = _core.isa_names()[0]
    (m, k), n, group, panel = a.shape, b.shape[0], _core.byte_group(isa), _core.panel(isa)
    packed = aligned(-(-n // panel), -(-k // group), panel)
    c = aligned(m, n).view(np.int32)
    plan = _core.Plan(isa)
    plan.add(*call("pack_i8", b=0, packed=1, k=k, n=n, stride_k=1, stride_n=k, group=group))
    plan.run(pool, [b.ctypes.data, packed.ctypes.data])
    plan = _core.Plan(isa)
    plan.add(*call("gemm_i8", a=0, packed=1, c=2, m=m, n=n, k=k, group=group, tile=NO_TILE))
    table = [x.ctypes.data for x in (a, packed, c)]

    def run() -> None:
        plan.run(pool, table)

    run()
    want = torch._int_mm(torch.from_numpy(a), torch.from_numpy(b).t()).numpy()
    np.testing.assert_array_equal(c, want)
    run.keep = (packed, c)  # type: ignore[attr-defined]
    return run


def torch_layer(m: int, n: int, k: int) -> Callable[[], object]:
    """torch's linear layer with weights of 8 bits by row and activations of 8 bits."""
    torch.backends.quantized.engine = "onednn"
    layer = torch.ao.nn.quantized.Linear(k, n, bias_=False)
    scales, zeros = torch.full((n,), 0.01), torch.zeros(n, dtype=torch.long)
    layer.set_weight_bias(
        torch.quantize_per_channel(torch.randn(n, k), scales, zeros, 0, torch.qint8), None
    )
    x = torch.quantize_per_tensor(torch.randn(m, k), 0.02, 128, torch.quint8)
    return lambda: layer(x)


def contraction(threads: int, seconds: float) -> dict[str, object]:
    rng, n = np.random.default_rng(0), SIZE
    a, b = (rng.integers(-128, 128, (n, n)).astype(np.int8) for _ in range(2))
    x, w = aligned(n, n), aligned(n, n)
    x[:], w[:] = a, b.T
    torch.set_num_threads(threads)
    pool, right = _core.Pool(threads), torch.from_numpy(b.T.copy())
    left, out = torch.from_numpy(a), torch.empty(n, n, dtype=torch.int32)
    times = interleaved({
        "i8": byte_product(pool, a, b), "f32": ours(_core.isa_names()[0], pool, x, w),
        "layer": torch_layer(n, n, n), "int_mm": lambda: torch._int_mm(left, right, out=out),
    }, seconds)  # fmt: skip
    return {
        "shape": f"{n}x{n}x{n}", "threads": threads,
        "i8_over_f32": ratio(times["i8"], times["f32"]),
        "i8_over_torch_layer": ratio(times["i8"], times["layer"]),
        "i8_over_torch_int_mm": ratio(times["i8"], times["int_mm"]),
        "i8_ms": round(min(times["i8"]) * 1e3, 3),
    }  # fmt: skip


def model(seconds: float) -> dict[str, object]:
    program = ree.compile(minilm.model(), minilm.example_inputs(), minilm.dynamic_shapes())
    small = quantise(program).program
    pairs = (ROOT / "examples/training/data/pairs.tsv").read_text().splitlines()
    given = {
        k: v.numpy()
        for k, v in minilm.tokenize([x.split("\t")[0] for x in pairs[:COMPARED]]).items()
    }
    a, b = (p.run_named(given).outputs[0] for p in (program, small))
    cosines = (a * b).sum(-1)  # of unit length
    rng = np.random.default_rng(0)
    timed = {"input_ids": rng.integers(1000, 20000, (TEXTS, TOKENS)),
             "attention_mask": np.ones((TEXTS, TOKENS), np.int64)}  # fmt: skip
    rows = []
    for threads in THREADS:
        times = interleaved({
            "i8": lambda t=threads: small.run_named(timed, threads=t),
            "f32": lambda t=threads: program.run_named(timed, threads=t),
        }, seconds)  # fmt: skip
        rows.append({"threads": threads, "i8_over_f32": ratio(times["i8"], times["f32"]),
                     "i8_ms": round(min(times["i8"]) * 1e3, 2)})  # fmt: skip
    sizes = [sum(w.nbytes for w in p.weights) for p in (program, small)]
    least, mean = (round(float(f(cosines)), 5) for f in (np.min, np.mean))
    return {"shape": f"{TEXTS} texts of {TOKENS} tokens", "times": rows, "cosine_least": least,
            "cosine_mean": mean, "weights_bytes": sizes[1], "weights_f32_bytes": sizes[0]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6, help="per case")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/int8.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    load = os.getloadavg()[0]
    data = {
        "isa": _core.isa_names()[0], "byte_group": _core.byte_group(_core.isa_names()[0]),
        "wanted": WANTED, "contraction": [contraction(t, args.seconds) for t in THREADS],
        "minilm": model(args.seconds), "load": [round(load, 2), round(os.getloadavg()[0], 2)],
    }  # fmt: skip
    args.json.write_text(json.dumps(data, indent=1) + "\n")
    print(json.dumps(data, indent=1))


if __name__ == "__main__":
    main()
