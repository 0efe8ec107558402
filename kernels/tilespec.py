"""A pointwise group over a rows x columns region, as data; every backend emits code for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ree.kernels.scalar.language import Function
from ree.kernels.types import DType

T = TypeVar("T")


@dataclass(frozen=True)
class Operand:
    """A source or result of the region: inner stride 0 (one element a row), 1, or 2 (any, at run
    time); `rows` says which row digits move it."""

    dtype: DType
    inner: int
    rows: tuple[bool, ...]


@dataclass(frozen=True)
class TileStep:
    """A scalar function of earlier values: sources first, then steps, numbered in order."""

    function: Function
    args: tuple[int, ...]


@dataclass(frozen=True)
class TileSpec:
    """A tile function up to run-time extents and strides."""

    sources: tuple[Operand, ...]
    steps: tuple[TileStep, ...]
    stores: tuple[tuple[int, Operand], ...]  # (step index, result)

    @property
    def operands(self) -> tuple[Operand, ...]:
        """Sources, then results: the order of a tile function's slots."""
        return (*self.sources, *(o for _, o in self.stores))

    @property
    def row_digits(self) -> int:
        return len(self.operands[0].rows)

    # A tile function's parameters: extents of the row digits, then the strides of each operand, over
    # the row digits and the columns.

    def extents(self, params: Sequence[T]) -> Sequence[T]:
        """Extents of the row digits."""
        return params[: self.row_digits]

    def strides(self, params: Sequence[T], operand: int) -> Sequence[T]:
        """Strides of an operand."""
        n = self.row_digits + 1
        return params[self.row_digits + operand * n : self.row_digits + (operand + 1) * n]
