"""Long derivations: how long a party takes to make one with its tree and to answer any move in it, and the
memory of its process. Writes benchmarks/results/derivations.json; each case runs in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ree.compiler.ir import Builder, Graph
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.settlement.work import memory_run
from ree.verde.moves import Phase
from ree.verde.party import Party
from ree.verde.rehearsal import borders, in_values, shown

OUT = Path(__file__).parent / "results" / "derivations.json"
LIMIT_S, LIMIT_BYTES = 30, 4 << 30
Given = tuple[Graph, list[np.ndarray]]


def _f32(n: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(n, np.float32)


def _reduction(op: str, n: int) -> Given:
    b = Builder()
    x = b.input(TensorType(DType.F32, (n,)))
    return b.finish((b.add(op, x, dim=0, keepdim=False),)), [_f32(n)]


def _column(op: str, n: int) -> Given:
    """Along an axis that is not the last one."""
    b = Builder()
    x = b.input(TensorType(DType.F32, (n, 2)))
    return b.finish((b.add(op, x, dim=0, keepdim=False),)), [_f32(2 * n).reshape(n, 2)]


def _sort(n: int) -> Given:
    b = Builder()
    x = b.input(TensorType(DType.F32, (n,)))
    return b.finish((b.add_node("sort", (x,), {"dim": 0, "descending": False}).value,)), [_f32(n)]


def _cumsum(n: int) -> Given:
    b = Builder()
    x = b.input(TensorType(DType.F32, (n,)))
    return b.finish((b.add("cumsum", x, dim=0),)), [_f32(n)]


def _index_add(n: int) -> Given:
    b = Builder()
    x, i, y = (
        b.input(TensorType(t, (k,))) for t, k in ((DType.F32, 8), (DType.I64, n), (DType.F32, n))
    )
    index = np.random.default_rng(1).integers(-8, 8, n)
    return b.finish((b.add("index_add", x, i, y, dim=0),)), [_f32(8), index, _f32(n)]


def _matmul(n: int) -> Given:
    b = Builder()
    x, w = b.input(TensorType(DType.F32, (1, n))), b.input(TensorType(DType.F32, (1, n)))
    return b.finish((b.add("linear", x, w),)), [_f32(n).reshape(1, n), _f32(n).reshape(1, n)]


CASES: dict[str, Callable[[], Given]] = {
    "argmax over 2^26": lambda: _reduction("argmax", 1 << 26),
    "amax over 2^26": lambda: _reduction("amax", 1 << 26),
    "sum over 2^28": lambda: _reduction("sum", 1 << 28),
    "sum of a column of 2^26": lambda: _column("sum", 1 << 26),
    "sort of 2^22": lambda: _sort(1 << 22),
    "index_add of 2^20 updates": lambda: _index_add(1 << 20),
    "cumsum of 2^24, the last": lambda: _cumsum(1 << 24),
    "product over 2^24": lambda: _matmul(1 << 24),
}


def measure(graph: Graph, given: list[np.ndarray]) -> dict[str, float]:
    """Seconds of the derivation of the last element of the first value, and of the slowest other move."""
    names = Names(tuple(f"x{i}" for i in range(len(given))), ("y",), ())
    begin = time.perf_counter()
    run, instance = memory_run(
        Program(graph, names, ()), dict(zip(names.inputs, given, strict=True))
    )
    party = Party(run, instance.digest)
    ran = time.perf_counter() - begin
    s = shown(party, in_values(party), 0, run.scope.type("values", 0).numel - 1)

    def timed(s):
        begin = time.perf_counter()
        move = party.move(s)
        return party.game.apply(s, move), time.perf_counter() - begin

    s, derive = timed(s)
    slowest = 0.0
    d, at = party.game.derivation(s), s
    while at.phase in (Phase.REVEAL, Phase.PICK):  # to the first leaf, as both sides
        at, took = timed(at)
        slowest = max(slowest, took)
    per = 512 // d.width
    entries = party.entries(s)
    for i in borders(d.count, d.width):
        leaf = {"leaf": entries.leaf(i // per), "leaf_index": i // per}
        point = type(s)(**{**vars(s), "phase": Phase.ENTRY, "node": None, **leaf})
        slowest = max(slowest, timed(point)[1])
        end, took = timed(type(s)(**{**vars(point), "phase": Phase.PROVE, "entry": i}))
        assert end.winner == "defender", end.reason
        slowest = max(slowest, took)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return {
        "operations": d.count,
        "run and hash s": round(ran, 2),
        "derive s": round(derive, 2),
        "slowest other move s": round(slowest, 3),
        "peak GB": round(peak / 1e9, 2),
    }


def main() -> int:
    if len(sys.argv) > 1:
        print(json.dumps(measure(*CASES[sys.argv[1]]())))
        return 0
    table, wrong = {}, []
    for name in CASES:
        env = {**os.environ, "REE_NUM_THREADS": "2"}
        done = subprocess.run([sys.executable, "-P", __file__, name], env=env, text=True,
                              stdout=subprocess.PIPE, check=True)  # fmt: skip
        table[name] = row = json.loads(done.stdout)
        print(name, row, flush=True)
        if (
            max(row["derive s"], row["slowest other move s"]) > LIMIT_S
            or row["peak GB"] * 1e9 > LIMIT_BYTES
        ):
            wrong.append(name)
    OUT.write_text(
        json.dumps({"load": round(os.getloadavg()[0], 1), "cases": table}, indent=1) + "\n"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
