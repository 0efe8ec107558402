"""torch's element types and ours, and the way of data between torch and NumPy."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ree.kernels.opdef import Array
from ree.kernels.types import DType

TORCH_NAMES = {DType.F32: "float32", DType.F16: "float16", DType.BF16: "bfloat16", DType.I64: "int64",
               DType.I32: "int32", DType.I16: "int16", DType.I8: "int8", DType.U8: "uint8",
               DType.BOOL: "bool"}  # fmt: skip
# codes of DLPack, and bits
DLPACK = {DType.F32: (2, 32), DType.F16: (2, 16), DType.BF16: (4, 16), DType.I64: (0, 64), DType.I32: (0, 32),
          DType.I16: (0, 16), DType.I8: (0, 8), DType.U8: (1, 8), DType.BOOL: (6, 8)}  # fmt: skip
_OURS = {f"torch.{name}": d for d, name in TORCH_NAMES.items()}


def dtype_of(x: Any) -> DType | None:
    """Our type of a torch dtype, or None; torch is not imported."""
    return _OURS.get(str(x))


def is_tensor(x: Any) -> bool:
    """Whether x is a torch tensor; torch is not imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def torch_dtype(d: DType) -> Any:
    """The torch dtype of ours."""
    import torch

    return getattr(torch, TORCH_NAMES[d])


def to_numpy(t: Any) -> Array:
    """A dense torch tensor as an array; bfloat16 as uint16 bits. May share memory."""
    import torch

    if t.dtype is torch.bfloat16:
        bits = t.detach().contiguous().view(torch.int16)
        return np.asarray(bits.numpy(force=True).view(np.uint16))
    return np.asarray(t.numpy(force=True))  # of any device, and of views that negate or conjugate


def to_torch(x: Array) -> Any:
    """An array as a torch tensor that shares its memory; uint16 as bfloat16."""
    import torch

    if x.dtype == np.uint16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)
