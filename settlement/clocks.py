"""The clocks of a dispute, as contracts/clocks.vy packs them in a word."""

from __future__ import annotations

from dataclasses import dataclass

DEFENDER, CHALLENGER = 1, 2  # whose turn it is
_BITS = (8, 32, 48, 48, 48, 32)  # from the low end


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
        values = []
        for bits in _BITS:
            values.append(word & (1 << bits) - 1)
            word >>= bits
        return cls(*values)

    @property
    def word(self) -> int:
        values = (self.turn, self.round, self.since, self.defender, self.challenger, self.grace)
        return sum(v << sum(_BITS[:i]) for i, v in enumerate(values))

    @property
    def left(self) -> tuple[int, int]:
        """Seconds of defender and challenger."""
        return self.defender, self.challenger

    def deadline(self) -> int:
        """Last second in which the player may move."""
        return self.since + self.left[self.turn - DEFENDER]
