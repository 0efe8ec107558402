"""Drawing the next token of several texts from their logits, as a claim's step does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ree.generation.request import Sampling
from ree.kernels.opdef import Array
from ree.runtime.sampler import Sampler


class Drawing:
    """The sampling of one text, prepared: its rows over the vocabulary are made once."""

    def __init__(self, sampling: Sampling, stop: Array) -> None:
        self.sampling, self.stop = sampling, stop
        self.bias = sampling.bias_row(len(stop)) if sampling.bias else None

    def adjusted(self, logits: Array, drawn: int) -> Array:
        """Logits f32 [vocabulary] with the bias, and without the stop tokens where it is too early for one.

        drawn: how many tokens were drawn before.
        """
        x: Array = logits if self.bias is None else np.add(logits, self.bias)
        return (
            np.where(self.stop, np.float32(-np.inf), x) if drawn < self.sampling.min_tokens else x
        )


def draw(
    sampler: Sampler, drawings: Sequence[Drawing], logits: Sequence[Array], positions: Sequence[int],
    drawn: Sequence[int],
) -> list[int]:  # fmt: skip
    """The tokens at `positions`, each from its row of logits."""
    rows = np.stack([d.adjusted(x, n) for d, x, n in zip(drawings, logits, drawn, strict=True)])
    s = [d.sampling for d in drawings]

    def f32(name: str) -> Array:
        return np.array([getattr(x, name) for x in s], np.float32)

    def i64(name: str) -> Array:
        return np.array([getattr(x, name) for x in s], np.int64)

    tokens = sampler(rows, f32("temperature"), f32("top_p"), f32("min_p"), i64("top_k"), i64("seed"),
                     np.array(positions, np.int64), i64("choice"))  # fmt: skip
    return [int(t) for t in tokens]
