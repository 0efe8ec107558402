"""Blocks of GGUF tensors taken apart: whole numbers, and what they are multiplied by and moved by.

Each type is scale * q, or scale * q + offset, in float32 and in this order, as ggml defines it (ggml-quants.c,
ggml-common.h); the products that make up a scale or an offset are exact there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
F32 = NDArray[np.float32]
# whole numbers [blocks, parts, size], scale and offset [blocks, parts, 1]; None: there is no offset
Parts = tuple[NDArray[np.int8], F32, F32 | None]


def _half(b: Bytes, at: int) -> F32:
    """The float16 at a place of every block, [blocks, 1, 1]."""
    raw = np.ascontiguousarray(b[:, at : at + 2]).view("<f2")
    return raw.astype(np.float32).reshape(-1, 1, 1)


def _nibbles(b: Bytes, part: int) -> Bytes:
    """Low halves of every `part` bytes, then their high halves, [blocks, bytes / part, 2 * part]."""
    x = b.reshape(len(b), -1, part)
    return np.concatenate((x & 15, x >> 4), axis=2)


def _fifth_bits(b: Bytes) -> Bytes:
    """Bits of four bytes, lowest first, each as 16."""
    bits = np.unpackbits(np.ascontiguousarray(b), axis=1, bitorder="little")
    return (bits[:, None, :] << 4).astype(np.uint8)


def _q8_0(b: Bytes) -> Parts:
    return np.ascontiguousarray(b[:, 2:]).view(np.int8)[:, None, :], _half(b, 0), None


def _q4_0(b: Bytes) -> Parts:
    return _nibbles(b[:, 2:], 16).astype(np.int8) - np.int8(8), _half(b, 0), None


def _q4_1(b: Bytes) -> Parts:
    return _nibbles(b[:, 4:], 16).astype(np.int8), _half(b, 0), _half(b, 2)


def _q5_0(b: Bytes) -> Parts:
    q = _nibbles(b[:, 6:], 16) | _fifth_bits(b[:, 2:6])
    return q.astype(np.int8) - np.int8(16), _half(b, 0), None


def _q5_1(b: Bytes) -> Parts:
    q = _nibbles(b[:, 8:], 16) | _fifth_bits(b[:, 4:8])
    return q.astype(np.int8), _half(b, 0), _half(b, 2)


def _six_bits(b: Bytes) -> tuple[F32, F32]:
    """Eight scales and eight offsets of six bits each from twelve bytes, [blocks, 8, 1]."""
    low, mid, high = (b[:, i : i + 4] for i in (0, 4, 8))
    scale = np.concatenate((low & 63, (high & 15) | (low >> 6 << 4)), axis=1)
    offset = np.concatenate((mid & 63, (high >> 4) | (mid >> 6 << 4)), axis=1)
    return scale[..., None].astype(np.float32), offset[..., None].astype(np.float32)


def _k_terms(b: Bytes) -> tuple[F32, F32]:
    scale, offset = _six_bits(b[:, 4:16])
    return _half(b, 0) * scale, -(_half(b, 2) * offset)


def _q4_k(b: Bytes) -> Parts:
    q = _nibbles(b[:, 16:], 32).reshape(len(b), 8, 32)
    return q.astype(np.int8), *_k_terms(b)


def _q5_k(b: Bytes) -> Parts:
    fifth = (b[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[None, :, None]) & 1
    q = _nibbles(b[:, 48:], 32).reshape(len(b), 8, 32) | fifth << 4
    return q.astype(np.int8), *_k_terms(b)


def _q6_k(b: Bytes) -> Parts:
    # halves of 128: 64 bytes of low bits, 32 bytes of high bits, for four runs of 32
    low, high = b[:, :128].reshape(-1, 2, 64), b[:, 128:192].reshape(-1, 2, 1, 32)
    four = np.concatenate((low & 15, low >> 4), axis=2).reshape(-1, 2, 4, 32)
    two = high >> np.array([0, 2, 4, 6], np.uint8)[None, None, :, None] & 3
    q = (four | two << 4).reshape(-1, 16, 16).astype(np.int8) - np.int8(32)
    scale = np.ascontiguousarray(b[:, 192:208]).view(np.int8)[..., None].astype(np.float32)
    return q, _half(b, 208) * scale, None


PARTS: dict[str, Callable[[Bytes], Parts]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0,
    "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
}  # fmt: skip
