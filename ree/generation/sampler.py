"""Drawing the next token of several texts from their logits, as a claim's step does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ree.errors import ReeError
from ree.float_mode import clean_floats
from ree.generation.claim import Text, unpacked
from ree.generation.request import Sampling, stop_row
from ree.kernels.opdef import Array
from ree.runtime.sampler import Sampler


class Drawing:
    """How the tokens of one text are drawn, prepared: its rows over the vocabulary are made once.

    text: as far as it goes; `took` tells of each token that is drawn behind it.
    """

    def __init__(self, text: Text, vocabulary: int) -> None:
        self.sampling, self._stop = text.sampling, stop_row(text.stop, vocabulary)
        self._bias = text.sampling.bias_row(vocabulary) if text.sampling.bias else None
        self._occurred = _Occurred() if text.sampling.penalises else None
        self._drawn, self._vocabulary = 0, vocabulary
        if self._occurred is not None:
            self._occurred.add(text.tokens[: text.prompt], 0)
        for t in text.tokens[text.prompt :]:
            self.took(t)

    def took(self, token: int) -> None:
        """A token was drawn."""
        self._drawn += 1
        if self._occurred is not None:
            self._occurred.add((token,), 1)

    @clean_floats
    def adjusted(self, logits: Array, mask: Array | None = None) -> Array:
        """Logits f32 [vocabulary] with bias and penalties, without the stop tokens where it is too early for
        one, and without what a mask (claim.py) does not allow. ReeError if that is everything."""
        x: Array = logits if self._bias is None else np.add(logits, self._bias)
        if self._occurred is not None:
            x = self._penalised(x, self._occurred)
        if self._drawn < self.sampling.min_tokens:
            x = np.where(self._stop, np.float32(-np.inf), x)
        if mask is not None:
            if not mask.any():
                raise ReeError("the grammar allows no further token")
            x = np.where(unpacked(mask, self._vocabulary), x, np.float32(-np.inf))
        return x

    def _penalised(self, x: Array, occurred: _Occurred) -> Array:
        s, ids, drawn = self.sampling, occurred.ids, occurred.drawn
        repetition, presence, frequency = (
            np.float32(p) for p in (s.repetition_penalty, s.presence_penalty, s.frequency_penalty)
        )
        z: Any = x[ids]
        out = x.copy()
        with np.errstate(all="ignore"):
            z = np.where(z > 0, z / repetition, z * repetition)
            z = z - (drawn > 0).astype(np.float32) * presence
            out[ids] = z - drawn * frequency
        return out


class _Occurred:
    """The tokens of a text, each once, and how often it was drawn."""

    def __init__(self) -> None:
        self.ids, self.drawn = np.zeros(0, np.int64), np.zeros(0, np.float32)
        self._place: dict[int, int] = {}

    def add(self, tokens: Sequence[int], times: int) -> None:
        new = [t for t in dict.fromkeys(tokens) if t not in self._place]
        self._place |= {t: len(self._place) + i for i, t in enumerate(new)}
        self.ids = np.append(self.ids, np.array(new, np.int64))
        self.drawn = np.append(self.drawn, np.zeros(len(new), np.float32))
        for t in tokens if times else ():
            self.drawn[self._place[t]] += times


@clean_floats
def draw(
    sampler: Sampler, drawings: Sequence[Drawing], rows: Sequence[Array], positions: Sequence[int]
) -> list[int]:
    """The tokens at `positions`, each from its row of adjusted logits; the drawings are told of them."""
    tokens = drawn(sampler, [d.sampling for d in drawings], rows, positions)
    for d, t in zip(drawings, tokens, strict=True):
        d.took(t)
    return tokens


def drawn(
    sampler: Sampler, s: Sequence[Sampling], rows: Sequence[Array], positions: Sequence[int]
) -> list[int]:
    """The tokens at `positions`, each by its sampling from its row of adjusted logits."""

    def f32(name: str) -> Array:
        return np.array([getattr(x, name) for x in s], np.float32)

    def i64(name: str) -> Array:
        return np.array([getattr(x, name) for x in s], np.int64)

    tokens = sampler(np.stack(rows), f32("temperature"), f32("top_p"), f32("min_p"), i64("top_k"), i64("seed"),
                     np.array(positions, np.int64), i64("choice"))  # fmt: skip
    return list(tokens.tolist())
