"""Drawing a token of each row against torch's way, in turns; prints JSON of median times and of their ratio.

torch: temperature, top-k as topk and a mask, top-p by sorting, softmax and a running sum, then softmax and
multinomial; what is off is left out. Both sides on the same logits and threads.
"""

from __future__ import annotations

import argparse
import json
import sys
from statistics import median
from typing import Any

import numpy as np
import torch
from turns import interleaved, ratio

from ree.kernels.ops.sampling import PARAMETERS
from ree.runtime.sampler import Sampler

SETTINGS: dict[str, dict[str, float]] = {
    "greedy": {"temperature": 0.0},
    "plain": {},
    "top-p": {"temperature": 0.7, "top_p": 0.9},
    "top-k": {"temperature": 0.7, "top_k": 50},
    "top-k, top-p": {"temperature": 0.7, "top_k": 50, "top_p": 0.9},
    "min-p": {"temperature": 0.7, "min_p": 0.05},
}
PLAIN: dict[str, float] = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0, "seed": 1, "position": 7,
                           "choice": 0}  # fmt: skip


def by_torch(x: torch.Tensor, s: dict[str, float]) -> torch.Tensor:
    if s["temperature"] == 0:
        return x.argmax(1)
    x = x / s["temperature"]
    if s["min_p"] > 0:
        p = torch.softmax(x, 1)
        x = x.masked_fill(p < s["min_p"] * p.amax(1, keepdim=True), -torch.inf)
    if s["top_k"] > 0:
        x = x.masked_fill(x < x.topk(int(s["top_k"])).values[:, -1:], -torch.inf)
    if s["top_p"] < 1:
        values, ids = x.sort(dim=1)
        out = torch.softmax(values, 1).cumsum(1) <= 1 - s["top_p"]
        out[:, -1] = False
        x = x.scatter(1, ids, values.masked_fill(out, -torch.inf))
    return torch.multinomial(torch.softmax(x, 1), 1)


def measure(
    rows: int, vocabulary: int, scale: float, setting: str, threads: int, seconds: float
) -> dict[str, Any]:
    s = PLAIN | SETTINGS[setting]
    x = torch.randn(rows, vocabulary) * scale
    sampler, logits = Sampler(rows, vocabulary, threads=threads), x.numpy()
    columns: dict[str, Any] = {k: np.full(rows, s[k], t.numpy) for k, t in PARAMETERS.items()}
    sides = {"ree": lambda: sampler(logits, **columns), "torch": lambda: by_torch(x, s)}
    times = interleaved(sides, seconds)
    ours, theirs = times["ree"], times["torch"]
    return {
        "us": round(median(ours) * 1e6, 1),
        "torch_us": round(median(theirs) * 1e6, 1),
        "time_ratio": ratio(ours, theirs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each case")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    results = {}
    for rows, vocabulary in ((1, 49_152), (1, 262_144), (8, 49_152)):
        for scale in (1.0, 4.0):
            for setting in SETTINGS:
                name = f"{setting}, {rows}x{vocabulary}, logits of deviation {scale:g}"
                results[name] = measure(
                    rows, vocabulary, scale, setting, args.threads, args.seconds
                )
                print(name, results[name], file=sys.stderr)
    print(json.dumps({"threads": args.threads, "cases": results}, indent=1))


if __name__ == "__main__":
    main()
