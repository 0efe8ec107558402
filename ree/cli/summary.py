"""What is in a tensor, in a line or as JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ree.files.safetensors import array_type
from ree.kernels.opdef import Array
from ree.kernels.types import DType

FIRST = 4  # elements shown


def describe_tensor(x: Array) -> dict[str, Any]:
    """Type, smallest, largest and mean of the finite elements, how many are not finite, the first few."""
    t = array_type(x)
    values = (x.astype(np.uint32) << 16).view(np.float32) if t.dtype is DType.BF16 else x
    wide = values.astype(np.float64 if values.dtype.kind == "f" else np.int64).reshape(-1)
    finite = wide[np.isfinite(wide)]
    out: dict[str, Any] = {"type": str(t)}
    if finite.size:
        out |= {
            "min": finite.min().item(),
            "max": finite.max().item(),
            "mean": float(finite.mean()),
        }
    if finite.size < wide.size:
        out["not_finite"] = wide.size - finite.size
    first = values.reshape(-1)[:FIRST].tolist()
    return out | {"first": [v if math.isfinite(v) else str(v) for v in first]}


def tensor_line(name: str, facts: dict[str, Any]) -> str:
    """The same for a person to read."""
    parts = [f"{k} {facts[k]:.6g}" for k in ("min", "max", "mean") if k in facts]
    if "not_finite" in facts:
        parts.append(f"{facts['not_finite']} not finite")
    first = ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in facts["first"])
    return "  ".join([f"{name}: {facts['type']}", *parts, f"[{first}]"])
