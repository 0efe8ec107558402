"""Linear layers in 8-bit integers: weights rounded once per row, activations per row in every run.

    q, step, middle = quantise_rows(x, factor)      kernels/ops/quantising.py
    y = fma(sums, middle, f32(sum of q * qw, exact) * step) * scale

qw is w / factor by row, w / factor = qw * scale, the greatest magnitude of a row 127; sums has the sum of qw
in a row, an integer. A row of x with an infinity or a NaN is NaN throughout.
Factors are powers of two, one a column of x, that even out what x and w have in a column (Xiao et al.,
"SmoothQuant", 2022).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ree.compiler.ir import Graph, Kind, Node, Ref
from ree.compiler.passes.canonical import canonicalise, drop_dead
from ree.compiler.passes.rewrite import copy_node, start, translate
from ree.kernels.numerics import F32
from ree.kernels.opdef import Array
from ree.kernels.ops.contraction_i8 import LONGEST
from ree.kernels.ops.quantising import GREATEST, LEAST
from ree.kernels.types import DType, TensorType, product

FLOATS = (DType.F32, DType.F16, DType.BF16)
SHARE = 0.5  # of the evening out that falls to the weights, by logarithm; measured on MiniLM
FARTHEST = 20  # exponent of a factor


class What(enum.Enum):
    """What a weight of a quantised graph is made of."""

    GIVEN = "as it is"
    BYTES = "bytes"
    SCALES = "scales"
    SUMS = "sums"
    FACTORS = "factors"


@dataclass(frozen=True)
class Made:
    """One weight of a quantised graph: of which given weight, and for which source of the given graph; -1
    and None where there is none. turned: the given weight lies [K, N]."""

    what: What
    weight: int = -1
    source: Ref | None = None
    turned: bool = False


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer of the given graph that is quantised: its node, its source, its weight; turned: which
    lies [K, N]."""

    node: Node
    source: Ref
    weight: Ref
    turned: bool


@dataclass(frozen=True)
class LinearLayers:
    """Those to be quantised, and why the others stay as they are."""

    chosen: tuple[LinearLayer, ...]
    kept: tuple[tuple[Node, str], ...]

    @property
    def sources(self) -> tuple[Ref, ...]:
        """What they read, each once."""
        return tuple(dict.fromkeys(x.source for x in self.chosen))


def linear_layers(g: Graph, finite: Sequence[bool]) -> LinearLayers:
    """Every `linear` or `matmul` by a weight, as it is or widened from half precision. finite: whether a
    weight is."""
    typer, chosen, kept = g.typer(), [], []
    for n, w in _products(g):
        if w.kind is not Kind.WEIGHT or typer(w).dtype not in FLOATS:
            kept.append((n, "its second source is not a weight"))
            continue
        turned = n.op == "matmul"
        k = typer(w).dims[0 if turned else 1]
        if not k:
            kept.append((n, "no products to a sum"))
        elif k > LONGEST:
            kept.append((n, f"{k} products to a sum, at most {LONGEST}"))
        elif not finite[w.index]:
            kept.append((n, "its weight is not finite"))
        else:
            chosen.append(LinearLayer(n, n.sources[0], w, turned))
    return LinearLayers(tuple(chosen), tuple(kept))


def _products(g: Graph) -> Iterator[tuple[Node, Ref]]:
    """Every linear layer, and the weight that it multiplies by or what else that is: each `linear`, and each
    `matmul` by a weight that is a matrix."""
    producers, typer = g.producers(), g.typer()
    for n in g.nodes:
        if n.op in ("linear", "matmul"):
            w = n.sources[1]
            if w.kind is Kind.VALUE and producers[w.index].op == "cast":
                w = producers[w.index].sources[0]
            if n.op == "linear" or (w.kind is Kind.WEIGHT and typer(w).rank == 2):
                yield n, w


def column_maxima(g: Graph, sources: Sequence[Ref]) -> Graph:
    """The program that gives the greatest magnitude in each column of values of g, f32 [K] each."""
    b = start(g)
    b.consts = list(g.consts)
    for n in g.nodes:
        b.add_again(n, {})
    outputs = []
    for s in sources:
        shape = b.type_of(s).shape
        rows = b.add("view", b.add("abs", s), shape=(product(shape[:-1]), shape[-1]))
        none = b.add(
            "full", shape=(1, shape[-1]), value=0.0, dtype=DType.F32
        )  # there may be no rows
        outputs.append(b.add("amax", b.add("cat", none, rows, dim=0), dim=0, keepdim=False))
    return drop_dead(b.finish(tuple(outputs)))


def quantise_weight(w: Array) -> tuple[Array, F32, F32]:
    """Bytes i8 [N, K], scales and sums f32 [N] of a finite matrix of float32."""
    top = np.maximum(np.abs(w).max(axis=1, initial=0.0), np.float32(LEAST))
    with np.errstate(under="ignore"):
        q = np.rint(w * (np.float32(GREATEST) / top)[:, None])
        sums: F32 = q.sum(axis=1, dtype=np.float64).astype(np.float32)  # whole numbers below 2^24
        return q.astype(np.int8), top / np.float32(GREATEST), sums


def factors(x: F32, weights: Sequence[F32]) -> F32:
    """Powers of two [K] for activations whose greatest magnitudes in a column are x, and the weights [N, K]
    that they meet."""
    w = np.max([np.abs(v).max(axis=0, initial=0.0) for v in weights], axis=0)
    known = (x > 0) & (w > 0) & np.isfinite(x) & (w < 2.0**100)  # w / factor stays finite
    ratio = np.log2(np.where(known, w, 1)) * (1 - SHARE) - np.log2(np.where(known, x, 1)) * SHARE
    middle = np.median(ratio[known]) if known.any() else 0.0
    exponent = np.clip(np.rint(np.where(known, ratio - middle, 0)), -FARTHEST, FARTHEST)
    out: F32 = np.exp2(exponent).astype(np.float32)
    return out


def quantised(g: Graph, layers: LinearLayers, smoothed: bool) -> tuple[Graph, tuple[Made, ...]]:
    """The graph with these layers in bytes, and what its weights are made of. smoothed: with factors."""
    b = start(g)
    made = [Made(What.GIVEN, i) for i in range(len(g.weights))]

    def weight(t: TensorType, m: Made) -> Ref:
        made.append(m)
        return b.weight(t)

    factor: dict[Ref, tuple[Ref, ...]] = {}
    for s in layers.sources:
        t = TensorType(DType.F32, g.type_of(s).shape[-1:])
        factor[s] = (weight(t, Made(What.FACTORS, -1, s)),) if smoothed else ()
    held: dict[tuple[Ref, Ref | None, bool], tuple[Ref, ...]] = {}
    rows: dict[Ref, Node] = {}
    by_node = {x.node.first: x for x in layers.chosen}
    new: dict[Ref, Ref] = {}
    for n in g.nodes:
        b.origin = n.origin
        sources = tuple(translate(b, g, new, s) for s in n.sources)
        x = by_node.get(n.first)
        if x is None:
            for i, ref in enumerate(copy_node(b, n, sources)):
                new[Ref(Kind.VALUE, n.first + i)] = ref
            continue
        key = (x.weight, x.source if smoothed else None, x.turned)
        if key not in held:
            n_rows, k = g.type_of(x.weight).dims[:: -1 if x.turned else 1]
            of = (x.weight.index, *key[1:])
            row = TensorType(DType.F32, (n_rows,))
            held[key] = (weight(TensorType(DType.I8, (n_rows, k)), Made(What.BYTES, *of)),
                         weight(row, Made(What.SCALES, *of)), weight(row, Made(What.SUMS, *of)))  # fmt: skip
        if x.source not in rows:
            rows[x.source] = b.add_node("quantise_rows", (sources[0], *factor[x.source]), {})
        q, (w, scale, sums) = rows[x.source], held[key]
        step, middle = (Ref(Kind.VALUE, q.first + i) for i in (1, 2))
        total = b.add("cast", b.add("linear_i8", q.value, w), dtype=DType.F32)
        total = b.add("fma", sums, middle, b.add("mul", total, step))
        new[n.value] = b.add("mul", total, scale)
    graph = canonicalise(b.finish(tuple(translate(b, g, new, r) for r in g.outputs)))
    used = {s.index for n in graph.nodes for s in n.sources if s.kind is Kind.WEIGHT}
    order = sorted(used | {r.index for r in graph.outputs if r.kind is Kind.WEIGHT})
    return with_weights(graph, order), tuple(made[i] for i in order)


def with_weights(g: Graph, order: Sequence[int]) -> Graph:
    """The graph with these of its weights, in this order; nothing reads another."""
    place = {Ref(Kind.WEIGHT, i): Ref(Kind.WEIGHT, j) for j, i in enumerate(order)}
    b = start(g)
    b.weights, b.consts = [g.weights[i] for i in order], list(g.consts)
    for n in g.nodes:
        b.add_again(n, place)
    return b.finish(tuple(place.get(r, r) for r in g.outputs))


def quantised_layers(g: Graph) -> tuple[int, int]:
    """How many linear layers are in bytes, and how many are not."""
    return sum(n.op == "linear_i8" for n in g.nodes), sum(1 for _ in _products(g))
