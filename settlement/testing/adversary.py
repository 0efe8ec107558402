"""Legal programs at random, for tests, and what must hold of each.

Attributes at their extremes, sizes beside the borders of leaves and segments, sources behind moves, constants,
inputs with NaN payloads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np

from ree import _core
from ree.compiler import legal
from ree.compiler.interp import outputs
from ree.compiler.ir import Builder, Kind, Ref
from ree.errors import ReeError
from ree.kernels import opdef, registry, schema
from ree.kernels.canonical import canonical
from ree.kernels.opdef import Array, Sample
from ree.kernels.samples import SPECIAL, patterns
from ree.kernels.schema import Attr, AttrValue
from ree.kernels.types import DType, TensorType
from ree.program import Names, Program
from ree.settlement.bounds import refusals
from ree.settlement.evidence import Evidence
from ree.settlement.testing.referee import play, step
from ree.verde.game import Game
from ree.verde.party import Party, run_of
from ree.verde.rehearsal import borders, picked, prove
from ree.verde.scope import VALUES, ProgramScope, computed
from ree.verde.testing import dispute

One = TypeVar("One")
MOST = 1 << 15  # elements of a tensor
WORK = 1 << 22  # multiply-adds and the like of a node
TRIES = 40
SIZES = [0, 1, 2, 3, 5, *(64 * k + d for k in (1, 2, 3, 16, 17, 32) for d in (-1, 0, 1))]
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
    """One program."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.b, self.inputs, self.weights = Builder(), list[Array](), list[Array]()
        self.values: list[tuple[Ref, TensorType]] = []

    def make(self) -> Case:
        """The program; Nothing."""
        for _ in range(int(self.rng.integers(1, 4))):
            self._node()
        outs = [ref for ref, _ in self.values[-3:]]
        outs = [self.b.add("neg", r) if t.dtype is DType.F32 and self._one_in(3) else r
                for r, t in zip(outs, [t for _, t in self.values[-3:]], strict=True)]  # fmt: skip
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
        for _ in range(TRIES):
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
            if max(sizes, default=0) > MOST or cost.flops > WORK:
                continue
            refs = tuple(self._source(t, x, 2) for t, x in zip(types, sample.inputs, strict=True))
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
            old, new = self._pick(sizes), self._pick(SIZES)
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
        k = schema.Kind
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
        low, high = (-(2**63), 2**63 - 1) if a.kind is schema.Kind.NUMBER else (a.low, a.high)
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
        if hops and not self._one_in(3):
            return self._moved(t, like, hops - 1)
        data = self._numbers(t, like)
        if t.numel <= 512 and self._one_in(4):
            return self.b.const(canonical(data))
        if self._one_in(4):
            self.weights.append(canonical(data))
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
        """Numbers of a type: floats of every pattern and any NaN, other types as in an array."""
        if t.dtype is DType.F32:
            found = list(patterns(t.dims, int(self.rng.integers(1 << 31))))
            x: Array = np.array(self._pick(found)[1])
            if x.size and self._one_in(3):
                bits = x.reshape(-1).view(np.uint32)
                many = max(1, x.size // 50)
                bits[self.rng.integers(0, x.size, many)] = self.rng.integers(
                    0x7F800001, 1 << 31, many, np.uint32
                ) | self.rng.choice(np.array([0, 1 << 31], np.uint32), many)
            elif x.size and self._one_in(3):
                x.reshape(-1)[self.rng.integers(0, x.size)] = self.rng.choice(SPECIAL)
            return x
        if like.size == 0 or DType.of(like.dtype) is not t.dtype:
            return np.zeros(t.dims, t.dtype.numpy)
        y: Array = self.rng.choice(like.reshape(-1), t.dims)
        return np.asarray(y, t.dtype.numpy)


@lru_cache(maxsize=256)
def _samples(op: str) -> list[Sample]:
    return [s for s in opdef.get(op).samples() if len(s.inputs) <= 4
            and all(x.size <= MOST for x in s.inputs)]  # fmt: skip


def check(seed: int) -> str:
    """What a seed's program came to: nothing, refused, or played with its lies. AssertionError if compiled
    code, interpreter and contracts differ, an honest party loses, or a lie stands."""
    try:
        case = Maker(seed).make()
    except Nothing:
        return "nothing"
    except Exception as e:
        e.add_note(f"seed {seed}: no program")
        raise
    rng = np.random.default_rng(seed)
    try:
        return _disputed(case, rng) if _same_bits(case, rng) else "no such index"
    except Exception as e:
        e.add_note(f"seed {seed}: {case.text}")
        raise


def _same_bits(case: Case, rng: np.random.Generator) -> bool:
    """Compiled code on every instruction set gives the interpreter's bytes, or all say that an index does not
    exist; whether there are bytes."""
    p, given = case.program, case.program.arrays(case.given)
    try:
        want: list[bytes] | None = [
            np.ascontiguousarray(y).tobytes() for y in outputs(p.graph, given, p.weights)
        ]
    except IndexError:
        want = None
    for isa in _core.isa_names():
        threads, fuse = int(rng.integers(1, 3)), bool(rng.integers(2))
        try:
            result = p.run(*case.given, isa=isa, threads=threads, fuse=fuse)
            got: list[bytes] | None = [np.ascontiguousarray(y).tobytes() for y in result.outputs]
        except ReeError as e:
            if "index" not in str(e):
                raise
            got = None
        assert got == want, f"{isa}, {threads} threads, fuse={fuse}: other bytes"
    return want is not None


def _disputed(case: Case, rng: np.random.Generator) -> str:
    instance = case.program.instance(case.program.bind_symbols(case.program.arrays(case.given)))
    evidence = Evidence(Game(ProgramScope(instance.graph)), instance)
    if refusals(evidence):
        return "refused"
    run, instance = run_of(case.program, case.given)
    party = Party(run, instance.digest)
    scope = run.scope
    on_chain = partial(step, Evidence(party.game, instance))
    open_ = computed(scope, VALUES)
    for v in open_:
        size = scope.type(VALUES, v).numel
        for e in {0, size - 1, int(rng.integers(size))}:
            there = picked(party, on_chain, v, e, rng)
            d = party.game.derivation(there)
            at = rng.permutation(borders(d.count, d.width))[:4]
            for i, end in prove(party, on_chain, there, map(int, at)):
                assert end.winner == "defender", (
                    f"operation {i} of element {e} of %{v}: {end.reason}"
                )
    if open_:
        value = int(rng.choice(open_))
        dispute(run, instance, value, rng, partial(play, Evidence(Game(run.scope), instance)))
    return "played"
