"""The kernel `sample` on arrays, for whoever holds logits outside of a program."""

from __future__ import annotations

from typing import Any

import numpy as np

from ree import _core
from ree.errors import InputError, public
from ree.kernels.abi import call
from ree.kernels.opdef import Array
from ree.kernels.ops.sampling import MOST_TOKENS, PARAMETERS
from ree.runtime import settings

_F32 = np.dtype(np.float32)
_COLUMNS = [(name, np.dtype(t.numpy)) for name, t in PARAMETERS.items()]


class Sampler:
    """Draws a token from each row of logits, with the bytes of the operator `sample`.

    rows: at most so many a call; vocabulary: columns of the logits; threads and isa as of a program's run.
    InputError for sizes out of range.
    """

    def __init__(
        self, rows: int, vocabulary: int, *, threads: int | None = None, isa: str | None = None
    ) -> None:
        if rows < 0 or not 1 <= vocabulary <= MOST_TOKENS:
            raise InputError(
                f"sampler: expected rows of 1 to {MOST_TOKENS:,} tokens, got {rows} of {vocabulary:,}"
            )
        self.rows, self.vocabulary = rows, vocabulary
        self._threads, self._isa = threads, settings.isa(isa)
        self._plans: dict[int, _core.Plan] = {}

    @public
    def __call__(
        self, logits: Array, temperature: Array, top_p: Array, min_p: Array, top_k: Array, seed: Array,
        position: Array, choice: Array,
    ) -> Array:  # fmt: skip
        """Tokens i64 [n] of logits f32 [n, vocabulary], n at most `rows`; temperature, top_p, min_p f32 [n];
        top_k, seed, position, choice i64 [n]. InputError for other shapes and types."""
        n = len(logits) if isinstance(logits, np.ndarray) and logits.ndim else -1
        given = [_checked("logits", logits, _F32, (n, self.vocabulary))]
        if n > self.rows:
            raise InputError(f"logits: expected {self.rows} rows at most, got {n}")
        columns = (temperature, top_p, min_p, top_k, seed, position, choice)
        given += [
            _checked(name, x, t, (n,)) for (name, t), x in zip(_COLUMNS, columns, strict=True)
        ]
        tokens = np.empty(n, np.int64)
        table = [_core.address(x) for x in (*given, tokens)]
        self._plan(n).run(settings.pool(self._threads), table)
        return tokens

    def _plan(self, n: int) -> _core.Plan:
        if n not in self._plans:
            slots = {name: i for i, name in enumerate(("logits", *PARAMETERS, "tokens"))}
            plan = _core.Plan(self._isa)
            plan.add(*call("sample", **slots, rows=n, vocabulary=self.vocabulary))
            self._plans[n] = plan
        return self._plans[n]


def _checked(name: str, x: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """x, contiguous."""
    if not isinstance(x, np.ndarray) or x.dtype != dtype or x.shape != shape:
        wanted = f"{dtype} {list(shape)}".replace("-1", "rows")
        got = f"{x.dtype} {list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
        raise InputError(f"{name}: expected {wanted}, got {got}")
    return x if x.flags.c_contiguous else np.ascontiguousarray(x)
