"""Two installations of REE against each other: python benchmarks/between.py OLD_PYTHON NEW_PYTHON [SECONDS].

Each side is a process of its own that keeps its programs; one call of one side at a time, in turns, so that
what else happens on the machine meets both. Writes benchmarks/results/between.json: new time / old time, the
median over turns and the quartiles around it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TURN = 0.1  # seconds of one side


def cases() -> dict[str, Callable[[], Any]]:
    """What is timed, by the public API alone, so that versions can be compared."""
    sys.path.insert(0, str(HERE.parent / "examples"))
    import minilm
    import torch
    from torch.nn import functional as F

    import ree

    torch.manual_seed(0)
    out: dict[str, Callable[[], Any]] = {}
    model = ree.compile(minilm.model(), minilm.example_inputs(), minilm.dynamic_shapes())
    for batch, tokens, trace in (
        (1, 16, None),
        (1, 128, None),
        (8, 128, None),
        (1, 128, "io"),
        (1, 128, "ops"),
    ):
        ids = torch.randint(1000, 20000, (batch, tokens))
        text = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        name = f"MiniLM {batch}x{tokens}" + (f", {trace} trace" if trace else "")
        out[name] = lambda text=text, trace=trace: model.run(**text, trace=trace)

    def add(name: str, f: Callable[..., Any], *inputs: Any) -> None:
        class Module(torch.nn.Module):
            def forward(self, *x: Any) -> Any:
                return f(*x)

        program = ree.compile(Module(), inputs)
        out[name] = lambda: program(*inputs)

    r = torch.randn
    add("relu of 98,304", torch.relu, r(98_304))
    add("gelu 64x1536", F.gelu, r(64, 1536))
    add("exp 32x128x1536", torch.exp, r(32, 128, 1536))
    add("softmax 4096x384", lambda x: x.softmax(-1), r(4096, 384))
    add("sum of rows 4096x384", lambda x: x.sum(-1), r(4096, 384))
    add("layer_norm 4096x384", lambda x: F.layer_norm(x, (384,)), r(4096, 384))
    add("matmul 1x384x1536", torch.matmul, r(1, 384), r(384, 1536))
    add("matmul 512x512x512", torch.matmul, r(512, 512), r(512, 512))
    add(
        "attention 1x12x256x64", F.scaled_dot_product_attention, *(r(1, 12, 256, 64) for _ in "qkv")
    )
    add(
        "convolution 8x32x56x56",
        lambda x, w: F.conv2d(x, w, padding=1),
        r(8, 32, 56, 56),
        r(64, 32, 3, 3),
    )
    add("sort 1024x1024", lambda x: x.sort(-1).values, r(1024, 1024))
    add("cumsum 1024x1024", lambda x: x.cumsum(-1), r(1024, 1024))
    add("transpose 1024x1024", lambda x: x.t().contiguous(), r(1024, 1024))
    return out


def serve() -> None:
    """The side's process: reads 'CASE<tab>CALLS', answers with seconds a call."""
    answers, sys.stdout = sys.stdout, sys.stderr
    work = cases()
    print(json.dumps(list(work)), file=answers, flush=True)
    for line in sys.stdin:
        name, calls = line.rstrip("\n").split("\t")
        begin = time.perf_counter()
        for _ in range(int(calls)):
            work[name]()
        print((time.perf_counter() - begin) / int(calls), file=answers, flush=True)


class Side:
    def __init__(self, python: str) -> None:
        command = [python, str(Path(__file__).resolve()), "--serve"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.names: list[str] = json.loads(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args} ended")
        return line

    def call(self, name: str, calls: int) -> float:
        assert self.process.stdin
        print(f"{name}\t{calls}", file=self.process.stdin, flush=True)
        return float(self._answer())


def compared(old: Side, new: Side, name: str, seconds: float) -> dict[str, float]:
    for side in (old, new):
        side.call(name, 2)
    calls = 1 + int(TURN / max(old.call(name, 1), 1e-6))
    times: tuple[list[float], list[float]] = [], []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times[0]) < 9:
        for k in (0, 1) if len(times[0]) % 2 else (1, 0):
            times[k].append((old, new)[k].call(name, calls))
    low, middle, high = statistics.quantiles((b / a for a, b in zip(*times, strict=True)), n=4)
    before, after = (1e3 * statistics.median(t) for t in times)
    return {
        "old_ms": round(before, 4),
        "new_ms": round(after, 4),
        "ratio": round(middle, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "turns": len(times[0]),
    }


def main() -> None:
    if sys.argv[1:] == ["--serve"]:
        return serve()
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    from run import cpu_name

    old, new = map(Side, sys.argv[1:3])
    seconds = float(sys.argv[3]) if len(sys.argv) == 4 else 6.0
    found = {}
    for name in (n for n in new.names if n in old.names):
        found[name] = compared(old, new, name, seconds)
        print(f"{name:28} {found[name]}", file=sys.stderr, flush=True)
    data = {"cpu": cpu_name(), "new over old": found}
    (HERE / "results" / "between.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
