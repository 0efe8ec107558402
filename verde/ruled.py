"""Derivations whose reads follow the operator's index rule."""

from __future__ import annotations

import numpy as np

from ree.kernels import opdef
from ree.kernels.index import Access, Coord, IndexRule, flat_indices
from ree.kernels.opdef import Array, Bound
from ree.verde.derivation import Bits, Derivation, Operand, Read, digits_of, flat_at
from ree.verde.sources import taken

ZERO = Bits(0)


class Ruled(Derivation):
    """A derivation whose reads follow the operator's index rule."""

    def __init__(self, node: Bound, element: int) -> None:
        super().__init__(node, element)
        rule = opdef.get(node.op).index_rule
        assert rule is not None  # checked at registration
        self.rule: IndexRule = rule(node)
        self.out = digits_of(element, self.rule.out_digits)

    def read(self, source: int, k: int = 0, outside: Operand = ZERO) -> Operand:
        """Source's element for reduction index k."""
        digits = self.out + digits_of(k, self.rule.red_digits)
        flat = flat_at(self.rule.accesses[source], digits)
        return outside if flat is None else Read(source, flat)

    def row(self, source: int, x: Array) -> Array:
        """Source's elements for every reduction index; +0 outside. x: the source."""
        n = len(self.out)
        coords = tuple(
            Coord(c.coeffs[n:], c.bound, c.stride,
                  c.offset + sum(k * d for k, d in zip(c.coeffs, self.out, strict=False)))
            for c in self.rule.accesses[source].coords
        )  # fmt: skip
        flat = flat_indices(IndexRule((), (Access(coords),), self.rule.red_digits), 0).reshape(-1)
        row: Array = np.where(flat >= 0, taken(x, np.maximum(flat, 0)), np.zeros((), x.dtype))
        return row
