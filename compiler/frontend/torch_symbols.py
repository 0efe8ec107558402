"""torch's shape symbols and expressions as ours."""

from __future__ import annotations

from typing import Any

import torch

from ree.compiler.frontend.torch_types import TORCH_NAMES, dtype_of
from ree.compiler.ir import Symbol
from ree.errors import CaptureError, UnsupportedError
from ree.kernels.types import Dim, TensorType, dim_max, dim_min, floordiv, mod, symbol


class TorchSymbols:
    """torch's shape symbols as s0, s1, ... in order of first use."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.ranges = program.range_constraints
        self.names: dict[Any, str] = {}

    def dim(self, d: int | torch.SymInt) -> Dim:
        if isinstance(d, int):
            return d
        return self._expr(d.node.expr)

    def _expr(self, e: Any) -> Dim:
        if e.is_Integer:
            return int(e)
        if e.is_Symbol:
            if e not in self.ranges:
                raise CaptureError(
                    "a tensor's shape depends on data",
                    "nonzero, boolean-mask indexing and .item() cannot be compiled",
                )
            return symbol(self.names.setdefault(e, f"s{len(self.names)}"))
        args = [self._expr(a) for a in e.args]
        name = type(e).__name__
        if e.is_Add or name == "Add":
            total: Dim = 0
            for a in args:
                total = total + a
            return total
        if e.is_Mul or name == "Mul":
            product: Dim = 1
            for a in args:
                product = product * a
            return product
        if e.is_Pow and isinstance(args[1], int) and args[1] >= 0:
            power: Dim = 1
            for _ in range(args[1]):
                power = power * args[0]
            return power
        binary = {"FloorDiv": floordiv, "CleanDiv": floordiv, "Mod": mod, "PythonMod": mod,
                  "Max": dim_max, "Min": dim_min}  # fmt: skip
        if name in binary and len(args) == 2:
            return binary[name](args[0], args[1])
        raise CaptureError(f"shape expression {e} is not supported")

    def used(self) -> list[Symbol]:
        out = []
        for s, name in self.names.items():
            r = self.ranges[s]
            low, high = (_finite(v) for v in (r.lower, r.upper))
            out.append(Symbol(name, max(low or 0, 0), MOST if high is None else min(high, MOST)))
        return out


MOST = (1 << 31) - 1


def _finite(v: Any) -> int | None:
    """A bound as an int; None where it is infinite."""
    return int(v) if isinstance(v, int) or getattr(v, "is_Integer", False) else None


def tensor_type(val: Any, name: str, symbols: TorchSymbols) -> TensorType:
    """The type of a placeholder's or a result's value; CaptureError, UnsupportedError."""
    if not isinstance(val, torch.Tensor):
        raise CaptureError(f"input '{name}' is not a tensor", "inputs must be tensors")
    dtype = dtype_of(val.dtype)
    if dtype is None:
        raise UnsupportedError(
            f"'{name}' has unsupported dtype {val.dtype}", (name,),
            "supported: " + ", ".join(TORCH_NAMES.values()),
        )  # fmt: skip
    return TensorType(dtype, tuple(symbols.dim(d) for d in val.shape))
