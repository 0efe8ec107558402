"""Matrices as a model's file keeps them, narrower than float32, and the program that computes with those.

The program widens them with the operations that define their values, so it has the bits of the program with
float32 weights; what is read at run time is the narrow form (compiler/plan/stored.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ree.compiler.ir import Graph, Kind, Ref, users
from ree.compiler.passes.canonical import canonicalise
from ree.compiler.passes.rewrite import copy_node, start, translate
from ree.kernels.opdef import Array
from ree.kernels.types import DType, TensorType
from ree.program import Program

WEIGHTS = (
    "stored",
    "f32",
)  # how a program keeps the matrices of a file: as the file does, or widened


@dataclass(frozen=True)
class NarrowMatrix:
    """A matrix [n, k].

    elements: bf16 or f16 [n, k], or i8 [n, k / block, block]; dtype: theirs. scale, offset: of i8, float32
    [n, k / block, 1]; an element is scale * q, or scale * q + offset.
    """

    elements: Array
    dtype: DType
    scale: Array | None = None
    offset: Array | None = None

    def widened(self) -> Array:
        """The matrix in float32."""
        if self.dtype is DType.BF16:
            return (self.elements.astype(np.uint32) << 16).view(np.float32)
        x: Array = self.elements.astype(np.float32)
        if self.scale is not None:
            np.multiply(x, self.scale, out=x)
        if self.offset is not None:
            np.add(x, self.offset, out=x)
        return x.reshape(len(x), -1)

    def rows(self, move: Callable[[Array], Array]) -> NarrowMatrix:
        """The matrix with its rows moved as `move` moves those of an array."""
        terms = [None if x is None else move(x) for x in (self.scale, self.offset)]
        return NarrowMatrix(move(self.elements), self.dtype, *terms)

    @property
    def parts(self) -> dict[str, tuple[DType, Array]]:
        """What the program has in place of the matrix, by what is added to its name."""
        if self.scale is None:
            return {"": (self.dtype, self.elements)}
        out = {".q": (self.dtype, self.elements), ".scale": (DType.F32, self.scale)}
        return out if self.offset is None else {**out, ".offset": (DType.F32, self.offset)}


def by_name(
    module: Any, matrices: Mapping[str, NarrowMatrix], prefix: str
) -> dict[str, NarrowMatrix]:
    """Matrices by every name, behind a prefix, that the module has for their parameter; matrices: by one of
    these names."""
    named = dict(module.named_parameters(remove_duplicate=False))
    of = {id(named[n]): m for n, m in matrices.items() if n in named}
    return {prefix + n: of[id(p)] for n, p in named.items() if id(p) in of}


def parameters(program: Program) -> int:
    """How many numbers a model has; what they are multiplied by and moved by does not count."""
    names = set(program.names.weights)
    terms = {
        n.removesuffix(".q") + t for n in names if n.endswith(".q") for t in (".scale", ".offset")
    }
    return sum(
        w.size
        for n, w in zip(program.names.weights, program.weights, strict=True)
        if n not in terms
    )


def narrowed(program: Program, matrices: Mapping[str, NarrowMatrix]) -> Program:
    """The program with its float32 weights of these names, and of these values, in their narrow form.

    A weight that is read otherwise than as a matrix of products or a table of rows stays as it is.
    """
    g, names = program.graph, program.names
    read_otherwise = {
        r
        for r, n in users(g)
        if (n.op, n.sources.index(r)) not in (("linear", 1), ("embedding", 0))
    }
    read_otherwise |= set(g.outputs)
    chosen = {}
    for i, name in enumerate(names.weights):
        m, ref = matrices.get(name), Ref(Kind.WEIGHT, i)
        if m is not None and ref not in read_otherwise and _is(program.weights[i], m):
            chosen[ref] = m
    return _Narrowing(program, chosen).run() if chosen else program


def _is(x: Array, m: NarrowMatrix) -> bool:
    """Whether a weight has the very bits of a matrix."""
    if x.dtype != np.float32 or x.ndim != 2:
        return False
    wide = m.widened()
    return x.shape == wide.shape and np.array_equal(x.view(np.uint32), wide.view(np.uint32))


class _Narrowing:
    def __init__(self, program: Program, chosen: Mapping[Ref, NarrowMatrix]) -> None:
        self.program, self.chosen = program, chosen
        self.b = start(program.graph)
        self.b.weights = []
        self.names: list[str] = []
        self.weights: list[Array] = []
        self.parts: dict[Ref, dict[str, Ref]] = {}  # of a weight that is replaced
        self.place: dict[Ref, Ref] = {}  # of one that is not
        self.wide: dict[Ref, Ref] = {}  # the value that a matrix widens to

    def run(self) -> Program:
        g, p = self.program.graph, self.program
        for name, ref, key, x in sorted(self._all_weights(), key=lambda w: w[0]):
            self.names.append(name)
            self.weights.append(x)
            dtype = g.type_of(ref).dtype if key is None else self.chosen[ref].parts[key][0]
            made = self.b.weight(TensorType(dtype, x.shape))
            if key is None:
                self.place[ref] = made
            else:
                self.parts.setdefault(ref, {})[key] = made
        new: dict[Ref, Ref] = {}
        for n in g.nodes:
            self.b.origin = n.origin
            if n.op == "embedding" and n.sources[0] in self.chosen:
                results: tuple[Ref, ...] = (
                    self._rows(n.sources[0], self._source(g, new, n.sources[1])),
                )
            else:
                results = copy_node(self.b, n, tuple(self._source(g, new, s) for s in n.sources))
            new.update({Ref(Kind.VALUE, n.first + i): r for i, r in enumerate(results)})
        graph = canonicalise(self.b.finish(tuple(self._source(g, new, r) for r in g.outputs)))
        return Program(
            graph, replace(p.names, weights=tuple(self.names)), self.weights, files=p.files
        )

    def _all_weights(self) -> Iterator[tuple[str, Ref, str | None, Array]]:
        """Name, the weight that it is of, as which of its parts, and array."""
        for i, name in enumerate(self.program.names.weights):
            ref = Ref(Kind.WEIGHT, i)
            if ref not in self.chosen:
                yield name, ref, None, self.program.weights[i]
                continue
            for key, (_, x) in self.chosen[ref].parts.items():
                yield name + key, ref, key, x

    def _source(self, g: Graph, new: dict[Ref, Ref], s: Ref) -> Ref:
        if s.kind is not Kind.WEIGHT:
            return translate(self.b, g, new, s)
        if s in self.place:
            return self.place[s]
        if s not in self.wide:
            parts = self.parts[s]
            self.wide[s] = self._widened(parts)
        return self.wide[s]

    def _widened(self, parts: Mapping[str, Ref]) -> Ref:
        """Elements as float32, and times their scales and plus their offsets."""
        b, f32 = self.b, DType.F32
        if "" in parts:
            return b.add("cast", parts[""], dtype=f32)
        x = b.add("mul", b.add("cast", parts[".q"], dtype=f32), parts[".scale"])
        if ".offset" in parts:
            x = b.add("add", x, parts[".offset"])
        *rows, blocks, block = b.type_of(x).shape
        return b.add("view", x, shape=(*rows, blocks * block))

    def _rows(self, table: Ref, index: Ref) -> Ref:
        """Rows of a matrix: those of its parts, widened."""
        b, rows = self.b, {}
        for k, part in self.parts[table].items():
            n, *row = b.type_of(part).dims
            flat = part if len(row) == 1 else b.add("view", part, shape=(n, row[0] * row[1]))
            taken = b.add("embedding", flat, index)
            shape = (*b.type_of(index).shape, *row)
            rows[k] = taken if len(row) == 1 else b.add("view", taken, shape=shape)
        return self._widened(rows)
