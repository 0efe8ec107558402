"""Derivations whose reads follow the operator's index rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ree.kernels import opdef
from ree.kernels.forms import Variant
from ree.kernels.index import IndexRule, contiguous_strides
from ree.kernels.opdef import Array, Bound
from ree.verde.derivation import Bits, Derivation, ElementRead, Operand, digits_of, flat_at
from ree.verde.fast_entries import Row
from ree.verde.sources import taken

ZERO = Bits(0)


class Ruled(Derivation):
    """A derivation whose reads follow the operator's index rule."""

    def __init__(self, node: Bound, element: int, result: int = 0) -> None:
        super().__init__(node, element, result)
        op = opdef.get(node.op)
        rule, self.variant = op.index_rule, op.variant
        assert rule is not None  # checked at registration
        self.rule: IndexRule = rule(node)
        self.greatest = Variant.LEAST not in self.variant
        self.out = digits_of(element, self.rule.out_digits)

    def read(self, source: int, k: int = 0, outside: Operand = ZERO) -> Operand:
        """Source's element for reduction index k."""
        digits = self.out + digits_of(k, self.rule.red_digits)
        flat = flat_at(self.rule.accesses[source], digits)
        return outside if flat is None else ElementRead(source, flat)

    def row(self, source: int, x: Array) -> Row:
        """Source's elements from one reduction index to another; +0 outside. x: the source."""
        n, sizes = len(self.out), self.rule.red_digits
        coords = [(c.coeffs[n:], sum(k * d for k, d in zip(c.coeffs, self.out, strict=False)) + c.offset, c)
                  for c in self.rule.accesses[source].coords]  # fmt: skip
        ends = [
            [k * (d - 1) for k, d in zip(coeffs, sizes, strict=True)] for coeffs, _, _ in coords
        ]
        within = all(
            at + sum(min(e, 0) for e in end) >= 0 and at + sum(max(e, 0) for e in end) < c.bound
            for end, (_, at, c) in zip(ends, coords, strict=True)
        )
        steps = [sum(coeffs[i] * c.stride for coeffs, _, c in coords) for i in range(len(sizes))]
        begin = sum(at * c.stride for _, at, c in coords)
        long = [i for i, d in enumerate(sizes) if d > 1]

        def gather(start: int, stop: int) -> Array:
            if within and len(long) <= 1 and x.flags.c_contiguous:  # one step: no index is needed
                step = steps[long[0]] if long else 0
                first = x.reshape(-1)[begin + start * step :]
                y: Array = np.lib.stride_tricks.as_strided(
                    first, (stop - start,), (step * x.itemsize,), writeable=False
                )
                return y
            k = np.arange(start, stop, dtype=np.int64)
            digits = [k // s % d for s, d in zip(contiguous_strides(sizes), sizes, strict=True)]

            def affine(offset: int, factors: Sequence[int]) -> npt.NDArray[np.int64]:
                value = np.full(len(k), offset, np.int64)
                for q, d in zip(factors, digits, strict=True):
                    if q:
                        value += q * d
                return value

            if within:
                return taken(x, affine(begin, steps))
            flat: npt.NDArray[np.int64] = np.zeros(len(k), np.int64)
            inside = np.full(len(k), x.size > 0)
            for factors, offset, c in coords:
                value = affine(offset, factors)
                inside &= (value >= 0) & (value < c.bound)
                flat += value * c.stride
            row = np.zeros(len(k), x.dtype)
            row[inside] = taken(x, flat[inside])
            return row

        return gather
