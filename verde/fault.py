"""Planted lies: one bit flipped in one operation of a run, and all that follows recomputed.

What a cheating provider would commit to; for tests and demonstrations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ree.compiler.ir import Graph, Kind, Node, Ref
from ree.kernels import rowprogram
from ree.kernels.opdef import Array, apply
from ree.kernels.types import DType
from ree.program import Names, Program
from ree.verde.derivation import (
    Derivation,
    Equal,
    Undecidable,
    Witness,
    execute,
    resolve,
    store_bits,
)
from ree.verde.moves import State
from ree.verde.party import Party, Run
from ree.verde.scope import ROW, VALUES, ProgramScope, RowScope


@dataclass(frozen=True)
class Fault:
    """Where a lie starts: a value, one element of it, and the operation whose result has `flip` xored in.
    For a composite, `row` names a node of its row program and the element of it that is false."""

    value: int
    element: int
    operation: int
    flip: int = 1
    row: tuple[int, int] | None = None


def false_entries(d: Derivation, sources: Sequence[Array], at: int, flip: int) -> list[int]:
    """A derivation with one false result, and everything after it in keeping with it."""
    entries: list[int] = []
    for i in range(d.count):
        op = d.operation(i)
        if isinstance(op, Witness):
            entries.append(d.choose(i, sources))
        elif isinstance(op, Equal):  # a liar claims that it holds
            entries.append(resolve(op.other, entries.__getitem__, sources))
        else:
            try:
                entries.append(execute(op, lambda o: resolve(o, entries.__getitem__, sources)))
            except Undecidable:  # an index that the lie has put out of range
                entries.append(0)
        if i == at:
            entries[i] ^= flip
    return entries


def with_bits(x: Array, element: int, bits: int) -> Array:
    """A copy of x with one element replaced."""
    y = np.array(x)
    raw = store_bits(bits, DType.of(y.dtype))
    y.reshape(-1)[element] = np.frombuffer(raw, y.dtype)[0]
    return y


def recompute(graph: Graph, run: Run, value: int, array: Array) -> Run:
    """The run in which a value is `array`, and all values after it follow from that."""
    inputs, weights = run.arrays["inputs"], run.arrays["weights"]
    states = run.arrays["states"]
    n = len(graph.inputs)

    def cut(r: Ref) -> Ref:
        if r.kind is Kind.STATE:
            return Ref(Kind.INPUT, n + 1 + r.index)
        return Ref(Kind.INPUT, n) if r == Ref(Kind.VALUE, value) else r

    nodes = tuple(Node(x.op, tuple(map(cut, x.sources)), x.attrs, x.results, x.first, x.origin)
                  for x in graph.nodes)  # fmt: skip
    types = (*graph.inputs, graph.value_types()[value], *graph.states)
    after = Graph((), types, graph.weights, graph.consts, nodes, tuple(map(cut, graph.outputs)),
                  graph.contract)  # fmt: skip
    names = Names(tuple(f"i{i}" for i in range(len(types))), tuple(f"o{i}" for i in range(len(graph.outputs))),
                  tuple(f"w{i}" for i in range(len(weights))))  # fmt: skip
    program = Program(after, names, [w for w in weights if w is not None])
    values = program.run(*inputs, array, *states, trace="ops", keep_values=True).values
    given = [x for x in inputs if x is not None]
    return Run(graph, given, [w for w in weights if w is not None], {**values, value: array},
               [x for x in states if x is not None])  # fmt: skip


class Liar(Party):
    """A party whose run has a fault, and who defends it as well as can be done."""

    def __init__(self, honest: Run, fault: Fault, instance: bytes) -> None:
        self.fault = fault
        super().__init__(self._false_run(honest), instance)

    def _false_run(self, honest: Run) -> Run:
        f, scope = self.fault, honest.scope
        sources = honest.sources(f.value)
        x = honest.of(Ref(Kind.VALUE, f.value))
        if f.row is None:
            d = scope.derivation(VALUES, f.value, f.element)
            bits = false_entries(d, sources, f.operation, f.flip)[-1]
        else:
            inner = self._inner(scope)
            last = np.ascontiguousarray(self._false_rows(scope, sources)[-1]).reshape(-1)
            bits = int.from_bytes(last[inner.element : inner.element + 1].tobytes(), "little")
        return recompute(honest.graph, honest, f.value, with_bits(x, f.element, bits))

    def _inner(self, scope: ProgramScope) -> RowScope:
        program = scope.row_program(VALUES, self.fault.value)
        assert program is not None  # a fault in a row is one of a composite
        return RowScope(scope, (VALUES, self.fault.value, self.fault.element), program)

    def _false_rows(self, scope: ProgramScope, sources: Sequence[Array]) -> list[Array]:
        """The row program of the false element, with its false node."""
        f = self.fault
        assert f.row is not None
        inner = self._inner(scope)
        values = rowprogram.given(inner.program, sources, f.element)
        for i, n in enumerate(inner.program.nodes):
            args = [values[j] for j in n.sources]
            y = apply(n.op, args, n.attrs)[0]
            if i == f.row[0]:
                entries = false_entries(
                    inner.derivation(ROW, i, f.row[1]), args, f.operation, f.flip
                )
                y = with_bits(y, f.row[1], entries[-1])
            values.append(y)
        return values

    def row_values(self, owner: tuple[str, int, int]) -> list[Array]:
        f = self.fault
        if f.row is not None and owner == (VALUES, f.value, f.element):
            return self._false_rows(self.run.scope, self.run.sources(f.value))
        return super().row_values(owner)

    def derived(self, s: State, d: Derivation, sources: Sequence[Array]) -> list[int]:
        f = self.fault
        here = (s.tree, s.tensor, s.element) == (VALUES, f.value, f.element) and f.row is None
        if s.owner == (VALUES, f.value, f.element) and f.row == (s.tensor, s.element):
            here = True
        return (
            false_entries(d, sources, f.operation, f.flip)
            if here
            else super().derived(s, d, sources)
        )
