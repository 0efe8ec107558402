"""What a call costs above its kernel, and what many shapes leave: python benchmarks/bench_calls.py [-o FILE]

A call of a program with one operator on 98,304 elements, torch's own call and the kernel alone take turns;
the smallest and the middle time of each count. Then 10,000 calls of 500 shapes of a small model: resident
memory after the first 500 and after all.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from run import cpu_name

import ree
from ree.runtime import settings
from ree.runtime.executable import Frame

N, TURNS = 98_304, 4000
SHAPES, CALLS = 500, 10_000


class Relu(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(32, 64), torch.nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(torch.nn.functional.gelu(self.a(x)))
        return torch.softmax(y @ x.T, -1) @ y


def calls() -> dict[str, dict[str, float]]:
    """Microseconds of each side, smallest and median."""
    x = torch.randn(N)
    program = ree.compile(Relu(), (x,))
    program(x)
    executable = program.cpu.executable(program, {}, settings.isa())
    frame, pool = Frame(executable), settings.pool()
    given, out = x.numpy(), np.empty(N, np.float32)
    frame.bind("input", [given])
    frame.bind("output", [out])
    sides = {
        "torch": lambda: torch.relu(x),
        "kernel": lambda: frame.run_part(0, pool),
        "ree": lambda: program(x),
        "ree, arrays": lambda: program(given),
    }
    times: dict[str, list[int]] = {k: [] for k in sides}
    for _ in range(TURNS):
        for name, side in sides.items():
            start = time.perf_counter_ns()
            side()
            times[name].append(time.perf_counter_ns() - start)
    found = {
        k: {"min_us": min(t) / 1e3, "median_us": statistics.median(t) / 1e3}
        for k, t in times.items()
    }
    for k in ("min_us", "median_us"):
        found["ree"][f"above_kernel_{k}"] = found["ree"][k] - found["kernel"][k]
    return found


def resident() -> int:
    """Resident bytes of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def memory() -> dict[str, int]:
    """Resident bytes after each shape ran once and after all calls."""
    n = torch.export.Dim("n", min=1, max=SHAPES)
    program = ree.compile(Small().eval(), (torch.randn(3, 32),), {"x": {0: n}})
    order = np.random.default_rng(0).permutation(
        np.repeat(np.arange(1, SHAPES + 1), CALLS // SHAPES - 1)
    )
    data = torch.randn(SHAPES, 32)
    for k in range(1, SHAPES + 1):
        program(data[:k])
    first = resident()
    for k in order:
        program(data[: int(k)])
    return {"shapes": SHAPES, "calls": CALLS, "after_first_of_each": first, "after_all": resident()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    found = {"cpu": cpu_name(), "torch": torch.__version__,
             "threads": settings.threads(), "elements": N, "calls": calls(), "memory": memory()}  # fmt: skip
    print(json.dumps(found, indent=1))
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
