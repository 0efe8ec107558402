"""Log-probabilities of tokens, by the operators of the contract: one row of logits gives one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ree.compiler.ir import Builder, Symbol
from ree.kernels.opdef import Array
from ree.kernels.types import LARGEST, DType, TensorType, symbol
from ree.program import Names, Program


@dataclass(frozen=True)
class TokenLogProb:
    """A token's log-probability, f32, and the likeliest tokens there with theirs: logits descending, ties to
    the lower id."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class LogProbs:
    """(x - m) - log(sum exp(x - m)), m the greatest, of logits as the model gives them: before biases,
    penalties, masks and temperature."""

    def __init__(
        self, vocabulary: int, *, threads: int | None = None, isa: str | None = None
    ) -> None:
        self._vocabulary, self._threads, self._isa = vocabulary, threads, isa
        self._program: Program | None = None

    def __call__(self, logits: Array, tokens: Sequence[int], top: int) -> list[TokenLogProb]:
        """For each row of logits f32 [n, vocabulary] its token, with the `top` likeliest."""
        if not len(tokens):
            return []
        if self._program is None:
            self._program = _program(self._vocabulary)
        rows = self._program.run(logits, threads=self._threads, isa=self._isa).outputs[0]
        return [TokenLogProb(t, float(row[t]), tuple((i, float(row[i])) for i in likeliest(x, top)))
                for x, row, t in zip(logits, rows, tokens, strict=True)]  # fmt: skip


def likeliest(logits: Array, n: int) -> list[int]:
    """The ids of the n greatest of logits [vocabulary], descending, ties to the lower id; NaN comes last."""
    if n <= 0:
        return []
    x = np.where(np.isnan(logits), -np.inf, logits)
    least = np.partition(x, len(x) - n)[len(x) - n] if n < len(x) else -np.inf
    candidates = np.flatnonzero(x >= least)
    return [int(i) for i in candidates[np.argsort(-x[candidates], kind="stable")[:n]]]


def _program(vocabulary: int) -> Program:
    b = Builder()
    b.symbols = [Symbol("rows", 0, LARGEST)]
    x = b.input(TensorType(DType.F32, (symbol("rows"), vocabulary)))
    less = b.add("sub", x, b.add("amax", x, dim=1, keepdim=True))
    total = b.add("sum", b.add("exp", less), dim=1, keepdim=True)
    y = b.add("sub", less, b.add("log", total))
    return Program(b.finish((y,)), Names(("logits",), ("logprobs",), ()), ())
