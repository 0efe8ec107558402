"""Planted lies: one bit flipped in one operation of a run, and all that follows recomputed.

What a cheating provider would commit to; for tests and demonstrations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ree.compiler.ir import Builder, Kind, Ref
from ree.kernels import rowprogram
from ree.kernels.opdef import Array, apply
from ree.kernels.types import DType
from ree.program import Names, Program
from ree.verde.derivation import (
    Derivation,
    Equal,
    Witness,
    execute,
    load_bits,
    resolve,
    store_bits,
)
from ree.verde.moves import State
from ree.verde.party import Party, Run
from ree.verde.scope import ROW, VALUES


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
            except ValueError:  # the lie has put an index out of range, of a source or a table
                entries.append(0)
        if i == at:
            entries[i] ^= flip
    return entries


def with_bits(x: Array, element: int, bits: int) -> Array:
    """A copy of x with one element replaced. MaskedFault where its type has no such bits."""
    y, dtype = np.array(x), DType.of(x.dtype)
    raw = store_bits(bits, dtype)
    if load_bits(raw, dtype) != bits:
        raise MaskedFault(f"{bits:#x} is no {dtype.text}")
    y.reshape(-1)[element] = np.frombuffer(raw, y.dtype)[0]
    return y


def recompute(run: Run, value: int, array: Array) -> Run:
    """The run in which a value is `array`, and all values after it follow from that."""
    graph, b = run.graph, Builder(run.graph.contract)
    types, given = graph.typer(), []
    here: dict[Ref, Ref] = {}  # sources of the run, in the program of what follows
    changed = {Ref(Kind.VALUE, value)}

    def source(r: Ref) -> Ref:
        if r.kind is Kind.CONST:
            return b.const(graph.consts[r.index])
        if r not in here:
            here[r] = b.input(types(r))
            given.append(array if r in changed else run.of(r))
        return here[r]

    for n in graph.nodes:
        if not changed.isdisjoint(n.sources):
            first = b.add_node(n.op, tuple(map(source, n.sources)), n.attr_map).first
            for i in range(len(n.results)):
                changed.add(r := Ref(Kind.VALUE, n.first + i))
                here[r] = Ref(Kind.VALUE, first + i)
    values = {**run.values, value: array}
    if b.nodes:
        outputs = tuple(here[r] for r in graph.outputs if r in changed and r in here)
        after = b.finish(outputs or (b.nodes[-1].value,))
        names = Names(tuple(f"i{i}" for i in range(len(given))),
                      tuple(f"o{i}" for i in range(len(after.outputs))), ())  # fmt: skip
        made = Program(after, names, ()).run(*given, trace="ops", keep_values=True).values
        back = {r.index: old.index for old, r in here.items() if r.kind is Kind.VALUE}
        values |= {back[v]: x for v, x in made.items()}
    return run.with_values(values)


def false_rows(run: Run, f: Fault) -> list[Array]:
    """Every local of the row program of the false element, with its false node."""
    assert f.row is not None
    inner = run.scope.inside((VALUES, f.value, f.element))
    values = rowprogram.given(inner.program, run.sources(f.value), f.element)
    for i, n in enumerate(inner.program.nodes):
        args = [values[j] for j in n.sources]
        y = apply(n.op, args, n.attrs)[0]
        if i == f.row[0]:
            entries = false_entries(inner.derivation(ROW, i, f.row[1]), args, f.operation, f.flip)
            y = with_bits(y, f.row[1], entries[-1])
        values.append(y)
    return values


def false_value(run: Run, f: Fault) -> Array | None:
    """The value with its false element; None if the fault vanishes on the way to it."""
    x = run.of(Ref(Kind.VALUE, f.value))
    if f.row is None:
        d = run.scope.derivation(VALUES, f.value, f.element)
        bits = false_entries(d, run.sources(f.value), f.operation, f.flip)[-1]
    else:
        last = np.ascontiguousarray(false_rows(run, f)[-1]).reshape(-1)
        at = run.scope.inside((VALUES, f.value, f.element)).element
        bits = int.from_bytes(last[at : at + 1].tobytes(), "little")
    y = with_bits(x, f.element, bits)
    same = y.reshape(-1)[f.element].tobytes() == x.reshape(-1)[f.element].tobytes()
    return None if same else y


class MaskedFault(ValueError):
    """A fault that changes no element: nobody could tell, and nobody is wronged."""


class FaultyParty(Party):
    """A party whose run has a fault, which it defends as well as it can. MaskedFault if there is none."""

    def __init__(self, honest: Run, fault: Fault, instance: bytes) -> None:
        self.fault = fault
        value = false_value(honest, fault)
        if value is None:
            raise MaskedFault(f"{fault} changes nothing")
        super().__init__(recompute(honest, fault.value, value), instance)

    def row_values(self, owner: tuple[str, int, int]) -> list[Array]:
        f = self.fault
        if f.row is not None and owner == (VALUES, f.value, f.element):
            return false_rows(self.run, f)
        return super().row_values(owner)

    def derived(self, s: State, d: Derivation, sources: Sequence[Array]) -> Sequence[int] | Array:
        f = self.fault
        here = (s.tree, s.tensor, s.element) == (VALUES, f.value, f.element) and f.row is None
        if s.owner == (VALUES, f.value, f.element) and f.row == (s.tensor, s.element):
            here = True
        return (
            false_entries(d, sources, f.operation, f.flip)
            if here
            else super().derived(s, d, sources)
        )
