"""The rule of `sample` in Python's own integers, a row at a time: slow, and written from its text alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ree.kernels.opdef import Array
from ree.kernels.scalar.emit_numpy import evaluate
from ree.kernels.scalar.functions import FUNCTIONS

M32 = (1 << 32) - 1


def philox(counter: Sequence[int], key: Sequence[int]) -> Sequence[int]:
    """Four words of Philox 4x32-10."""
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [b >> 32 ^ counter[1] ^ key[0], b & M32, a >> 32 ^ counter[3] ^ key[1], a & M32]
        key = [(key[0] + 0x9E3779B9) & M32, (key[1] + 0xBB67AE85) & M32]
    return counter


def word(seed: int, position: int, choice: int, lane: int) -> int:
    """24 random bits."""
    block = (4 * choice % 2**64 - 2**64 * (4 * choice % 2**64 >= 2**63)) >> 2  # of a signed element
    counter = [block & M32, block >> 32 & M32, M32, position & M32]
    return philox(counter, [seed & M32, seed >> 32 & M32])[lane] >> 8


def greatest(x: Sequence[float]) -> int:
    """NaN before all, -0 equal to +0, lowest index."""
    nans = [i for i, v in enumerate(x) if math.isnan(v)]
    return nans[0] if nans else max(range(len(x)), key=lambda i: (x[i], -i))


def draw(
    logits: Array, temperature: float, top_p: float, min_p: float, top_k: int, seed: int, position: int,
    choice: int,
) -> int:  # fmt: skip
    """The token of one row."""
    if not temperature > 0:
        return greatest(logits.tolist())
    with np.errstate(all="ignore"):
        x = np.divide(logits, np.float32(temperature), dtype=np.float32)
        e = evaluate(FUNCTIONS["exp"], x - x.max())
    if not np.isfinite(x.max()):  # NaN among them, too
        return greatest(logits.tolist())
    w = [int(v * 2**40) if v == v else 0 for v in map(float, e)]
    order = sorted(range(len(x)), key=lambda i: (-float(x[i]), i))
    kept = [
        i for r, i in enumerate(order) if r == 0 or (e[i] >= min_p and (top_k <= 0 or r < top_k))
    ]
    total = sum(w[i] for i in kept)
    p = 0 if math.isnan(top_p) or top_p < 0 else min(int(min(top_p, 2) * 2**24), 2**24)
    limit, better, nucleus = total * p // 2**24, 0, set()
    for r, i in enumerate(kept):
        if r == 0 or better < limit:
            nucleus.add(i)
        better += w[i]
    random = word(seed, position, choice, 0) << 24 | word(seed, position, choice, 1)
    target, running = sum(w[i] for i in nucleus) * random >> 48, 0
    for i in range(len(x)):
        running += w[i] if i in nucleus else 0
        if running > target:
            return i
    raise AssertionError("the target is below the sum")


def draws(logits: Array, *parameters: Array) -> Array:
    """Tokens of all rows."""
    columns = [p.tolist() for p in parameters]
    rows = [draw(x, *one) for x, *one in zip(logits, *columns, strict=True)]
    return np.array(rows, np.int64)
