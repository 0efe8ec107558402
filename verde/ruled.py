"""Derivations whose reads follow the operator's index rule."""

from __future__ import annotations

from ree.kernels import opdef
from ree.kernels.index import IndexRule
from ree.kernels.opdef import Bound
from ree.verde.derivation import Bits, Derivation, Operand, Read, digits_of, flat_at

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
