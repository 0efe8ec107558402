"""Canonical bits: one pattern for NaN in every float type, 0 and 1 for bools (docs/numerics.md).

Whatever comes from outside passes through here before anything hashes or uses it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ree.kernels.numerics import CANONICAL_NAN
from ree.kernels.types import DType

Array = npt.NDArray[np.generic]
_PART = 1 << 22  # elements looked at at once
# per float type: its bits, infinity, the canonical NaN
FLOATS = {
    DType.F32: (np.uint32, 0x7F800000, CANONICAL_NAN), DType.F16: (np.uint16, 0x7C00, 0x7E00),
    DType.BF16: (np.uint16, 0x7F80, 0x7FC0),
}  # fmt: skip


def canonical(x: Array) -> Array:
    """The same values in canonical bits; x itself if it has no others. Any shape and dtype of a program."""
    odd = _odd(x)
    if odd is None or not odd.any():
        return x
    d = DType.of(x.dtype)
    if d is DType.BOOL:
        return np.asarray(x.view(np.uint8) != 0)
    bits, _, nan = FLOATS[d]
    return np.asarray(np.where(odd, np.array(nan, bits), x.view(bits))).view(d.numpy)


def is_canonical(x: Array) -> bool:
    """Whether every element has the one pattern that its value has."""
    flat = x.reshape(-1)
    parts = (_odd(flat[i : i + _PART]) for i in range(0, flat.size, _PART))
    return not any(odd is not None and odd.any() for odd in parts)


def _odd(x: Array) -> npt.NDArray[np.bool_] | None:
    """Which elements have other bits than their value should; None for types that have no others."""
    d = DType.of(x.dtype)
    if d is DType.BOOL:
        return np.asarray(x.view(np.uint8) > 1)
    if d not in FLOATS:
        return None
    bits, infinity, nan = FLOATS[d]
    raw = x.view(bits)
    return np.asarray(((raw << 1) > infinity << 1) & (raw != nan))  # without the sign
