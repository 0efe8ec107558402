"""One pointwise operator against torch's, in turns: python benchmarks/bench_pointwise.py [-o FILE]

    [--isa avx512 avx2] [--threads 1 2] [--seconds 3] [--only silu ...]

Each side is called as a user does, with a tensor, and makes its output. torch is held to the instruction set
of ours (ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA), for which each has a process of its own. A ratio is our time
over torch's: the median over turns, and of the best of each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from run import cpu_name
from torch.nn import functional as nn
from turns import interleaved, ratio

import ree
from ree import _core
from ree.runtime import settings

SHAPES = ((64, 1536), (32, 128, 1536))
OPERATORS = {
    "exp": torch.exp, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "silu": nn.silu, "gelu": nn.gelu,
    "gelu_tanh": lambda x: nn.gelu(x, approximate="tanh"), "relu": torch.relu,
}  # fmt: skip
HELD = {
    "avx512": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}


class Operator(torch.nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = OPERATORS[self.name](x)
        return y


def measure(name: str, shape: tuple[int, ...], threads: int, seconds: float) -> dict[str, object]:
    torch.manual_seed(0)
    x = torch.randn(shape)
    program = ree.compile(Operator(name), (x,))
    with torch.no_grad():
        sides = {"torch": lambda: OPERATORS[name](x), "ree": lambda: program(x)}
        torch.testing.assert_close(sides["ree"](), sides["torch"]())
        times = interleaved(sides, seconds)
    best = {f"{k}_us": round(min(t) * 1e6, 2) for k, t in times.items()}
    return {"operator": name, "elements": x.numel(), "threads": threads, **best,
            "ratio": ratio(times["ree"], times["torch"]),
            "ratio_of_best": round(min(times["ree"]) / min(times["torch"]), 3)}  # fmt: skip


def rows(args: argparse.Namespace) -> list[dict[str, object]]:
    """Of the instruction set that the environment says."""
    found = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        os.environ["REE_NUM_THREADS"] = str(threads)
        for name in args.only:
            for shape in SHAPES:
                row = {"isa": settings.isa(), **measure(name, shape, threads, args.seconds)}
                print(row, file=sys.stderr)
                found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--isa", nargs="+", default=[x for x in HELD if x in _core.isa_names()])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", nargs="+", default=list(OPERATORS), choices=OPERATORS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(rows(args)))
        return
    found = []
    for isa in args.isa:
        environment = os.environ | HELD[isa] | {"REE_FORCE_ISA": isa}
        command = [sys.executable, *sys.argv, "--here"]
        done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
        found += json.loads(done.stdout)
    text = json.dumps({"cpu": cpu_name(), "torch": torch.__version__, "rows": found}, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
