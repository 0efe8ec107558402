"""Text as tokens come: nothing is given out that could still change, or that belongs to a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from ree.errors import ReeError
from ree.generation.tokenizer import Tokenizer

MAX_STOPS = 4
MAX_STOP_LENGTH = 1024


class TextStream:
    """The text of a list of tokens, token by token: what `push` and `finish` return, joined, is
    `tokenizer.decode` of all of them, exactly. Incomplete UTF-8 is held back."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None:
        self._tokenizer, self._text = tokenizer, tokenizer.text.begin()
        self._skipped = tokenizer.text.special if skip_special else frozenset()

    def push(self, token_id: int) -> str:
        """What is final of the text after one more token; ReeError if there is no such token."""
        piece = self._tokenizer.piece(token_id)
        return "" if token_id in self._skipped else self._text.push(piece)

    def finish(self) -> str:
        """The rest of the text."""
        return self._text.finish()


class StopStrings:
    """Cuts a text at the first of up to four strings, however the text is cut into pieces.

    Of several matches the one that ends first counts, of those the longest. The text before it is given out,
    the match itself too if `include`. `matched` is the string that stopped it, or None.
    """

    def __init__(self, stops: Sequence[str], include: bool = False) -> None:
        if len(stops) > MAX_STOPS:
            raise ReeError(f"{len(stops)} stop strings, expected at most {MAX_STOPS}")
        if not all(0 < len(s) <= MAX_STOP_LENGTH for s in stops):
            raise ReeError(f"a stop string is empty or over {MAX_STOP_LENGTH} characters")
        self._stops, self._include = tuple(stops), include
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> tuple[str, bool]:
        """(what may be given out, whether a stop string was met); after it, nothing."""
        if self.matched is not None:
            return "", True
        buffer = self._held + text
        found = [(at + len(s), -len(s), s) for s in self._stops if (at := buffer.find(s)) >= 0]
        if found:
            end, _, self.matched = min(found)
            self._held = ""
            return buffer[: end if self._include else end - len(self.matched)], True
        keep = max((_overlap(buffer, s) for s in self._stops), default=0)
        self._held = buffer[len(buffer) - keep :]
        return buffer[: len(buffer) - keep], False

    def finish(self) -> str:
        """What was held back, when no stop string came."""
        out, self._held = self._held, ""
        return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins, less than all of it."""
    return next(
        (n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0
    )
