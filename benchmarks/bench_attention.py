"""Attention against torch's scaled_dot_product_attention: interleaved in one run, medians.

    python benchmarks/bench_attention.py [--threads 1 2] [--seconds 4] [--case NAME ...]

Prints JSON: milliseconds of both and time_ratio, our time over torch's (float32, CPU). Every result
is compared with torch's first. --cpu-time counts the CPU time of the process instead of the clock,
for one thread on a machine where other programs take turns with it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from turns import interleaved, ratio

from ree import _core
from ree.kernels.abi import call
from ree.kernels.constants import BOOL_MASK, FLOAT_MASK, NO_MASK


@dataclass(frozen=True)
class Case:
    batch: int
    heads: int
    queries: int
    keys: int
    d: int
    causal: bool = False
    mask: str = ""
    kv_heads: int = 0  # 0: as many as heads
    interleaved: bool = True  # memory is [B, T, H, D]

    def tensor(self, rng: np.random.Generator, heads: int, t: int) -> np.ndarray:
        if self.interleaved:
            return rng.standard_normal((self.batch, t, heads, self.d), np.float32).swapaxes(1, 2)
        return rng.standard_normal((self.batch, heads, t, self.d), np.float32)

    def make_mask(self, rng: np.random.Generator) -> np.ndarray | None:
        full = (self.batch, 1, self.queries, self.keys)
        if self.mask == "keys":  # right padding, one row per batch entry
            lengths = rng.integers(self.keys // 2, self.keys + 1, (self.batch, 1, 1, 1))
            return np.arange(self.keys) < lengths
        if self.mask == "full":  # the same, written out
            keys = np.arange(self.keys) < rng.integers(self.keys // 2, self.keys + 1, full[:1])[
                :, None, None, None
            ]  # fmt: skip
            return np.ascontiguousarray(np.broadcast_to(keys, full))
        if self.mask == "random":
            return (rng.random(full) < 0.8) | (np.arange(self.keys) == 0)
        if self.mask == "float":
            return rng.standard_normal(full).astype(np.float32)
        return None


CASES = {
    "causal-1024": Case(1, 8, 1024, 1024, 64, causal=True),
    "causal-1024-bhtd": Case(1, 8, 1024, 1024, 64, causal=True, interleaved=False),
    "minilm": Case(32, 12, 128, 128, 32),
    "minilm-key-mask": Case(32, 12, 128, 128, 32, mask="keys"),
    "minilm-full-mask": Case(32, 12, 128, 128, 32, mask="full"),
    "minilm-random-mask": Case(32, 12, 128, 128, 32, mask="random"),
    "minilm-float-mask": Case(32, 12, 128, 128, 32, mask="float"),
    "decode-2048": Case(1, 32, 1, 2048, 64, interleaved=False),
    "decode-2048-grouped": Case(1, 32, 1, 2048, 64, kv_heads=8, interleaved=False),
    "decode-512": Case(1, 8, 1, 512, 64, interleaved=False),
}


def steps(a: np.ndarray, n: int) -> list[int]:
    return [s // a.itemsize for s in a.strides[:n]]


def contenders(
    case: Case, isa: str, pool: _core.Pool
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Our kernel and torch's, on the same arrays; AssertionError if they disagree."""
    rng = np.random.default_rng(0)
    kv_heads = case.kv_heads or case.heads
    q = case.tensor(rng, case.heads, case.queries)
    k, v = (case.tensor(rng, kv_heads, case.keys) for _ in range(2))
    mask = case.make_mask(rng)
    o = np.empty_like(q)
    scale = case.d**-0.5
    kind, mask_steps = NO_MASK, [0] * 4
    if mask is not None:
        kind = BOOL_MASK if mask.dtype == bool else FLOAT_MASK
        full = (case.batch, case.heads, case.queries, case.keys)
        mask_steps = [s // mask.itemsize for s in np.broadcast_to(mask, full).strides]
    plan = _core.Plan(isa)
    plan.add(*call(
        "attention", q=0, k=1, v=2, mask=None if mask is None else 3, o=4, batch=case.batch,
        heads=case.heads, kv_heads=kv_heads, queries=case.queries, keys=case.keys, width=case.d,
        value_width=case.d, scale=scale, causal=case.causal, q_offset=0, window=0, mask_kind=kind,
        q_strides=steps(q, 3), k_strides=steps(k, 3), v_strides=steps(v, 3), mask_strides=mask_steps,
        o_strides=steps(o, 3)))  # fmt: skip
    arrays = (q, k, v, mask, o)
    tq, tk, tv = (torch.from_numpy(x) for x in (q, k, v))
    tm = None if mask is None else torch.from_numpy(mask)

    def theirs() -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(
            tq, tk, tv, attn_mask=tm, is_causal=case.causal, enable_gqa=kv_heads != case.heads
        )

    def ours() -> None:  # holds the arrays, whose addresses are all that the plan sees
        plan.run(pool, [0 if x is None else x.ctypes.data for x in arrays])

    ours()
    error = float(np.abs(theirs().numpy() - o).max())
    assert error < 1e-5, f"differs from torch by {error}"
    return ours, theirs


def measure(
    case: Case, isa: str, threads: int, seconds: float, clock: Callable[[], float]
) -> dict[str, float]:
    torch.set_num_threads(threads)
    ours, theirs = contenders(case, isa, _core.Pool(threads))
    times = interleaved({"ree": ours, "torch": theirs}, seconds, clock)
    mine, torchs = (statistics.median(times[k]) * 1e3 for k in ("ree", "torch"))
    return {"threads": threads, "ours_ms": round(mine, 4), "torch_ms": round(torchs, 4),
            "time_ratio": ratio(times["ree"], times["torch"])}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=4, help="per case")
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--cpu-time", action="store_true")
    args = parser.parse_args()
    isa = _core.isa_names()[0]
    clock = time.process_time if args.cpu_time else time.perf_counter
    results = {
        name: [measure(CASES[name], isa, t, args.seconds, clock) for t in args.threads]
        for name in args.case
    }
    print(json.dumps({"isa": isa, "torch": torch.__version__, "cases": results}, indent=1))


if __name__ == "__main__":
    main()
