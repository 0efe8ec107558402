"""The names of the protocol with their numbers: phases, sides, trees, reasons.

The numbers stand in the states of disputes (settlement/layout.py); contracts/generated/protocol.vy is written
from here.
"""

from __future__ import annotations

import enum

FAN = 4  # levels a reveal descends: 16 nodes
VERSION = 1


class _Named(enum.StrEnum):
    """A text, as it stands in files and messages, with a number."""

    number: int

    def __new__(cls, text: str, number: int) -> _Named:
        member = str.__new__(cls, text)
        member._value_, member.number = text, number
        return member


class Side(_Named):
    """Who plays; NOBODY when the dispute is decided."""

    NOBODY = ("", 0)
    DEFENDER = ("defender", 1)
    CHALLENGER = ("challenger", 2)

    @property
    def other(self) -> Side:
        """Who waits while this one is to move."""
        return Side.CHALLENGER if self is Side.DEFENDER else Side.DEFENDER


class Tree(_Named):
    """Trees of tensors that a dispute is about."""

    VALUES = ("values", 0)
    OUTPUTS = ("outputs", 1)
    ROW = ("row", 2)


class TreeKind(_Named):
    """Kinds of trees that a dispute descends in: steps of a run, tensors, a tensor's leaves, a derivation's."""

    HISTORY = ("history", 1)
    TENSORS = ("tensors", 2)
    BODY = ("body", 3)
    ENTRIES = ("entries", 4)


class Phase(enum.Enum):
    """Whose move it is, and what it must be."""

    STEP = (0, Side.DEFENDER, "open a step of a history")
    OPEN = (1, Side.DEFENDER, "commit to the values of the run")
    CHOOSE = (2, Side.CHALLENGER, "point at the values, the outputs or the loss")
    REVEAL = (3, Side.DEFENDER, "reveal the descendants of a node")
    PICK = (4, Side.CHALLENGER, "point at a descendant")
    TENSOR = (5, Side.DEFENDER, "open a tensor")
    BODY = (6, Side.DEFENDER, "open a leaf of a tensor")
    ELEMENT = (7, Side.CHALLENGER, "point at an element")
    DERIVE = (8, Side.DEFENDER, "commit to the derivation of an element")
    ROWS = (9, Side.DEFENDER, "commit to the row program of an element")
    ENTRIES = (10, Side.DEFENDER, "open a leaf of a derivation")
    ENTRY = (11, Side.CHALLENGER, "point at an operation")
    PROVE = (12, Side.DEFENDER, "open the operands of an operation")
    OVER = (13, Side.NOBODY, "nothing: the dispute is decided")

    def __init__(self, number: int, player: Side, what: str) -> None:
        self.number, self.player, self.what = number, player, what


AT_LEAF = {
    TreeKind.HISTORY: Phase.STEP,
    TreeKind.TENSORS: Phase.TENSOR,
    TreeKind.BODY: Phase.BODY,
    TreeKind.ENTRIES: Phase.ENTRIES,
}


class Reason(enum.Enum):
    """Why a dispute is decided. The number is 0 where no state on chain has it: there a move that proves
    nothing is refused, and the clock decides."""

    NONE = (0, "")
    MOVED = (1, "the tensor is pure movement, and its leaf says so")
    EMPTY = (2, "the tensor has no elements")
    FILL = (3, "bytes behind the last element are zero")
    FILL_FALSE = (4, "no proof: bytes behind the last element are not zero")
    BOOL_FALSE = (5, "no proof: a bool is")
    EXECUTED = (6, "executed:")
    NO_PROOF = (0, "no proof:")
    TIMEOUT = (0, "timeout")

    def __init__(self, number: int, text: str) -> None:
        self.number, self.text = number, text

    def says(self, detail: str = "") -> str:
        """The reason in words, with what it is about."""
        return f"{self.text} {detail}" if detail else self.text
