"""Row programs: one element of a composite operator, written in primitive operators.

A dispute opens a composite by running its row program for one output element; every value of that
program is then an ordinary value of an ordinary operator. The program is the same for all elements: what
changes with the element, where its inputs are cut and a few numbers, is affine in the digits of the
element's index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ree.kernels.index import Access, Coord, IndexRule, contiguous_strides, read
from ree.kernels.types import DType, TensorType

if TYPE_CHECKING:
    from ree.kernels.opdef import Array, AttrValue


@dataclass(frozen=True)
class Affine:
    """A number that depends on the element: sum of coefficient x digit, plus offset."""

    coeffs: tuple[int, ...]
    offset: int = 0

    def at(self, digits: Sequence[int]) -> int:
        return self.offset + sum(c * d for c, d in zip(self.coeffs, digits, strict=True))


@dataclass(frozen=True)
class RowInput:
    """A local tensor cut out of source `operand` of the composite.

    The rule's output digits are those of the element, its reduction digits the local shape.
    """

    operand: int
    type: TensorType
    rule: IndexRule

    def at(self, digits: Sequence[int]) -> IndexRule:
        """The rule for one element: no output digits."""
        n = len(digits)
        coords = tuple(
            Coord(c.coeffs[n:], c.bound, c.stride, Affine(c.coeffs[:n], c.offset).at(digits))
            for c in self.rule.accesses[0].coords
        )
        return IndexRule((), (Access(coords),), self.rule.red_digits)


@dataclass(frozen=True)
class RowNode:
    """op applied to earlier locals: inputs, constants, numbers, then the nodes, numbered in order."""

    op: str
    sources: tuple[int, ...]
    attrs: Mapping[str, AttrValue]


@dataclass(frozen=True)
class RowProgram:
    """Inputs, scalar constants, numbers (i64), nodes; the element is entry `element` of the last node."""

    digits: tuple[int, ...]  # sizes of the digits of the element's index
    inputs: tuple[RowInput, ...]
    constants: tuple[Array, ...]
    numbers: tuple[Affine, ...]
    nodes: tuple[RowNode, ...]
    element: Affine

    @property
    def first(self) -> int:
        """The number of the first node."""
        return len(self.inputs) + len(self.constants) + len(self.numbers)

    def given_types(self) -> list[TensorType]:
        """Types of the locals ahead of the nodes."""
        types = [x.type for x in self.inputs]
        types += [
            TensorType(DType.of(np.asarray(c).dtype), np.asarray(c).shape) for c in self.constants
        ]
        return [*types, *(TensorType(DType.I64, ()) for _ in self.numbers)]

    def split(self, element: int) -> list[int]:
        """The digits of an element's index."""
        return [int(element // s % d)
                for s, d in zip(contiguous_strides(self.digits), self.digits, strict=True)]  # fmt: skip


def given(program: RowProgram, sources: Sequence[Array], element: int) -> list[Array]:
    """The locals ahead of the nodes."""
    digits = program.split(element)
    # the rule's single access reads local source 0
    values: list[Array] = [
        read(x.at(digits), 0, [sources[x.operand]]).reshape(x.type.dims) for x in program.inputs
    ]
    values.extend(np.asarray(c) for c in program.constants)
    values.extend(np.array(n.at(digits), np.int64) for n in program.numbers)
    return values


def run(program: RowProgram, sources: Sequence[Array], element: int) -> list[Array]:
    """Every local value of the row program for one element, through the references."""
    from ree.kernels.opdef import apply

    values = given(program, sources, element)
    for node in program.nodes:
        values.append(apply(node.op, [values[i] for i in node.sources], node.attrs)[0])
    return values


def evaluate(program: RowProgram, sources: Sequence[Array], element: int) -> np.generic:
    """The element the row program computes."""
    at = program.element.at(program.split(element))
    value: np.generic = run(program, sources, element)[-1].reshape(-1)[at]
    return value


@dataclass(frozen=True)
class RowLocal:
    """A local of a row program under construction."""

    kind: int  # 0 input, 1 constant, 2 number, 3 node
    index: int


class RowBuilder:
    """Builds a row program in any order; numbering is settled by `finish`. digits: sizes of the digits of
    the element's index."""

    def __init__(self, digits: Sequence[int]) -> None:
        self.digits = tuple(digits)
        self._inputs: list[RowInput] = []
        self._constants: list[Array] = []
        self._numbers: list[Affine] = []
        self._nodes: list[tuple[str, tuple[RowLocal, ...], Mapping[str, AttrValue]]] = []

    def digit(self, i: int, times: int = 1, offset: int = 0) -> Affine:
        """times x digit i + offset."""
        return Affine(tuple(times if j == i else 0 for j in range(len(self.digits))), offset)

    def fixed(self, offset: int = 0) -> Affine:
        """A number that is the same for all elements."""
        return Affine((0,) * len(self.digits), offset)

    def row(self, operand: int, t: TensorType, dims: Sequence[int], starts: Sequence[Affine],
            axes: Sequence[int]) -> RowLocal:  # fmt: skip
        """Cut the tensor of type t out of source `operand` (of shape dims): its axes run along
        `axes` of the source, the other coordinates stand at `starts`."""
        coords = []
        for a, (size, stride) in enumerate(zip(dims, contiguous_strides(dims), strict=True)):
            local = tuple(int(a == x) for x in axes)
            s = self.fixed() if a in axes else starts[a]
            coords.append(Coord((*s.coeffs, *local), size, stride, s.offset))
        rule = IndexRule(self.digits, (Access(tuple(coords)),), t.dims)
        self._inputs.append(RowInput(operand, t, rule))
        return RowLocal(0, len(self._inputs) - 1)

    def constant(self, x: Array) -> RowLocal:
        self._constants.append(x)
        return RowLocal(1, len(self._constants) - 1)

    def number(self, x: Affine) -> RowLocal:
        self._numbers.append(x)
        return RowLocal(2, len(self._numbers) - 1)

    def add(self, op: str, *sources: RowLocal, **attrs: AttrValue) -> RowLocal:
        self._nodes.append((op, sources, attrs))
        return RowLocal(3, len(self._nodes) - 1)

    def finish(self, element: Affine | None = None) -> RowProgram:
        base = [0, len(self._inputs), len(self._constants), len(self._numbers)]
        for i in range(1, 4):
            base[i] += base[i - 1]
        nodes = tuple(
            RowNode(op, tuple(base[s.kind] + s.index for s in sources), attrs)
            for op, sources, attrs in self._nodes
        )
        return RowProgram(self.digits, tuple(self._inputs), tuple(self._constants), tuple(self._numbers),
                          nodes, element or self.fixed())  # fmt: skip
