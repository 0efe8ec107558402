"""The numeric contract: its constants, and its ordered forms over NumPy arrays.

Pure NumPy and slow on purpose: this is the meaning that every kernel must equal, byte for byte.
Clauses are those of docs/numerics.md.
"""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from ree.kernels.constants import CANONICAL_NAN as CANONICAL_NAN
from ree.kernels.constants import SEGMENT as SEGMENT
from ree.kernels.constants import SUM_BLOCK as SUM_BLOCK
from ree.kernels.constants import SUM_LANES as SUM_LANES

CONTRACT = "repops/0"

F32 = npt.NDArray[np.float32]


def is_f32(x: npt.NDArray[np.generic]) -> TypeGuard[F32]:
    """Whether an array holds float32."""
    return x.dtype == np.float32


def canonical_nan(x: F32) -> F32:
    """x with every NaN replaced by 0x7fc00000; float32 in and out, same shape."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(nan, np.uint32(CANONICAL_NAN), bits).view(np.float32)


def fma32(a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike) -> F32:
    """a*b + c rounded once to float32; broadcasts.

    The product of two float32 is exact in float64; the sum is rounded to odd there, so that the
    final rounding to float32 is the only one (Boldo and Melquiond, 2008).
    """
    with np.errstate(all="ignore"):
        product = np.multiply(a, b, dtype=np.float64)
        addend = np.asarray(c, np.float64)
        total = product + addend
        t = total - product
        error = (product - (total - t)) + (addend - t)
        bits = total.view(np.int64)
        odd_needed = (error != 0) & np.isfinite(total) & np.isfinite(error) & ((bits & 1) == 0)
        toward = np.where(np.signbit(error) == np.signbit(total), 1, -1)
        fixed = np.where(odd_needed, bits + toward, bits).view(np.float64)
        return fixed.astype(np.float32)


def contract(a: F32, b: F32) -> F32:
    """Contraction over the last axis of both operands, which broadcast; float32.

    total = +0; per segment of SEGMENT consecutive k: s = +0, s = fma(a_k, b_k, s) for k ascending,
    total = total + s. The result is never -0.
    """
    shape = np.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    k_size = a.shape[-1]
    total = np.zeros(shape, np.float32)
    with np.errstate(all="ignore"):
        for start in range(0, k_size, SEGMENT):
            s = np.zeros(shape, np.float32)
            for k in range(start, min(start + SEGMENT, k_size)):
                s = fma32(a[..., k], b[..., k], s)
            total = total + s
    return canonical_nan(total)


def tree_sum(x: F32) -> F32:
    """Sum over the last axis by blocks of SUM_BLOCK and SUM_LANES lanes; float32.

    Lane l starts at +0 and adds elements l, l+64, ... of its block in ascending order; lanes fold
    by halving (l with l+32, then +16, ...); block results are summed by the same rule.
    """
    n = x.shape[-1]
    with np.errstate(all="ignore"):
        blocks = []
        for start in range(0, n, SUM_BLOCK):
            lanes = np.zeros((*x.shape[:-1], SUM_LANES), np.float32)
            for i in range(start, min(start + SUM_BLOCK, n), SUM_LANES):
                part = x[..., i : min(i + SUM_LANES, start + SUM_BLOCK, n)]
                width = part.shape[-1]
                lanes[..., :width] = lanes[..., :width] + part
            width = SUM_LANES
            while width > 1:
                width //= 2
                lanes = lanes[..., :width] + lanes[..., width:]
            blocks.append(lanes[..., 0])
        if not blocks:
            return np.zeros(x.shape[:-1], np.float32)
        if len(blocks) == 1:
            return canonical_nan(blocks[0])
        return tree_sum(np.stack(blocks, axis=-1))


def minimum(a: F32, b: F32) -> F32:
    """NaN if either is NaN; -0 < +0."""
    pick_a = (a < b) | ((a == b) & np.signbit(a))
    out = np.where(pick_a, a, b)
    return canonical_nan(np.where(np.isnan(a) | np.isnan(b), np.float32(np.nan), out))


def maximum(a: F32, b: F32) -> F32:
    """NaN if either is NaN; -0 < +0."""
    pick_a = (a > b) | ((a == b) & ~np.signbit(a))
    out = np.where(pick_a, a, b)
    return canonical_nan(np.where(np.isnan(a) | np.isnan(b), np.float32(np.nan), out))


def max_last(x: F32) -> F32:
    """Maximum over the last axis by `maximum`; -inf for an empty axis."""
    out = np.full(x.shape[:-1], -np.inf, np.float32)
    for i in range(x.shape[-1]):
        out = maximum(out, x[..., i])
    return out
