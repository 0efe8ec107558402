"""Seconds that each part of a program's way takes at 20,000 nodes, and how they grow from half of them.

Usage: bench_scale.py [nodes]. Prints a line per shape of graph and part: processor seconds, and the
ratio to half the nodes (2 is linear, 4 is quadratic).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ree import _core, artifact
from ree.compiler import legal
from ree.compiler.instance import make_instance
from ree.compiler.ir import Builder, Graph, Ref, bind_graph
from ree.compiler.passes.canonical import canonicalise
from ree.compiler.plan.planner import plan
from ree.compiler.text import parse_graph, print_graph
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.runtime import settings

NODES = 20_000


def pointwise(b: Builder, x: Ref, n: int) -> Ref:
    """A chain that fuses."""
    for i in range(n):
        x = b.add(("neg", "abs", "exp")[i % 3], x)
    return x


def contractions(b: Builder, x: Ref, n: int) -> Ref:
    """A chain of kernels, each with a buffer of its own."""
    w = b.weight(TensorType(DType.F32, (4, 4)))
    for _ in range(n):
        x = b.add("linear", x, w)
    return x


def moves(b: Builder, x: Ref, n: int) -> Ref:
    """A chain of views, read once at its end."""
    for i in range(n - 1):
        x = b.add("permute", x, dims=(1, 0)) if i % 2 else b.add("flip", x, dim=0)
    return b.add("neg", x)


def moves_between(b: Builder, x: Ref, n: int) -> Ref:
    """Pointwise work, with views all along."""
    for _ in range(n // 2):
        x = b.add("neg", b.add("permute", x, dims=(1, 0)))
    return x


def comb(b: Builder, x: Ref, n: int) -> Ref:
    """A chain of views, each of them read."""
    for _ in range(n // 3):
        x = b.add("permute", x, dims=(1, 0))
        b.add("neg", x)
        last = b.add("exp", x)
    return last


def wide(b: Builder, x: Ref, n: int) -> Ref:
    """Many values that live at once, added up by a tree."""
    w = b.weight(TensorType(DType.F32, (4, 4)))
    row = [b.add("linear", b.add("mul", x, b.const(_number(i))), w) for i in range(n // 3)]
    while len(row) > 1:
        pairs = [b.add("add", row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)]
        row = pairs + row[2 * len(pairs) :]
    return row[0]


def many_outputs(b: Builder, x: Ref, n: int) -> tuple[Ref, ...]:
    """As a training step has, with as many parameters."""
    return tuple(b.add("mul", x, b.const(_number(i))) for i in range(n))


def _number(i: int) -> object:
    import numpy as np

    return np.float32(i + 2)


SHAPES = (pointwise, contractions, moves, moves_between, comb, many_outputs, wide)


def graph_of(shape: Callable[[Builder, Ref, int], Ref], n: int) -> Graph:
    b = Builder()
    x = b.input(TensorType(DType.F32, (4, 4)))
    y = shape(b, x, n)
    return b.finish(y if isinstance(y, tuple) else (y,))


def measure(shape: Callable[[Builder, Ref, int], Ref], n: int) -> dict[str, float]:
    """Seconds of each part."""
    import numpy as np

    seconds: dict[str, float] = {}
    known: dict[str, object] = {}

    def part(name: str, work: Callable[[], object]) -> object:
        start = time.process_time()
        known[name] = work()
        seconds[name] = time.process_time() - start
        return known[name]

    g = graph_of(shape, n)
    text = part("print", lambda: print_graph(g))
    part("parse", lambda: parse_graph(str(text)))
    part("check", lambda: legal.check(g))
    part("canonicalise", lambda: canonicalise(g))
    bound = part("bind", lambda: bind_graph(g, {}))
    part("instance", lambda: make_instance(g, {}))
    assert isinstance(bound, Graph)
    panel = _core.panel(settings.isa())
    part("plan", lambda: plan(bound, panel=panel))
    part("plan, hashed", lambda: plan(bound, panel=panel, hash_values=True))
    part("plan, kept", lambda: plan(bound, panel=panel, hash_values=True, keep_values=True))
    weights = [np.eye(4, dtype=np.float32) for _ in g.weights]
    outputs = tuple(f"y{i}" for i in range(len(g.outputs)))
    p = Program(g, Names(("x",), outputs, tuple(f"w{i}" for i in range(len(weights)))), weights)
    with tempfile.TemporaryDirectory() as d:
        part("save", lambda: artifact.save(p, Path(d) / "p.ree"))
        part("load", lambda: artifact.load(Path(d) / "p.ree"))
    return seconds


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else NODES
    for shape in SHAPES:
        half, whole = measure(shape, n // 2), measure(shape, n)
        for name, s in whole.items():
            print(
                f"{shape.__name__:14} {name:13} {s:8.3f} s  x{s / max(half[name], 1e-9):.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
