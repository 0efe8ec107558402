"""Legal programs at random, for tests.

Attributes at their extremes, sizes beside the borders of leaves and segments, sources behind moves, constants;
inputs and weights with NaN payloads, and bools of other bytes than 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from ree.compiler import legal
from ree.compiler.ir import Builder, Kind, Ref
from ree.kernels import opdef, registry, schema
from ree.kernels.canonical import FLOATS, canonical
from ree.kernels.opdef import Array, Sample
from ree.kernels.samples import SPECIAL, patterns
from ree.kernels.schema import Attr, AttrValue
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program

One = TypeVar("One")
MOST, MOST_LARGE = 1 << 15, 1 << 18  # elements of a tensor
WORK = 1 << 22  # multiply-adds and the like of a node
TRIES = 40
SIZES = [0, 1, 2, 3, 5, *(64 * k + d for k in (1, 2, 3, 16, 17, 32) for d in (-1, 0, 1))]
# one axis beyond the tensors of the others: many leaves, segments of segments, more than 16 bits
LARGE = [64 * k + d for k in (1000, 1024, 1536, 2048) for d in (-1, 0, 1)]
MOVES = 14  # between a source and what is given; the contracts take 12
_FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0**-149, 2.0**-126, 3.4028234663852886e38, float("inf"), float("-inf"),
           float("nan")]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A program and what it is given; `text`: its operators."""

    program: Program
    given: list[Array]
    text: str


class Nothing(Exception):
    """This seed gives no program: what it chose is not legal, or not this small."""


class Maker:
    """One program; large: with an axis of LARGE."""

    def __init__(self, seed: int, large: bool = False) -> None:
        self.rng, self.large = np.random.default_rng(seed), large
        self.most = MOST_LARGE if large else MOST
        self.b, self.inputs, self.weights = Builder(), list[Array](), list[Array]()
        self.values: list[tuple[Ref, TensorType]] = []

    def make(self) -> Case:
        """The program; Nothing."""
        for _ in range(1 if self.large else int(self.rng.integers(1, 4))):
            self._node()
        outs = [ref for ref, _ in self.values[-3:]]
        outs = [self.b.add("neg", r) if t.dtype is DType.F32 and self._one_in(3) else r
                for r, t in zip(outs, [t for _, t in self.values[-3:]], strict=True)]  # fmt: skip
        if self._one_in(8):  # what is given, a constant, or the same again
            given = [Ref(k, i) for k, x in ((Kind.INPUT, self.inputs), (Kind.WEIGHT, self.weights),
                     (Kind.CONST, self.b.consts)) for i in range(len(x))]  # fmt: skip
            outs.append(self._pick([*given, outs[-1]]))
        graph = self.b.finish(tuple(outs))
        legal.check(graph)
        named = {c: tuple(f"{c}{i}" for i in range(len(x)))
                 for c, x in (("i", self.inputs), ("o", outs), ("w", self.weights))}  # fmt: skip
        names = Names(named["i"], named["o"], named["w"])
        text = "; ".join(f"{n.op}{dict(n.attrs)}->{n.results[0]}" for n in graph.nodes)
        return Case(Program(graph, names, tuple(self.weights)), self.inputs, text)

    def _one_in(self, n: int) -> bool:
        return bool(self.rng.integers(n) == 0)

    def _pick(self, x: Sequence[One]) -> One:
        return x[int(self.rng.integers(len(x)))]

    def _node(self) -> None:
        for _ in range(TRIES * (1 + 9 * self.large)):
            op = self._pick(registry.names())
            found = _samples(op)
            if not found:
                continue
            sample = self._pick(found)
            types, attrs = self._changed(op, sample)
            try:
                node = opdef.bind(op, types, attrs, {})
                cost = opdef.get(op).cost(node)
            except (ValueError, KeyError, TypeError, IndexError, OverflowError):
                continue
            sizes = [t.numel for t in (*node.inputs, *node.outputs)]
            if max(sizes, default=0) > self.most or cost.flops > WORK:
                continue
            if self.large and max(sizes, default=0) < min(LARGE):
                continue
            hops = MOVES if self._one_in(20) else 2
            refs = tuple(
                self._source(t, x, hops) for t, x in zip(types, sample.inputs, strict=True)
            )
            made = self.b.add_node(op, refs, attrs)
            self.values += [
                (Ref(Kind.VALUE, made.first + i), t) for i, t in enumerate(made.results)
            ]
            return
        raise Nothing

    def _changed(self, op: str, s: Sample) -> tuple[list[TensorType], dict[str, AttrValue]]:
        """A sample's types and attributes, one or the other changed."""
        types = [TensorType(DType.of(x.dtype), x.shape) for x in s.inputs]
        attrs = dict(s.attrs)
        sizes = sorted({d for t in types for d in t.dims})
        if sizes and not self._one_in(3):
            old, new = self._pick(sizes), self._pick(LARGE if self.large else SIZES)
            types = [
                TensorType(t.dtype, tuple(new if d == old else d for d in t.dims)) for t in types
            ]
            for k, v in attrs.items():  # a shape that names the size too
                if isinstance(v, tuple):
                    attrs[k] = tuple(new if x == old else x for x in v)
        if attrs and not self._one_in(2):
            name = self._pick(sorted(attrs))
            attrs[name] = self._value(opdef.get(op).closed_schema[name], attrs[name])
        return types, attrs

    def _value(self, a: Attr, v: AttrValue) -> AttrValue:
        k = schema.AttrKind
        if a.kind is k.BOOL:
            return not v
        if a.kind is k.F32 or (a.kind is k.NUMBER and isinstance(v, float)):
            return float(self._pick(_FLOATS))
        if a.kind is k.DTYPE:
            return self._pick(list(DType))
        if a.kind is k.NUMBER and isinstance(v, bool):
            return not v
        if isinstance(v, tuple):
            if not v:
                return v
            i = int(self.rng.integers(len(v)))
            return (*v[:i], self._integer(a, v[i]), *v[i + 1 :])
        return self._integer(a, v)

    def _integer(self, a: Attr, v: AttrValue) -> int:
        near = v if isinstance(v, int) else 0
        low, high = (-(2**63), 2**63 - 1) if a.kind is schema.AttrKind.NUMBER else (a.low, a.high)
        wanted = [
            low,
            low + 1,
            high,
            high - 1,
            near - 1,
            near + 1,
            0,
            1,
            2,
            self._pick(SIZES),
            near // 2,
        ]
        return int(min(max(self._pick(wanted), low), high))

    # sources

    def _source(self, t: TensorType, like: Array, hops: int) -> Ref:
        """Something of a type, with numbers like those of an array where it is given anew."""
        known = [r for r, u in self.values if u == t]
        if known and t.dtype is not DType.I64 and self._one_in(2):
            return self._pick(known)
        if hops and (hops > 2 or not self._one_in(3)):
            return self._moved(t, like, hops - 1)
        data = self._numbers(t, like)
        if t.numel <= 512 and self._one_in(4):
            return self.b.const(canonical(data))
        if self._one_in(4):
            self.weights.append(data)
            return self.b.weight(t)
        self.inputs.append(data)
        return self.b.input(t)

    def _moved(self, t: TensorType, like: Array, hops: int) -> Ref:
        """A source behind a move that gives the type."""
        dims, rank = t.dims, len(t.dims)
        kind = self._pick(["view", "permute", "slice", "flip", "broadcast", "pad"])
        i = int(self.rng.integers(rank)) if rank else 0

        def given(*shape: int) -> Ref:
            return self._source(TensorType(t.dtype, shape), like, hops)

        if kind == "view" or rank == 0:
            return self.b.add("view", given(t.numel), shape=dims)
        if kind == "permute":
            order = tuple(int(x) for x in self.rng.permutation(rank))
            shape = [0] * rank
            for at, d in enumerate(order):
                shape[d] = dims[at]
            return self.b.add("permute", given(*shape), dims=order)
        if kind == "slice" and dims[i]:
            start, step_ = (int(x) for x in self.rng.integers(0, 4, 2) + np.array([0, 1]))
            stop = start + step_ * (dims[i] - 1) + 1
            size = stop + int(self.rng.integers(3))
            if size * t.numel // dims[i] <= 4 * MOST:
                big = given(*dims[:i], size, *dims[i + 1 :])
                return self.b.add("slice", big, dim=i, start=start, stop=stop, step=step_)
        if kind == "broadcast":
            return self.b.add("expand", given(*dims[:i], 1, *dims[i + 1 :]), shape=dims)
        if kind == "pad" and t.dtype is DType.F32 and dims[i] > 1:
            low = [0] * rank
            low[i] = int(self.rng.integers(-2, dims[i]))
            inner = given(*dims[:i], dims[i] - low[i], *dims[i + 1 :])
            value = float(self._pick(_FLOATS[:-1]))
            return self.b.add("pad", inner, low=tuple(low), high=(0,) * rank, value=value)
        return self.b.add("flip", given(*dims), dim=i)

    def _numbers(self, t: TensorType, like: Array) -> Array:
        """Numbers of a type: floats of every pattern and any NaN, others as in an array; bools of any byte."""
        if t.dtype is DType.F32:
            found = list(patterns(t.dims, int(self.rng.integers(1 << 31))))
            x: Array = np.array(self._pick(found)[1])
            if x.size and self._one_in(3):
                self.payloads(x)
            elif x.size and self._one_in(3):
                x.reshape(-1)[self.rng.integers(0, x.size)] = self.rng.choice(SPECIAL)
            return x
        if like.size == 0 or DType.of(like.dtype) is not t.dtype:
            return np.zeros(t.dims, t.dtype.numpy)
        y = np.array(self.rng.choice(like.reshape(-1), t.dims), t.dtype.numpy)
        if y.size and self._one_in(3):
            self.payloads(y)
        return y

    def payloads(self, x: Array) -> None:
        """NaNs of any pattern and zeros of either sign in some places of floats, any byte in some of bools."""
        at = self.rng.integers(0, x.size, max(1, x.size // 50))
        if x.dtype == np.bool_:
            x.reshape(-1).view(np.uint8)[at] = self.rng.integers(0, 256, at.size)
        if DType.of(x.dtype) not in FLOATS:
            return
        kind, infinity, _ = FLOATS[DType.of(x.dtype)]
        sign = 1 << (8 * x.itemsize - 1)
        found = self.rng.integers(infinity + 1, sign, at.size)
        found = np.where(self.rng.integers(0, 5, at.size) == 0, 0, found)
        x.reshape(-1).view(kind)[at] = found | self.rng.choice([0, sign], at.size)


@lru_cache(maxsize=256)
def _samples(op: str) -> list[Sample]:
    return [s for s in opdef.get(op).samples() if len(s.inputs) <= 4
            and all(x.size <= MOST for x in s.inputs)]  # fmt: skip
