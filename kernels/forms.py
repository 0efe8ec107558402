"""Forms: how one element of an operator comes about. Every operator states one (opdef.py).

By its form verde opens an element (verde/forms.py), a contract decides an operation
(settlement/contracts/generated/forms.vy has the numbers), and settlement knows what a proof shows and how
long it is.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ree.kernels.numerics import SEGMENT
from ree.kernels.types import DType


@dataclass(frozen=True)
class Chain:
    """What tells the members of the family of contractions apart: the type of the elements that are multiplied,
    that of the total, and how many consecutive products are added before they join the total."""

    element: DType
    accumulator: DType
    segment: int


class Reads(enum.Enum):
    """Which sources one operation reads at most."""

    ONE = "one of them"
    EACH = "each once"
    TWICE = "each twice"


@dataclass(frozen=True)
class Needs:
    """What a proof about an element shows of the operator besides its record.

    counted: the number of operations follows from the index rule; count_attributes: from the attributes too.
    rule, attributes, code: an operation needs the index rule, the attributes, the scalar function's microcode.
    reads: sources that one operation reads. entries: earlier entries that one operation reads outside the leaf
    with the claimed one, at most. chosen: the first entry is the defender's choice, opened with the last.
    """

    counted: bool = False
    count_attributes: bool = False
    rule: bool = False
    attributes: bool = False
    code: bool = False
    reads: Reads = Reads.EACH
    entries: int = 0
    chosen: bool = False


def _reduced(entries: int, reads: Reads = Reads.EACH, **more: bool) -> Needs:
    """An element that is made of many operations, their number by the index rule."""
    return Needs(counted=True, rule=True, reads=reads, entries=entries, **more)


class Variant(enum.Flag):
    """What tells operators of one form apart: the least instead of the greatest, updates that are added instead
    of put, indices that count from the end where they are negative."""

    PLAIN = 0
    LEAST = enum.auto()
    ADDS = enum.auto()
    WRAPS = enum.auto()


class Form(enum.Enum):
    """How an element comes about. number: its name in the states of disputes, for ever (0: no contract decides
    it); chain: of the contractions alone, which are a family."""

    POINTWISE = (1, "pointwise", Needs(rule=True, code=True, reads=Reads.ONE, entries=3))
    CONTRACTION = (2, "contraction", _reduced(2), Chain(DType.F32, DType.F32, SEGMENT))
    SUM = (3, "sum", _reduced(2))
    EXTREME = (4, "extreme", _reduced(1))
    ARGUMENT = (5, "argument", _reduced(2, Reads.TWICE))
    SCAN = (6, "scan", _reduced(2, count_attributes=True, attributes=True))
    SORT = (7, "sort", _reduced(4, Reads.TWICE, attributes=True, chosen=True))
    MOVEMENT = (8, "movement", Needs())
    TABLE = (9, "table", _reduced(0))
    CAT = (10, "cat", Needs(rule=True, reads=Reads.ONE))
    PAD = (11, "pad", Needs(rule=True, attributes=True))
    CREATE = (12, "create", Needs(attributes=True))
    SCATTER = (13, "scatter", _reduced(1, attributes=True))
    COMPOSITE = (14, "composite", Needs())
    # one multiply-add of integers an operation; the total wraps nowhere, so all orders give the same
    INTEGER_CONTRACTION = (
        16,
        "contraction of integers",
        _reduced(1),
        Chain(DType.I8, DType.I32, 1),
    )
    OUTPUT = (15, "output", Needs())  # of no operator: an output of a program, a copy of its value

    def __init__(self, number: int, text: str, needs: Needs, chain: Chain | None = None) -> None:
        self.number, self.text, self.needs, self.chain = number, text, needs, chain
