"""Tensor hashes, the tree over the bytes made by the csrc kernel."""

from __future__ import annotations

import numpy as np

from ree import _core
from ree.kernels.abi import call
from ree.kernels.opdef import Array
from ree.kernels.types import TensorType
from ree.runtime import settings
from ree.traces.tensor import hash_from_root, tensor_hash


def hash_array(x: Array) -> bytes:
    """Tensor hash, the body root by the csrc kernel."""
    return tensor_hash(x, body_root=fast_body_root)


def tensor_hash_of(t: TensorType, root: bytes) -> bytes:
    """Tensor hash from a type and a body root."""
    return hash_from_root(t.dtype.code, t.dims, root)


def fast_body_root(x: Array) -> bytes:
    """Body root of a contiguous array by the csrc kernel."""
    x = np.ascontiguousarray(x)
    out = np.zeros(32, np.uint8)
    p = _core.Plan(settings.isa())
    p.add(*call("tree_hash", data=0, root=1, bytes=x.nbytes))
    p.run(settings.pool(), [x.ctypes.data, out.ctypes.data])
    return out.tobytes()
