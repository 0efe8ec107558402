"""What a generation is asked for: how tokens are drawn, and where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from ree.errors import InputError
from ree.kernels.opdef import Array

MOST_BIASES = 4096
MOST_BIAS = 1e9  # either way
PENALTIES = {
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}  # what is off
REPETITION = (0.01, 100.0)
MOST_PENALTY = 100.0  # either way, the other two


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn of its logits (docs/numerics.md, "Sampling").

    temperature: 0 takes the greatest logit. top_k: 0 is off. seed: i64, by default one from the system's
    randomness; choice: which of several samples of one seed. bias: added to the
    logits of tokens by id. min_tokens: before so many no stop token is drawn. repetition_penalty: logits of
    tokens that occurred, prompt included, are divided by it where positive and multiplied elsewhere; 1 is
    off. presence_penalty, frequency_penalty: what is taken from the logits of tokens that were drawn, once and
    for each time; 0 is off. Penalties come after the bias (order and meaning as in vLLM).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    top_k: int = 0
    seed: int | None = None
    choice: int = 0
    min_tokens: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def penalises(self) -> bool:
        """Whether tokens that occurred count."""
        return any(getattr(self, n) != off for n, off in PENALTIES.items())

    def check(self, vocabulary: int) -> None:
        """InputError for a number out of its range."""
        for name, low, high in (
            ("temperature", 0.0, 1e6),
            ("top_p", 0.0, 1.0),
            ("min_p", 0.0, 1.0),
            ("repetition_penalty", *REPETITION),
            ("presence_penalty", -MOST_PENALTY, MOST_PENALTY),
            ("frequency_penalty", -MOST_PENALTY, MOST_PENALTY),
        ):
            x = getattr(self, name)
            if type(x) not in (int, float) or not low <= x <= high:
                raise InputError(f"{name}: expected {low:g} to {high:g}, got {x!r:.40}")
        for name, least, most in (("top_k", 0, 2**31 - 1), ("seed", -(2**63), 2**63 - 1),
                                  ("choice", 0, 2**31 - 1), ("min_tokens", 0, 2**31 - 1)):  # fmt: skip
            n = getattr(self, name)
            if type(n) is not int or not least <= n <= most:
                raise InputError(f"{name}: expected {least} to {most}, got {n!r:.40}")
        if len(self.bias) > MOST_BIASES:
            raise InputError(f"bias: expected at most {MOST_BIASES} tokens, got {len(self.bias)}")
        for token, b in self.bias.items():
            if type(token) is not int or not 0 <= token < vocabulary:
                raise InputError(f"bias: expected tokens 0 to {vocabulary - 1}, got {token!r:.40}")
            if type(b) not in (int, float) or not abs(b) <= MOST_BIAS:
                raise InputError(f"bias of {token}: expected at most {MOST_BIAS:g}, got {b!r:.40}")

    def bias_row(self, vocabulary: int) -> Array:
        """f32 [vocabulary]: what is added to each logit."""
        row = np.zeros(vocabulary, np.float32)
        for token, b in self.bias.items():
            row[token] = b
        return row


# all of a sampling but what differs by token
NUMBERS = tuple(f.name for f in fields(Sampling) if f.name != "bias")


def stop_row(stop: tuple[int, ...], vocabulary: int) -> Array:
    """bool [vocabulary]: the tokens that end a generation."""
    row = np.zeros(vocabulary, np.bool_)
    row[list(stop)] = True
    return row
