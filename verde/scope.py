"""Where elements live: the tensors of a run, and those of a composite's row program inside it.

A scope knows the operator behind every tensor of a tree and leads a read to something committed: a leaf
of a tree, or bits that the program itself fixes. Moves are followed by their index rule; they are never
committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ree.compiler.ir import Graph, Kind, Ref, bound_node
from ree.kernels import opdef
from ree.kernels.opdef import Array, Bound, Form
from ree.kernels.rowprogram import RowProgram
from ree.kernels.types import TensorType
from ree.verde.derivation import (
    Bits,
    Copy,
    Derivation,
    ElementRead,
    Undecidable,
    digits_of,
    flat_at,
    place,
    read_bits,
)
from ree.verde.forms import Move, derivation
from ree.verde.protocol import Tree

# the trees of tensors that a run commits to
VALUES, OUTPUTS, ROW = Tree.VALUES, Tree.OUTPUTS, Tree.ROW
INPUTS, WEIGHTS, STATES = "inputs", "weights", "states"
TREES = {Kind.VALUE: VALUES, Kind.INPUT: INPUTS, Kind.WEIGHT: WEIGHTS, Kind.STATE: STATES}
Index = Callable[[ElementRead], int]  # the flat index of a read, its indices looked up


@dataclass(frozen=True)
class ElementPlace:
    """Element `flat` of tensor `index` of a tree."""

    tree: str
    index: int
    type: TensorType
    flat: int


class OutputCopy(Derivation):
    """An output: the element of what the program returns."""

    def __init__(self, node: Bound, element: int, result: int = 0) -> None:
        super().__init__(node, element, result)
        self.width = 8 if node.out.dtype.size == 8 else 4

    @property
    def count(self) -> int:
        return 1

    def operation(self, i: int) -> Copy:
        return Copy(ElementRead(0, self.element))


class ProgramScope:
    """The values and outputs of an instance."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.typer = graph.typer()
        self.producers = graph.producers()
        self._nodes: dict[int, Bound] = {}
        self._rows: dict[int, RowProgram | None] = {}
        self._inner: dict[tuple[str, int, int], RowScope] = {}

    @cached_property
    def _consts(self) -> list[Array]:
        return [c.array() for c in self.graph.consts]

    def count(self, tree: str) -> int:
        """Number of tensors of a tree."""
        g = self.graph
        return {VALUES: g.n_values, OUTPUTS: len(g.outputs), INPUTS: len(g.inputs),
                WEIGHTS: len(g.weights), STATES: len(g.states)}[tree]  # fmt: skip

    def type(self, tree: str, index: int) -> TensorType:
        g = self.graph
        if tree == VALUES:
            return self.typer(Ref(Kind.VALUE, index))
        if tree == OUTPUTS:
            return self.typer(g.outputs[index])
        return {INPUTS: g.inputs, WEIGHTS: g.weights, STATES: g.states}[tree][index]

    def is_move(self, tree: str, index: int) -> bool:
        """Whether a tensor is pure movement, whose leaf is 32 zero bytes."""
        return tree == VALUES and opdef.get(self.producers[index].op).form is Form.MOVEMENT

    def node(self, tree: str, index: int) -> tuple[Bound, int]:
        """The operator behind a tensor, and which of its results it is."""
        if tree == OUTPUTS:
            t = self.type(tree, index)
            return Bound("view", (t,), (t,), {"shape": t.dims}), 0
        n = self.producers[index]
        if index not in self._nodes:
            self._nodes[index] = bound_node(n, self.typer)
        return self._nodes[index], index - n.first

    def row_program(self, tree: str, index: int) -> RowProgram | None:
        """The row program of a tensor's operator, if it is a composite."""
        if tree != VALUES:
            return None
        if index not in self._rows:
            op = opdef.get(self.producers[index].op)
            self._rows[index] = (
                op.row_program(self.node(tree, index)[0]) if op.row_program else None
            )
        return self._rows[index]

    def inside(self, owner: tuple[str, int, int]) -> RowScope:
        """The row program of an element of a composite."""
        if owner not in self._inner:
            program = self.row_program(*owner[:2])
            if program is None:
                raise Undecidable(f"{self.producers[owner[1]].op} has no row program")
            if len(self._inner) > 8:
                self._inner.clear()
            self._inner[owner] = RowScope(self, owner, program)
        return self._inner[owner]

    def derivation(self, tree: str, index: int, element: int) -> Derivation:
        node, result = self.node(tree, index)
        return OutputCopy(node, element) if tree == OUTPUTS else derivation(node, element, result)

    def resolve(self, tree: str, index: int, source: int, flat: int) -> ElementPlace | Bits:
        """Where source `source` of the operator behind a tensor has its element `flat`."""
        ref = (
            self.graph.outputs[index] if tree == OUTPUTS else self.producers[index].sources[source]
        )
        return self.resolve_ref(ref, flat)

    def resolve_ref(self, ref: Ref, flat: int) -> ElementPlace | Bits:
        while ref.kind is Kind.VALUE and self.is_move(VALUES, ref.index):
            found = follow(self.node(VALUES, ref.index)[0], flat)
            if isinstance(found, Bits):
                return found
            ref, flat = self.producers[ref.index].sources[0], found
        if ref.kind is Kind.CONST:
            return Bits(read_bits(self._consts[ref.index], flat))
        return ElementPlace(TREES[ref.kind], ref.index, self.typer(ref), flat)


def follow(node: Bound, flat: int) -> Bits | int:
    """A move's element: where it is in its source, or the bits it is."""
    op = Move(node, flat).operation(0)
    assert isinstance(op, Copy)
    if isinstance(op.operand, ElementRead):
        return place(op.operand, lambda i: 0)
    assert isinstance(op.operand, Bits)
    return op.operand


class RowScope:
    """The nodes of a row program, for one element of tensor `owner` of the scope around it."""

    def __init__(
        self, outer: ProgramScope, owner: tuple[str, int, int], program: RowProgram
    ) -> None:
        self.outer, self.owner, self.program = outer, owner, program
        self.first = program.first
        self.digits = program.split(owner[2])
        types = program.given_types()
        self.nodes: list[Bound] = []
        for n in program.nodes:
            self.nodes.append(opdef.bind(n.op, [types[s] for s in n.sources], n.attrs, {}))
            types.append(self.nodes[-1].out)
        self.types = types

    @property
    def element(self) -> int:
        """Where the element stands in the last node."""
        return self.program.element.at(self.digits)

    def count(self, tree: str) -> int:
        return len(self.nodes)

    def type(self, tree: str, index: int) -> TensorType:
        return self.nodes[index].out

    def is_move(self, tree: str, index: int) -> bool:
        return opdef.get(self.nodes[index].op).form is Form.MOVEMENT

    def node(self, tree: str, index: int) -> tuple[Bound, int]:
        return self.nodes[index], 0

    def row_program(self, tree: str, index: int) -> RowProgram | None:
        if opdef.get(self.nodes[index].op).row_program:
            raise Undecidable("a row program holds a composite")
        return None

    def derivation(self, tree: str, index: int, element: int) -> Derivation:
        return derivation(self.nodes[index], element)

    def resolve(self, tree: str, index: int, source: int, flat: int) -> ElementPlace | Bits:
        local = self.program.nodes[index].sources[source]
        while local >= self.first and self.is_move(ROW, local - self.first):
            found = follow(self.nodes[local - self.first], flat)
            if isinstance(found, Bits):
                return found
            local, flat = self.program.nodes[local - self.first].sources[0], found
        if local >= self.first:
            return ElementPlace(ROW, local - self.first, self.types[local], flat)
        n, m = len(self.program.inputs), len(self.program.constants)
        if local >= n + m:
            return Bits(self.program.numbers[local - n - m].at(self.digits) & (1 << 64) - 1)
        if local >= n:
            return Bits(read_bits(np.asarray(self.program.constants[local - n]), flat))
        x = self.program.inputs[local]
        at = flat_at(x.rule.accesses[0], [*self.digits, *digits_of(flat, x.rule.red_digits)])
        if at is None:
            raise Undecidable("a row input outside its source")
        return self.outer.resolve(self.owner[0], self.owner[1], x.operand, at)


Scope = ProgramScope | RowScope


def computed(scope: Scope, tree: str) -> list[int]:
    """The tensors of a tree with elements that are computed: neither moves nor empty."""
    return [i for i in range(scope.count(tree))
            if not scope.is_move(tree, i) and scope.type(tree, i).numel]  # fmt: skip


def bits_at(arrays: Sequence[Array], at: ElementPlace) -> int:
    """The element of a place among the tensors of its tree."""
    return read_bits(arrays[at.index], at.flat)
