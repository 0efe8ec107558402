"""The clocks of a dispute, as contracts/court/clocks.vy packs them in a word."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ree.settlement.layout import CLOCKS
from ree.verde.protocol import Side

DEFENDER, CHALLENGER = Side.DEFENDER.number, Side.CHALLENGER.number  # whose turn it is


@dataclass(frozen=True)
class Clocks:
    """Whose turn it is, in which round and since when (a timestamp); seconds left of defender and challenger
    when the turn began, and seconds of a move at least."""

    turn: int
    round: int
    since: int
    defender: int
    challenger: int
    grace: int

    @classmethod
    def of(cls, word: int) -> Clocks:
        """From the word of CLOCKS (layout.py)."""
        return cls(**CLOCKS.unpack(word.to_bytes(CLOCKS.size, "big")))

    @property
    def word(self) -> int:
        return int.from_bytes(CLOCKS.pack(**asdict(self)), "big")

    @property
    def left(self) -> tuple[int, int]:
        """Seconds of defender and challenger."""
        return self.defender, self.challenger

    def deadline(self) -> int:
        """Last second in which the player may move."""
        return self.since + self.left[self.turn - DEFENDER]
