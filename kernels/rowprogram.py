"""Row programs: one element of a composite operator, written in primitive operators.

A dispute opens a composite by running its row program for one output element; every value of that
program is then an ordinary value of an ordinary operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ree.kernels.index import IndexRule, access_by_dims, read
from ree.kernels.types import TensorType

if TYPE_CHECKING:
    from ree.kernels.opdef import Array, AttrValue


@dataclass(frozen=True)
class RowInput:
    """A local tensor cut out of source `operand` of the composite.

    The rule has no output digits; its reduction digits are the local shape, its offsets are already
    those of the element.
    """

    operand: int
    type: TensorType
    rule: IndexRule


@dataclass(frozen=True)
class RowNode:
    """op applied to earlier locals: inputs come first, then the nodes, numbered in order."""

    op: str
    sources: tuple[int, ...]
    attrs: Mapping[str, AttrValue]


@dataclass(frozen=True)
class RowProgram:
    """Inputs, scalar constants, nodes; the element is entry `element` of the last node."""

    inputs: tuple[RowInput, ...]
    constants: tuple[Array, ...]
    nodes: tuple[RowNode, ...]
    element: int


def run(program: RowProgram, sources: Sequence[Array]) -> list[Array]:
    """Every local value of the row program, through the references."""
    from ree.kernels.opdef import apply

    values: list[Array] = []
    for x in program.inputs:
        # the rule's single access reads local source 0
        values.append(read(x.rule, 0, [sources[x.operand]]).reshape(x.type.dims))
    values.extend(np.asarray(c) for c in program.constants)
    for node in program.nodes:
        values.append(apply(node.op, [values[i] for i in node.sources], node.attrs)[0])
    return values


def element(program: RowProgram, sources: Sequence[Array]) -> np.generic:
    """The element the row program computes."""
    value: np.generic = run(program, sources)[-1].reshape(-1)[program.element]
    return value


@dataclass(frozen=True)
class Local:
    """A local of a row program under construction."""

    kind: int  # 0 input, 1 constant, 2 node
    index: int


class RowBuilder:
    """Builds a row program in any order; numbering is settled by `finish`."""

    def __init__(self) -> None:
        self._inputs: list[RowInput] = []
        self._constants: list[Array] = []
        self._nodes: list[tuple[str, tuple[Local, ...], Mapping[str, AttrValue]]] = []

    def row(self, operand: int, t: TensorType, dims: Sequence[int], starts: Sequence[int],
            axes: Sequence[int]) -> Local:  # fmt: skip
        """Cut the tensor of type t out of source `operand` (of shape dims): its axes run along
        `axes` of the source, the other coordinates stand at `starts`."""
        terms: list[tuple[int | None, int, int]] = [
            (list(axes).index(a), 1, 0) if a in axes else (None, 0, starts[a])
            for a in range(len(dims))
        ]
        rule = IndexRule((), (access_by_dims(dims, len(axes), terms),), t.dims)
        self._inputs.append(RowInput(operand, t, rule))
        return Local(0, len(self._inputs) - 1)

    def constant(self, x: Array) -> Local:
        self._constants.append(x)
        return Local(1, len(self._constants) - 1)

    def add(self, op: str, *sources: Local, **attrs: AttrValue) -> Local:
        self._nodes.append((op, sources, attrs))
        return Local(2, len(self._nodes) - 1)

    def finish(self, element: int = 0) -> RowProgram:
        base = (0, len(self._inputs), len(self._inputs) + len(self._constants))
        nodes = tuple(
            RowNode(op, tuple(base[s.kind] + s.index for s in sources), attrs)
            for op, sources, attrs in self._nodes
        )
        return RowProgram(tuple(self._inputs), tuple(self._constants), nodes, element)
