"""Tensor hashes: SHA-256(0x02 || dtype || rank || dims || body root).

The body root is the Merkle root over the tensor's little-endian, C-ordered bytes cut into leaves of
512, the last one zero-filled. It does not depend on dtype or shape, so views share it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ree.kernels.constants import LEAF_BYTES as LEAF_BYTES
from ree.kernels.types import MAX_RANK, DType
from ree.traces.encoding import TENSOR, digest, sha256, u8, u64
from ree.traces.merkle import merkle_root

Array = npt.NDArray[Any]
BodyRoot = Callable[[Array], bytes]


def dtype_of(x: Array) -> DType:
    """Element type of an array; uint16 holds bfloat16 bits. ValueError if unsupported."""
    return DType.BF16 if x.dtype == DType.BF16.numpy else DType.of(x.dtype)


def raw_bytes(x: Array) -> memoryview:
    """The bytes that are hashed and stored: C order, little-endian; no copy if already so."""
    flat = np.ascontiguousarray(x).reshape(-1)
    if flat.size == 0:
        return memoryview(b"")
    return flat.astype(flat.dtype.newbyteorder("<"), copy=False).view(np.uint8).data


def body_leaf(raw: memoryview | bytes, index: int) -> bytes:
    """Leaf `index` of a body: 512 bytes, zero-filled."""
    return bytes(raw[LEAF_BYTES * index : LEAF_BYTES * (index + 1)]).ljust(LEAF_BYTES, b"\0")


def body_leaves(nbytes: int) -> int:
    """Number of leaves of a body of `nbytes`."""
    return (nbytes + LEAF_BYTES - 1) // LEAF_BYTES


def body_root(x: Array) -> bytes:
    """Root over the array's bytes: the reference of the csrc kernel `tree_hash`."""
    raw = raw_bytes(x)
    return merkle_root(body_leaf(raw, i) for i in range(body_leaves(len(raw))))


def hash_from_root(code: int, dims: Sequence[int], root: bytes) -> bytes:
    """Tensor hash from a dtype code, dimensions (at most 8) and a body root."""
    if len(dims) > MAX_RANK:
        raise ValueError(f"rank: expected at most {MAX_RANK}, got {len(dims)}")
    header = u8(code) + u8(len(dims)) + b"".join(u64(d) for d in dims)
    return sha256(TENSOR, header, digest(root, "body root"))


def tensor_hash(x: Array, *, body_root: BodyRoot = body_root) -> bytes:
    """Tensor hash of an array. body_root: a faster function with the same results.

    ValueError for an unsupported dtype, a rank over 8, or a bool stored as other than 0 or 1.
    """
    x = np.asarray(x)
    if x.dtype == np.bool_ and x.size and int(x.view(np.uint8).max()) > 1:
        raise ValueError("bool: expected bytes 0 or 1")
    return hash_from_root(dtype_of(x).code, x.shape, body_root(x))
