"""Row programs: one element of a composite operator, written in primitive operators.

A dispute opens a composite by running its row program for one output element; every value of that
program is then an ordinary value of an ordinary operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ree.kernels.index import IndexRule, read
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
