"""Attention: scaled dot products, softmax over 128-key segments folded in order, weighted values.

Settled where the rule could be read in two ways:

- A key is invalid when the boolean mask, causality or the window say so, or when its final score is
  -inf. An invalid key has p = +0 in place, even where u is NaN, and its v is read as +0.
- A NaN score belongs to a valid key: it makes m, every valid p, l and the whole output row NaN.
- A score of +inf gives u = +inf and p = exp(inf - inf) = NaN: the output row is NaN.
- The maximum is `maximum` of numerics.py (NaN if either is NaN). An implementation may ignore NaN
  there: the p of a NaN score is NaN on its own, so l and every o of that row are NaN either way.
- The output is +0 only if l == 0. l NaN gives NaN; o / l may underflow to -0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ree.kernels.numerics import (
    F32,
    SEGMENT,
    canonical_nan,
    contract,
    fma32,
    max_last,
    maximum,
    tree_sum,
)
from ree.kernels.scalar.emit_numpy import evaluate as evaluate_scalar
from ree.kernels.scalar.functions import FUNCTIONS

ZERO = np.float32(0)
NEG_INF = np.float32(-np.inf)
EXP = FUNCTIONS["exp"]


def valid_range(position: int, keys: int, causal: bool, window: int) -> tuple[int, int]:
    """Keys [low, high) that a query at absolute `position` may see, mask aside."""
    high = min(keys, position + 1) if causal else keys
    low = max(0, position - window + 1) if window else 0
    return low, max(low, high)


def attention(
    q: F32,
    k: F32,
    v: F32,
    mask: npt.NDArray[np.generic] | None = None,
    *,
    scale: float,
    causal: bool = False,
    window: int = 0,
    q_offset: int = 0,
) -> F32:
    """Attention by the contract; float32 [B, H, Tq, DV].

    q [B, H, Tq, D], k [B, HK, Tk, D], v [B, HK, Tk, DV] with HK dividing H: head h reads k and v of
    head h // (H // HK). mask, bool (true = valid) or float32 (added), broadcasts to [B, H, Tq, Tk].
    Query i stands at position i + q_offset.
    """
    batch, heads, queries, _ = q.shape
    keys = k.shape[2]
    group = heads // max(1, k.shape[1])
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    valid = np.zeros((queries, keys), bool)
    for i in range(queries):
        low, high = valid_range(i + q_offset, keys, causal, window)
        valid[i, low:high] = True
    valid = np.broadcast_to(valid, (batch, heads, queries, keys))
    state = (batch, heads, queries)
    big_m = np.full(state, NEG_INF)
    big_l = np.zeros(state, np.float32)
    big_o = np.zeros((*state, v.shape[3]), np.float32)
    if mask is not None:
        mask = np.broadcast_to(mask, valid.shape)
        if mask.dtype == bool:
            valid = valid & mask
            mask = None
    with np.errstate(all="ignore"):
        for start in range(0, keys, SEGMENT):
            part = slice(start, min(start + SEGMENT, keys))
            s = contract(q[:, :, :, None, :], k[:, :, None, part, :]) * np.float32(scale)
            if mask is not None:
                s = s + mask[..., part].astype(np.float32)
            s = np.where(valid[..., part], s, NEG_INF)
            m, part_l, part_o = segment(s, v[:, :, part, :])
            new_m = maximum(big_m, m)
            u = shift(new_m)
            a, b = exp(big_m - u), exp(m - u)
            big_l = fma32(big_l, a, part_l * b)
            big_o = fma32(big_o, a[..., None], part_o * b[..., None]) + ZERO
            big_m = new_m
        total = big_l[..., None]
        return canonical_nan(np.where(total == 0, ZERO, big_o / total))


def segment(s: F32, v: F32) -> tuple[F32, F32, F32]:
    """Maximum, denominator and weighted values of one segment, from its scores.

    s [B, H, Tq, n], v [B, H, n, DV] with n <= 128.
    """
    m = max_last(s)
    valid = s != NEG_INF
    p = np.where(valid, exp(s - shift(m)[..., None]), ZERO)
    slots = np.zeros((*s.shape[:-1], SEGMENT), np.float32)
    slots[..., : s.shape[-1]] = p
    o = np.zeros((*s.shape[:-1], v.shape[-1]), np.float32)
    for j in range(s.shape[-1]):
        o = fma32(p[..., j, None], np.where(valid[..., j, None], v[:, :, None, j, :], ZERO), o)
    return m, tree_sum(slots), o + ZERO


def shift(m: F32) -> F32:
    """What is subtracted before exp: m, or +0 where nothing is valid."""
    return np.where(m == NEG_INF, ZERO, m)


def exp(x: F32) -> F32:
    """The contract's exp."""
    return np.asarray(evaluate_scalar(EXP, x), np.float32)
