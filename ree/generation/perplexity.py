"""How well a language model foretells a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ree.errors import InputError
from ree.generation.engine import Engine
from ree.generation.layout import CHUNK
from ree.generation.model import LanguageModel

MOST = 2048  # tokens that are read


def perplexity(model: LanguageModel, tokens: Sequence[int]) -> float:
    """exp of the mean negative log-probability of tokens[1:], each behind those before it; 1 is best.

    In float64. InputError for fewer than 2 tokens.
    """
    if len(tokens) < 2:
        raise InputError(f"perplexity: expected 2 or more tokens, got {len(tokens)}")
    engine, total = Engine(model.forward, positions=len(tokens), most=len(tokens)), 0.0
    for start in range(0, len(tokens) - 1, CHUNK):
        part = tokens[start : min(start + CHUNK, len(tokens) - 1)]
        x = engine.read(0, part, start, first=0).astype(np.float64)
        top = x.max(1)
        log_sum = top + np.log(np.exp(x - top[:, None]).sum(1))
        following = list(tokens[start + 1 : start + 1 + len(part)])
        total += float((log_sum - x[np.arange(len(part)), following]).sum())
    return float(np.exp(total / (len(tokens) - 1)))
