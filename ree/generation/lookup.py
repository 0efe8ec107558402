"""Guesses of what comes next, from what a text has said before (prompt lookup decoding)."""

from __future__ import annotations

from collections.abc import Sequence

BEGIN = 3  # tokens that have to stand there as they stood before
LONGEST = 7  # tokens of a guess: with the one before them a call of eight positions
LEAST = 4  # fewer are not worth such a call
PATIENCE = 2  # guesses in a row that were wrong from the start
PAUSE = 16  # tokens without a guess after them


class Lookup:
    """The last tokens of a text, found again earlier in it: what stood behind them there is the guess.

    A guess costs time if it is wrong, and never changes a token: whoever uses it draws each token as without.
    """

    def __init__(self) -> None:
        self._behind: dict[tuple[int, ...], int] = {}  # where the text goes on behind these tokens
        self._known = self._wrong = self._quiet_until = 0

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most so many tokens that may follow `tokens`, which is the text of the last call and more."""
        for end in range(max(self._known, BEGIN), len(tokens)):
            self._behind[tuple(tokens[end - BEGIN : end])] = end
        self._known = len(tokens)
        at = self._behind.get(tuple(tokens[-BEGIN:]))
        if at is None or len(tokens) < self._quiet_until:
            return []
        guess = list(tokens[at : at + min(most, LONGEST)])
        return guess if len(guess) >= LEAST else []

    def learn(self, right: int, length: int) -> None:
        """So many of a guess's tokens were right; `length` is that of the text now."""
        self._wrong = 0 if right else self._wrong + 1
        if self._wrong >= PATIENCE:
            self._wrong, self._quiet_until = 0, length + PAUSE
